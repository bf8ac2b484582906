"""Logs of runs that have ended while the disk was full: written when it has room again.

A run's end is not held back for them for long, so its outcome says how much of its log is still to come. What waits is
bounded (the pipe and one portion of each log, 128 KiB), and is given up with the run's record or with the zygote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmlab.sandbox.logs import LogPump
    from wasmlab.sandbox.loop import Loop

_RETRY_S = 0.5


class LateLogs:
    """The pumps of ended runs whose disk does not take their output."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pumps: dict[str, LogPump] = {}

    def __bool__(self) -> bool:
        return bool(self._pumps)

    def add(self, run_id: str, pump: LogPump) -> None:
        """Go on with a pump that is blocked; its pipe is watched no more."""
        self._pumps[run_id] = pump
        self._loop.after(_RETRY_S, lambda: self._retry(run_id, pump))

    def drop(self, run_id: str) -> None:
        """Nobody wants to know of that run any more."""
        pump = self._pumps.pop(run_id, None)
        if pump is not None:
            pump.close()

    def close(self) -> None:
        """Try once more, then give up."""
        for run_id, pump in list(self._pumps.items()):
            _finished(pump)
            self.drop(run_id)

    def _retry(self, run_id: str, pump: LogPump) -> None:
        if self._pumps.get(run_id) is not pump:
            return
        if _finished(pump):
            self.drop(run_id)
        else:
            self._loop.after(_RETRY_S, lambda: self._retry(run_id, pump))


def _finished(pump: LogPump) -> bool:
    """Write what can be written; whether that was all."""
    if not pump.retry():
        return False
    while not pump.ended and not pump.blocked and pump.pump():
        pass
    return pump.ended and not pump.blocked
