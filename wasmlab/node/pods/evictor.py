"""Put pods out while the node is short of memory, disk or processes: one at a time, and only as many as it takes.

What nobody uses goes first (modules, when the disk is full). Then one pod after the other, in the order of `eviction`:
each is ended, its volumes removed, and the node measured anew before the next. A condition that merely has not been
taken back yet (`pressure`) puts out nobody.

References
----------
``k8s.io/kubernetes/pkg/kubelet/eviction/eviction_manager.go`` (``synchronize``, ``waitForPodsCleanup``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from wasmlab.node import log
from wasmlab.node.api.events import WARNING, Recorder
from wasmlab.node.host.pressure import Shortage
from wasmlab.node.pods import eviction
from wasmlab.node.pods.eviction import Use
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.spec import podspec

_CLEANUP_S = 30.0  # podCleanupTimeout
_QUIET_S = 5.0
_SETTLE_S = 1.0  # podCleanupPollFreq: what a pod held is given back a moment after its end


class Evictor:
    """Relieves the node.

    Parameters
    ----------
    manager : PodManager
        The pods.
    recorder : Recorder
        Tells of it.
    measure : callable
        What the node is short of now.
    uses : callable
        What the pods use: UID -> Use. It is told whether to look at the disk too.
    reclaim : callable
        Gives back disk that no pod uses.
    """

    def __init__(
        self,
        manager: PodManager,
        recorder: Recorder,
        *,
        measure: Callable[[], Sequence[Shortage]],
        uses: Callable[[bool], Awaitable[Mapping[str, Use]]],
        reclaim: Callable[[], object],
        settle_s: float = _SETTLE_S,
    ) -> None:
        self._manager = manager
        self._recorder = recorder
        self._measure = measure
        self._uses = uses
        self._reclaim = reclaim
        self._settle_s = settle_s
        self._noticed = asyncio.Event()

    def notice(self) -> None:
        """The node may be short of something."""
        self._noticed.set()

    async def run(self) -> None:
        """Relieve the node whenever it is short of something, until cancelled."""
        while True:
            await self._noticed.wait()
            self._noticed.clear()
            await self._quiet()
            try:
                while await self.relieve():  # noqa: ASYNC110 (no event tells what the kernel has got back)
                    await asyncio.sleep(self._settle_s)
            except OSError as error:
                log.warning("cannot relieve the node", error=error)

    async def _quiet(self) -> None:
        """Give what is under way a moment: a pod that is being started, or taken up, shows nothing of what it uses."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_S):
                while self._manager.busy:  # noqa: ASYNC110 (what is waited for has no event)
                    await asyncio.sleep(_QUIET_S / 100)

    async def relieve(self) -> bool:
        """Win something back if the node is short of it; whether a pod was put out for it."""
        urgent = eviction.most_urgent(self._measure())
        if urgent is None:
            return False
        resource, shortage = urgent
        log.warning("the node is short", resource=resource, signal=shortage.signal, why=shortage.said)
        self._recorder.node(WARNING, "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if resource in (eviction.DISK, eviction.INODES):
            self._reclaim()
            urgent = eviction.most_urgent(self._measure())
            if urgent is None:
                return False
            resource, shortage = urgent
        candidates = [w.pod for w in self._manager.workers.values() if not w.over and not w.stopping]
        uses = await self._uses(resource in (eviction.DISK, eviction.INODES)) if candidates else {}
        for pod in eviction.order(candidates, uses, resource):
            uid = pod["metadata"]["uid"]
            said = eviction.message(pod, uses.get(uid, Use()), resource, shortage)
            ending = self._manager.evict(uid, said)
            if ending is None:
                continue  # it has ended meanwhile
            _, late = await asyncio.wait({ending}, timeout=_CLEANUP_S)
            if late:
                log.warning("an evicted pod does not end", pod=podspec.key(pod), seconds=_CLEANUP_S)
            return True
        log.warning("no pod can be put out", resource=resource)
        return False
