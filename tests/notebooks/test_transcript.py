"""Steps are carried out where they can be, and shown as recorded, marked, where not."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from wasmlab.errors import NotebookError
from wasmlab.notebooks.transcript import Transcript


def never() -> str:
    raise AssertionError("a recorded step must not be carried out")


def test_what_was_carried_out_can_be_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WASMLAB_REPORTS", str(tmp_path))
    play = Transcript("toy", live=True)
    assert play.show("say", lambda: f"it ran on {platform.node()} in /some/where\n").startswith("it ran")
    assert "recorded" not in capsys.readouterr().out
    play("rows", lambda: [{"code": 7}])
    kept = play.keep({"/some/where": "DIR"})
    assert kept is not None

    again = Transcript("toy", live=False, recording=kept)
    assert again.show("say", never) == "it ran on this-host in DIR\n"
    assert "[recorded 20" in capsys.readouterr().out
    assert again("rows", never) == [{"code": 7}]
    assert again.where.startswith("recorded 20")
    assert again.keep() is None
    with pytest.raises(NotebookError, match="no step 'other'"):
        again("other", never)


@pytest.mark.parametrize("content", [None, "", "[]", '{"about": {}}'])
def test_a_recording_that_cannot_be_read_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "toy.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NotebookError, match="cannot be read"):
        Transcript("toy", live=False, recording=path)


def test_a_recording_shows_no_other_settings_than_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMLAB_REPORTS", str(tmp_path))
    play = Transcript("toy", live=True, settings={"engine": "wasmtime"})
    play("said", lambda: "hello")
    kept = play.keep()
    same = Transcript("toy", live=False, settings={"engine": "wasmtime"}, recording=kept)
    assert same("said", never) == "hello"
    with pytest.raises(NotebookError, match="made with engine=wasmtime; it cannot show engine=wasmer"):
        Transcript("toy", live=False, settings={"engine": "wasmer"}, recording=kept)
