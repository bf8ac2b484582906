"""Phases that touch: each begins where the one before it ended."""

from __future__ import annotations

import time

from wasmlab.engines.base import GuestResult
from wasmlab.engines.spec import Span


class Laps:
    """Collects the phases of a run, or of compiling, one after the other.

    Attributes
    ----------
    spans : list of Span
        Those that have ended; they touch and do not overlap. What they mean: `wasmlab.bench.phases`.
    """

    __slots__ = ("_at", "spans")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._at = time.monotonic_ns()

    def __call__(self, phase: str) -> None:
        """Say that what was done since the last lap was `phase`."""
        now = time.monotonic_ns()
        self.spans.append(Span(phase, self._at, now))
        self._at = now

    def ended(self, exit_code: int | None, trap: str | None = None, message: str = "") -> GuestResult:
        """Return the result of a run that ended so, with its phases."""
        return GuestResult(exit_code, trap, message, tuple(self.spans))
