from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wasmlab import readme
from wasmlab.errors import WasmlabError


def test_the_readme_shows_the_recorded_data() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wasmlab.readme", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_block_is_replaced_whole() -> None:
    text = "before\n<!-- recorded:figures -->\n| made up | 1 ms |\n<!-- /recorded -->\nafter\n"
    filled = readme.fill(text)
    assert "made up" not in filled
    assert filled.startswith("before\n<!-- recorded:figures -->\nMeasured ")
    assert filled.endswith("<!-- /recorded -->\nafter\n")
    assert readme.fill(filled) == filled


def test_a_generated_block_comes_from_the_code() -> None:
    filled = readme.fill("<!-- generated:engines -->\nnothing\n<!-- /generated -->\n")
    assert "wasmtime-winch" in filled
    assert "nothing" not in filled


def test_cost_curves_can_be_shown() -> None:
    filled = readme.fill("<!-- recorded:scale -->\n<!-- /recorded -->\n")
    assert "Measured 20" in filled and "| private memory of the node, per live Pod, wasmtime |" in filled


def test_the_first_screen_needs_every_figure_it_names() -> None:
    results = readme.load_recorded("figures")
    assert readme.glance(results).count("**") == 2 * len(readme._AT_A_GLANCE)
    results.extra["headlines"] = results.extra["headlines"][1:]
    with pytest.raises(WasmlabError, match="control plane ready"):
        readme.glance(results)


def test_an_unknown_block_is_an_error() -> None:
    with pytest.raises(WasmlabError, match="nonsense"):
        readme.fill("<!-- recorded:nonsense -->\n<!-- /recorded -->")


def test_every_link_into_the_repository_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    inside = [link for link in links if not link.startswith(("http", "#"))]
    assert inside
    assert [link for link in inside if not (repository / link).exists()] == []
    headings = {
        line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")
    }
    assert {link[1:] for link in links if link.startswith("#")} <= headings


def test_the_two_commands_are_make_targets(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    targets = re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert {"lab", "test"} <= set(commands) <= set(targets)
