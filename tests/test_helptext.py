"""Docstrings as help."""

from __future__ import annotations

import pytest
import typer

from wasmlab import helptext


def test_brackets_mean_themselves_and_examples_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)

    @app.command()
    def one(word: str = typer.Option("", help="HOST[:PORT] or [none]")) -> None:
        """Do one thing with `it`.

        A paragraph whose source
        has two lines.

        Examples:
          one --word [[a], [b]]   # first
          one                     # second
        """

    with pytest.raises(SystemExit):
        helptext.prepare(typer.main.get_command(app))(["--help"])
    shown = capsys.readouterr().out
    assert "HOST[:PORT] or [none]" in shown
    assert "A paragraph whose source has two lines." in shown
    lines = [line.strip() for line in shown.splitlines()]
    at = lines.index("Examples:")
    assert lines[at + 1 : at + 3] == ["one --word [[a], [b]]   # first", "one                     # second"]


def test_paragraphs() -> None:
    text = """First
        line.

        Next
        one.

        Examples:
          a
          b
        """
    assert helptext.paragraphs(text) == ["First line.", "Next one.", "Examples:\n  a\n  b"]


def test_escape() -> None:
    assert helptext.escape("[a] [1] [/b]") == "\\[a] [1] \\[/b]"
