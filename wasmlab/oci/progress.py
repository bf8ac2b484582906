"""Progress of a transfer: the callback's form, and a bar on stderr (only on a terminal, only after two seconds)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

#: Called during a transfer with (bytes so far, bytes in all).
ProgressCallback = Callable[[int, int], None]

_AFTER_S = 2.0
_EVERY_S = 0.1
_WIDTH = 30


class ProgressBar:
    """A context manager that is the progress callback.

    Parameters
    ----------
    label : str
        What is going on.
    stream : text stream, optional
        Where to draw; nothing is drawn if it is no terminal.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = stream if stream is not None else sys.stderr
        self._start = self._last = time.monotonic()
        self._drawn = False

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Draw the state, if it is time to."""
        now = time.monotonic()
        last_piece = done_bytes >= total_bytes and self._drawn
        if now - self._start < _AFTER_S or (now - self._last < _EVERY_S and not last_piece):
            return
        if not self._stream.isatty():
            return
        self._last, self._drawn = now, True
        share = done_bytes / total_bytes if total_bytes else 1.0
        rate = done_bytes / (now - self._start) / 1e6
        bar = "#" * int(share * _WIDTH)
        self._stream.write(
            f"\r{self._label} [{bar:<{_WIDTH}}] {share:4.0%} {done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, "
            f"{rate:.1f} MB/s \033[K"
        )
        self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r\033[K")
            self._stream.flush()


def counter(progress: ProgressCallback | None, total: int) -> Callable[[int], None] | None:
    """Turn a callback that wants sums into one that takes steps."""
    if progress is None:
        return None
    done = 0

    def count(step: int) -> None:
        nonlocal done
        # A repeated request sends its bytes again: never report more than there are.
        done = min(done + step, total)
        progress(done, total)

    return count
