"""What the notebooks show: excerpts, tables, figures, endings, the footer."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmlab.errors import NotReady
from wasmlab.notebooks import kit
from wasmlab.sandbox.spec import CapturedOutcome

TEXT = "zero\none\n  two\nthree\nfour\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "zero\none\n  two\nthree\nfour\n"),
        ({"start": "one"}, "…\none\n  two\nthree\nfour\n"),
        ({"start": "one", "stop": "four"}, "…\none\n  two\nthree\n…\n"),
        ({"stop": "three"}, "zero\none\n  two\n…\n"),
        ({"lines": 2}, "zero\none\n…\n"),
        ({"start": "absent"}, "zero\none\n  two\nthree\nfour\n"),
    ],
)
def test_excerpts_mark_what_they_leave_out(
    options: dict, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kit.excerpt(TEXT, **options)
    assert capsys.readouterr().out == shown


def test_a_figure_is_kept_and_shown_with_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMLAB_REPORTS", str(tmp_path))
    shown: list = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure, axes = kit.canvas(4, 2)
    axes.plot([1, 2])
    kit.show(figure, "01_line", "a line")
    kept = tmp_path / "plots" / "01_line.png"
    assert kept.read_bytes().startswith(b"\x89PNG")
    assert shown[0].alt == "a line" and shown[0].data == kept.read_bytes()
    first = kept.read_bytes()
    kit.show(figure, "01_line", "a line")
    assert kept.read_bytes() == first  # the same figure, the same bytes


def test_tables_escape_and_format() -> None:
    text = kit.table([{"a": "<b>", "ms": 1.25}, {"a": "c", "ms": None}], formats={"ms": "{:.1f}"}).to_html()
    assert "&lt;b&gt;" in text and "1.2" in text and "–" in text


def test_endings_tell_traps_from_exit_codes() -> None:
    assert kit.ending(CapturedOutcome(None, trap="stack_overflow")) == "trap: stack overflow"
    assert kit.ending(CapturedOutcome(200)) == "exit code 200"
    assert kit.ending(CapturedOutcome(0, stdout=b"a\nb\n")) == "exit code 0, printed 'b'"


def test_waiting_has_a_deadline() -> None:
    assert kit.until(lambda: "there") == "there"
    with pytest.raises(NotReady, match=r"waited 0\.1 s for it"):
        kit.until(lambda: None, timeout_s=0.1, what="it")


def test_the_footer_says_where_and_when() -> None:
    text = kit.footer("v1.37.2").to_html()
    for word in ("UTC", "cores", "wasmtime", "v1.37.2", "Python"):
        assert word in text
    assert "Kubernetes" not in kit.footer().to_html()
