"""Progress of a transfer: the callback's form, and a bar on stderr, after two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from wasmlab.console import Meter

#: Called during a transfer with (bytes so far, bytes in all).
ProgressCallback = Callable[[int, int], None]


class ProgressBar:
    """A context manager that is the progress callback: a bar on a terminal, elsewhere a line every half minute.

    Parameters
    ----------
    label : str
        What is going on.
    stream : text stream, optional
        Where to draw; stderr by default.
    clock : callable
        Seconds; tests give their own.
    """

    def __init__(
        self, label: str, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._meter = Meter(label, stream=stream, clock=clock)

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Draw the state, if it is time to."""
        self._meter.total = total_bytes
        rate = done_bytes / max(self._meter.elapsed_s, 1e-3) / 1e6
        self._meter.show(done_bytes, f"{done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, {rate:.1f} MB/s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.close()


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
