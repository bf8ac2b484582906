"""How long what is told to end may take: a period that can be shortened while it runs, never lengthened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

# References: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_manager.go (minimumGracePeriodInSeconds): whatever a
# preStop hook took, the module has so long between SIGTERM and SIGKILL.
LEAST_S = 2.0


class Grace:
    """A grace period that has begun.

    Parameters
    ----------
    seconds : float
        How long it is.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + max(0.0, seconds)
        self._timers: dict[asyncio.Timeout, float] = {}
        self._linked: list[Grace] = []

    @property
    def left_s(self) -> float:
        """Seconds until it is over."""
        return max(0.0, self._ends - self._loop.time())

    def shorten(self, seconds: float) -> None:
        """Let it end in `seconds`, if that is earlier. Who waits in `limit` hears of it."""
        ends = self._loop.time() + max(0.0, seconds)
        if ends >= self._ends:
            return
        self._ends = ends
        for timer, earliest in self._timers.items():
            timer.reschedule(max(ends, earliest))
        for other in self._linked:
            other.shorten(seconds)

    def govern(self, other: Grace) -> None:
        """Let `other` never last longer than this one."""
        if other is not self:
            other.shorten(self.left_s)
            self._linked.append(other)

    @contextlib.asynccontextmanager
    async def limit(self, least_s: float = 0.0) -> AsyncIterator[None]:
        """Run a block for no longer than this period (but for `least_s` in any case).

        Raises
        ------
        TimeoutError
            It took longer.
        """
        earliest = self._loop.time() + least_s
        async with asyncio.timeout_at(max(self._ends, earliest)) as timer:
            self._timers[timer] = earliest
            try:
                yield
            finally:
                del self._timers[timer]
