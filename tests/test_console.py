"""What is shown while something takes long, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys

import pytest

from wasmlab import console
from wasmlab.errors import NotFound


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(console, "_emitted", False)


def test_colors_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.paint("yes", "green", Terminal()) == "\x1b[32myes\x1b[0m"
    assert console.paint("yes", "green", io.StringIO()) == "yes"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.paint("yes", "green", Terminal()) == "yes"
    monkeypatch.setenv("NO_COLOR", "")  # as if it were not set, says no-color.org
    assert console.paint("yes", "green", Terminal()) != "yes"
    monkeypatch.setenv("TERM", "dumb")
    assert console.paint("yes", "green", Terminal()) == "yes"


def test_a_meter_tells_how_long_the_rest_takes() -> None:
    now = 0.0
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        now = 0.0
        meter = console.Meter("Build", stream=stream, clock=lambda: now)  # noqa: B023 - used within this turn
        meter.show(0, "3 modules downloaded")
        assert stream.getvalue() == ""
        now = 40.0
        meter.show(0, "9 modules downloaded")
        meter.count(400)  # the downloads predict nothing
        now = 80.0
        meter.show(100, "100 packages")
        meter.close()
    assert log.getvalue() == (
        " … Build  9 modules downloaded\n … Build  100 packages, about 2 min 00 s left\n"
    )
    assert (
        "\r\x1b[K … Build  █████░░░░░░░░░░░░░░░  25%  100 packages, about 2 min 00 s left"
        in terminal.getvalue()
    )
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_step_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with console.step("Start"):
        pass
    with pytest.raises(OSError, match="no"), console.step("Stop"):
        raise OSError("no")
    said = capsys.readouterr().err
    assert " ✓ Start  (" in said and " ✗ Stop  (" in said and "\x1b" not in said


def test_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert not console.has_emitted()
    console.emit(console.failure(NotFound("no such thing", remedy="look elsewhere"), 1))
    assert console.has_emitted()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["error"] == {
        "kind": "NotFound", "message": "no such thing", "remedy": "look elsewhere", "exit_code": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="JSON"):
        console.emit({"median": float("nan")})


def test_times_for_people() -> None:
    assert console.duration(45) == "45 s" and console.duration(185) == "3 min 05 s"
    assert console.time_left(10, 0, 5) == console.time_left(10, 5, 5) == ""
    assert console.time_left(10, 1, 5) == "about 40 s left"
    assert console.mark(True) in ("✓", "\x1b[32m✓\x1b[0m") and sys.stderr is not None


PATIENT = """
import sys, signal
from wasmlab import console
with console.patience("Never mind", after_s=600):
    pass
with console.patience("Compile it", after_s=0.01):
    sys.stdin.read()
assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
"""


def test_patience_says_what_goes_on_and_leaves_nothing() -> None:
    ours, theirs = pty.openpty()
    # In a process of its own: the timer is pytest-timeout's here.
    child = subprocess.Popen([sys.executable, "-c", PATIENT], stdin=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while b"Compile it" not in seen:
            seen += os.read(ours, 1000)
        child.stdin.close()
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while piece := os.read(ours, 1000):
                seen += piece
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert b"Never mind" not in seen and seen.endswith(b"\r\x1b[K")
