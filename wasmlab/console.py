"""What a person sees while something takes long: named steps on stderr, so that stdout stays for results."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator


def say(message: str) -> None:
    """Print one line on stderr."""
    print(message, file=sys.stderr, flush=True)


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
    live = sys.stderr.isatty()
    started = time.monotonic()
    done = threading.Event()

    def redraw() -> None:
        while not done.wait(0.5 if live else 30.0):
            elapsed = time.monotonic() - started
            if live:
                print(f"\r\x1b[K … {title}  {elapsed:5.1f} s", end="", file=sys.stderr, flush=True)
            else:
                say(f" … {title}  ({elapsed:.0f} s so far)")

    ticker = threading.Thread(target=redraw, daemon=True)
    ticker.start()
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        done.set()
        ticker.join()
        say(
            f"{chr(13) + chr(27) + '[K' if live else ''} {mark} {title}  ({time.monotonic() - started:.1f} s)"
        )
