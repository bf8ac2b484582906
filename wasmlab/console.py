"""What a person sees while something takes long, and what a program reads: stderr is for people, stdout for results.

Colors and lines that redraw themselves appear on a terminal alone. ``NO_COLOR`` takes the colors away, ``TERM=dumb``
both; elsewhere (logs, CI) there are plain lines, rare enough to be kept.

References
----------
no-color.org: "when present and not an empty string (regardless of its value)".
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from wasmlab.errors import WasmlabError

#: How often something that goes on says so: where lines can be redrawn, and where every line stays.
LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 30.0
_emitted = False
_CODES = {"red": 31, "green": 32, "yellow": 33, "dim": 2}


def say(message: str) -> None:
    """Print one line on stderr."""
    print(message, file=sys.stderr, flush=True)


def emit(document: Any) -> None:
    """Print the one JSON document of a command with ``--json``: one line on stdout."""
    global _emitted
    _emitted = True
    # Other readers than Python's refuse NaN: better to fail here.
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)


def failure(error: WasmlabError, exit_code: int) -> dict[str, Any]:
    """Return the document of a command with ``--json`` that failed."""
    return failed(type(error).__name__, error.message, error.remedy, exit_code)


def failed(kind: str, message: str, remedy: str | None, exit_code: int) -> dict[str, Any]:
    """Return the document of a failure that is no `WasmlabError`: wrong usage, Ctrl-C, the system's refusal."""
    return {"error": {"kind": kind, "message": message, "remedy": remedy, "exit_code": exit_code}}


def has_emitted() -> bool:
    """Whether `emit` was called: a document that is there already is not followed by another one."""
    return _emitted


def is_live(stream: TextIO) -> bool:
    """Whether lines on `stream` can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, color: str, stream: TextIO) -> str:
    """Return `text` in a color (red, green, yellow, dim) if `stream` takes colors and nobody asked for none."""
    if not is_live(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_CODES[color]}m{text}\x1b[0m"


def mark(ok: bool) -> str:
    """Return the sign of success or failure, for stderr."""
    return paint("✓", "green", sys.stderr) if ok else paint("✗", "red", sys.stderr)


def duration(seconds: float) -> str:
    """Return a length of time for people: ``"45 s"``, ``"3 min 05 s"``."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def time_left(elapsed_s: float, done: float, total: float) -> str:
    """Return ``"about 3 min 05 s left"``, if what is done took its share of the time; empty before anything is done."""
    if not 0 < done < total:
        return ""
    return f"about {duration(elapsed_s / done * (total - done))} left"


class Meter:
    """One line on stderr for something that can be counted: how much is done, and how long the rest will take.

    On a terminal it is redrawn; elsewhere a line appears every half minute, so that a long silence is no riddle.

    Parameters
    ----------
    title : str
        What is going on.
    total : float
        How much there is to do; 0 if nobody knows yet. May be set later.
    quiet : bool
        Show nothing at all.
    stream : file, optional
        stderr by default.
    clock : callable
        Seconds; tests give their own.
    after_s : float
        Show nothing if it is over before that, in seconds.
    """

    def __init__(
        self,
        title: str,
        total: float = 0,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        after_s: float = 2.0,
    ) -> None:
        self.total = total
        self._title = title
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._clock = clock
        self._live = is_live(self._stream)
        self._started = self._counted = clock()
        self._next = self._started + (after_s if self._live else PLAIN_EVERY_S)
        self._drawn = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._started

    def count(self, total: float) -> None:
        """Say how much there is to do; the time so far was spent on finding out, and predicts nothing."""
        self.total = total
        self._counted = self._clock()

    def show(self, done: float, text: str) -> None:
        """Tell that `done` is done, as `text`, if it is time to."""
        now = self._clock()
        if self._quiet or now < self._next:
            return
        self._next = now + (0.1 if self._live else PLAIN_EVERY_S)
        line = ", ".join(filter(None, (text, time_left(now - self._counted, done, self.total))))
        line = f" … {self._title}  {self.bar(done)}{line}"
        self._stream.write(f"\r\x1b[K{_fitting(line, self._stream)}" if self._live else line + "\n")
        self._stream.flush()
        self._drawn = self._live

    def bar(self, done: float, width: int = 20) -> str:
        """Return a bar with its percentage; empty if the total is not known or the line is not redrawn."""
        if not self.total or not self._live:
            return ""
        share = min(done / self.total, 1.0)
        return f"{'█' * int(share * width):░<{width}} {share:4.0%}  "

    def close(self) -> None:
        """Remove the line."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def _fitting(line: str, stream: TextIO) -> str:
    """Return what fits into one row: a line that wraps cannot be redrawn."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return line
    return line if width <= 1 or len(line) < width else line[: width - 2] + "…"


@contextlib.contextmanager
def patience(title: str, *, after_s: float = 2.0) -> Iterator[None]:
    """Say that something goes on, if the body takes longer than `after_s` seconds, and leave nothing of it.

    Made of a timer's signal and not of a thread, because what comes next may be a fork. Where there is no terminal, and
    in other threads than the first, nothing is shown.

    Parameters
    ----------
    title : str
        What is going on.
    after_s : float
        How long nothing is said, in seconds.
    """
    if not is_live(sys.stderr) or threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.monotonic()
    drawn = False

    def draw(*_: object) -> None:
        nonlocal drawn
        drawn = True
        line = _fitting(f" … {title}  {time.monotonic() - started:5.1f} s", sys.stderr)
        os.write(sys.stderr.fileno(), f"\r\x1b[K{line}".encode())

    before = signal.signal(signal.SIGALRM, draw)
    signal.setitimer(signal.ITIMER_REAL, after_s, LIVE_EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if drawn:
            os.write(sys.stderr.fileno(), b"\r\x1b[K")


@contextlib.contextmanager
def step(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show `title` with its elapsed time while the body runs, then a mark for how it ended.

    On a terminal the line is redrawn every half second. Elsewhere (logs, CI) there is one line at the end, and
    one every 30 s so that a long silence is never mistaken for a hang.

    Parameters
    ----------
    title : str
        An imperative phrase, e.g. ``"Start the control plane"``.
    quiet : bool
        Show nothing at all.
    """
    if quiet:
        yield
        return
    live = is_live(sys.stderr)
    started = time.monotonic()
    done = threading.Event()

    def redraw() -> None:
        while not done.wait(LIVE_EVERY_S if live else PLAIN_EVERY_S):
            elapsed = time.monotonic() - started
            if live:
                line = _fitting(f" … {title}  {elapsed:5.1f} s", sys.stderr)
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            else:
                say(f" … {title}  ({elapsed:.0f} s so far)")

    ticker = threading.Thread(target=redraw, daemon=True)
    ticker.start()
    ok = False
    try:
        yield
        ok = True
    finally:
        done.set()
        ticker.join()
        start = "\r\x1b[K" if live else ""
        say(f"{start} {mark(ok)} {title}  ({time.monotonic() - started:.1f} s)")
