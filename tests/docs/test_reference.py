"""The reference is what the code says, and the code says enough."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from wasmlab import cli, helptext, reference
from wasmlab.reference import commandline, docstrings, documents, python

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def root_command() -> Any:
    return typer.main.get_command(cli.build_app())


def leaves() -> Iterator[tuple[str, Any]]:
    for path, command in commandline.commands(root_command()):
        if not hasattr(command, "commands") or getattr(command, "invoke_without_command", False):
            yield " ".join(path), command


@pytest.mark.timeout(300)
def test_the_pages_are_what_would_be_written() -> None:
    old = reference.stale(ROOT / "docs")
    assert not old, f"out of date: {', '.join(old)}; write them: python -m wasmlab.reference"


def test_pages_are_written_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "pages", lambda: {"reference/a.md": "# A\n\nOne.\n", "b.svg": "<svg/>"})
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "b.md").write_text("old")
    (tmp_path / "own.md").write_text("somebody's")
    old = ["b.svg", "reference/a.md", "reference/b.md"]
    assert reference.stale(tmp_path) == old
    assert reference.write(tmp_path) == [tmp_path / name for name in old]
    assert reference.write(tmp_path) == reference.stale(tmp_path) == []
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"b.svg", "own.md", "reference/a.md"}


@pytest.mark.timeout(300)
def test_public_docstrings_say_what_a_caller_needs() -> None:
    found = []
    for package, exported in python.objects().items():
        for name, one in exported.items():
            for label, target in ((name, one), *((f"{name}.{m}", t) for m, t in python.members(one))):
                found += docstrings.problems(f"{package}.{label}", target)
    assert not found, "\n".join(sorted(set(found)))


def function(text: str) -> Any:
    import griffe

    with griffe.temporary_visited_module(text, docstring_parser="numpy") as module:
        return module["f"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(): ...", "no docstring"),
        ('def f():\n    """Do it"""', "not a sentence"),
        ('def f(a):\n    """Do it."""', "parameter a is not described"),
        ('def f(a) -> int:\n    """Do it with `a`."""', "returns int and does not say"),
        (
            'def f():\n    """Do.\n\n    Parameters\n    ----------\n    b : int\n        B.\n    """',
            "no parameter",
        ),
        ('def f():\n    """Do it."""\n    raise ValueError("no")', "raises ValueError and does not say"),
    ],
)
def test_what_a_docstring_lacks_is_told(text: str, said: str) -> None:
    assert any(said in one for one in docstrings.problems("f", function(text)))


def test_a_docstring_that_says_it_all_in_its_summary() -> None:
    assert list(docstrings.problems("f", function('def f(a) -> int:\n    """Return twice `a`."""'))) == []


def test_every_command_has_json_or_a_reason() -> None:
    with_json = {name for name, command in leaves() if any("--json" in one.opts for one in command.params)}
    documented = {name.partition(" --")[0] for name in documents.DOCUMENTS}
    assert with_json == documented
    names = {name for name, _ in leaves()}
    assert names - with_json == set(documents.TEXT_ONLY)


@pytest.mark.parametrize("name", [name for name, _ in leaves()])
def test_every_help_teaches(name: str) -> None:
    command = dict(leaves())[name]
    said = helptext.paragraphs(command.help or "")
    assert said[0].endswith("."), "the first paragraph is one line: what it does"
    (example,) = [one for one in said if one.startswith("Example")]
    assert all(line.startswith("  ") for line in example.splitlines()[1:])
    assert f"wasmlab {name}" in example
    assert any(one.startswith("Changes") for one in said), "it says what it changes on the machine"
    assert all(one.help for one in command.params if not getattr(one, "hidden", False))


def test_every_command_is_loaded_alone() -> None:
    assert set(cli._OWNERS) == set(root_command().commands)
    for word in cli._OWNERS:
        assert word in typer.main.get_command(cli.build_app(word)).commands or word == "run"
