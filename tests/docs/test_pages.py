"""Every code block of the documentation is executed, and every link leads somewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import Shell, blocks, commands, matches, python

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A reader's: the checkout's commands on the PATH, a home of their own, the caches of this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "WASMLAB_DIR")}
    return {
        **kept,
        "PATH": path,
        "XDG_CACHE_HOME": cache,
        "HOME": str(tmp_path),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


@pytest.fixture
def reader(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    shell = Shell(tmp_path, environment)
    yield shell
    # What a page that failed half-way had started.
    shell.run("test ! -d lab || wasmlab down --dir lab --purge")
    shell.close()


@pytest.mark.integration
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "README.md"])
def test_every_code_block_runs(name: str, tmp_path: Path, reader: Shell, environment: dict[str, str]) -> None:
    program: list[str] = []
    for block in blocks((ROOT / name).read_text()):
        where = f"{name}:{block.line}"
        if not block.runs:
            assert "no-run" not in block.remark or ":" in block.remark, f"{where}: say why it is not run"
        elif block.kind == "python":
            program.append(block.text)
            code, printed = python("\n".join(program), tmp_path, environment)
            assert code == 0, f"{where}: {printed}"
        else:
            for command, expected in commands(block.text):
                code, printed = reader.run(command)
                assert matches(expected, printed), (
                    f"{where}: $ {command}\nprinted\n{printed}\nand not\n{expected}"
                )
                assert code == 0 or "exit code" in block.remark, (
                    f"{where}: $ {command}: exit code {code}\n{printed}"
                )


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{name} links to {target}"


def test_how_output_is_compared() -> None:
    assert matches("a ... c", "a b\nb c\n") and matches("a", "a  \n") and matches("", "")
    assert not matches("a", "a\nb") and not matches("a...", "b a")
    assert list(commands("$ one\nout\n$ two \\\n> more\n")) == [("one", "out"), ("two \\\nmore", "")]
