"""The worker that was forked ahead of the pod: taken once, or dismissed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from wasmlab.shim.worker import Worker

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop


class Spare:
    """Where workers come from: the one that waits, if it fits, else a fork."""

    def __init__(self, loop: Loop, worker: Worker | None) -> None:
        self._loop = loop
        self._worker = worker
        if worker is not None:
            # It announces nothing before it gets its request; if it dies, nobody may wait for it.
            loop.watch(worker.pidfd, lambda _: self._died())

    def take(self, engine: str) -> Worker:
        """Return a worker for `engine`.

        Raises
        ------
        OSError
            If none can be forked.
        """
        spare, self._worker = self._worker, None
        if spare is None:
            return Worker(engine, ahead=False)
        self._loop.unwatch(spare.pidfd)
        if spare.engine == engine:
            return spare
        self._dismiss(spare)
        return Worker(engine, ahead=False)

    def _died(self) -> None:
        spare, self._worker = self._worker, None
        if spare is not None:
            self._loop.unwatch(spare.pidfd)
            _reap(spare)

    def _dismiss(self, spare: Worker) -> None:
        """End a worker of the other engine; it is reaped when it has gone, nobody waits for it."""

        def gone(_: int) -> None:
            self._loop.unwatch(spare.pidfd)
            _reap(spare)

        os.kill(spare.pid, signal.SIGKILL)
        self._loop.watch(spare.pidfd, gone)

    def close(self) -> None:
        """End the worker that nobody took."""
        if self._worker is not None:
            os.kill(self._worker.pid, signal.SIGKILL)
            _reap(self._worker)


def _reap(spare: Worker) -> None:
    os.waitpid(spare.pid, 0)
    spare.close()
