"""All pods of this node: one worker per UID, fed by the watch.

Keyed by UID and not by name, because a pod may be deleted and made again under its name while the first one still ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from wasmlab.node import log
from wasmlab.node.api.kubeapi import Json
from wasmlab.node.containers.services import Services
from wasmlab.node.inputs import filesystems
from wasmlab.node.pods import admission
from wasmlab.node.pods.worker import PodWorker
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import podspec
from wasmlab.node.status.records import Verdict

# immediateEvictionGracePeriodSeconds of pkg/kubelet/eviction/eviction_manager.go
_EVICTION_GRACE_S = 1.0
# pkg/kubelet/nodeshutdown/nodeshutdown_manager.go
SHUTDOWN_REASON = "Terminated"
SHUTDOWN_MESSAGE = "Pod was terminated in response to imminent node shutdown."
_MIRROR = "kubernetes.io/config.mirror"
# After so many pods have gone their memory is collected, in a moment when nothing starts; at the latest after PATIENCE
# pauses.
_COLLECT_AFTER, _COLLECT_PAUSE_S, _COLLECT_PATIENCE = 200, 0.5, 20


class PodManager:
    """Keeps a worker for every pod bound to this node.

    Parameters
    ----------
    services : Services
        What workers use.
    recorded : dict of RunId to engine
        Runs that earlier agents left on record.
    """

    def __init__(self, services: Services, recorded: dict[RunId, str]) -> None:
        self._services = services
        self.account = admission.Account(services.allocatable)
        self.workers: dict[str, PodWorker] = {}
        self._starting: set[PodWorker] = set()
        self._recorded: dict[str, dict[RunId, str]] = {}
        for run_id, engine in recorded.items():
            self._recorded.setdefault(run_id.uid, {})[run_id] = engine
        self._endings: set[asyncio.Task[None]] = set()
        self._first_list = True
        self._gone = 0
        services.volumes.evict = self.evict

    # ---- fed by the reflector ----

    def on_list(self, pods: list[Json]) -> None:
        """The whole truth: what is not in it is gone."""
        listed = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self.workers if uid not in listed]:
            self._remove(uid)
        for pod in sorted(pods, key=_began_before):
            self._update(pod)
        if self._first_list:
            self._first_list = False
            self._remove_orphans()

    def on_event(self, kind: str, pod: Json) -> None:
        """One change."""
        if kind == "DELETED":
            self._remove(pod["metadata"]["uid"])
        else:
            self._update(pod)

    def _update(self, pod: Json) -> None:
        # Who set which field is most of a pod's size, and of no use here.
        pod["metadata"].pop("managedFields", None)
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        if _MIRROR in (pod["metadata"].get("annotations") or {}):
            return  # a static pod's shadow; this node has no static pods, so it is nobody's
        worker = PodWorker(self._services, self.account, pod, self._recorded.pop(uid, {}), self._starting)
        self.workers[uid] = worker
        worker.start()

    def _remove(self, uid: str) -> None:
        worker = self.workers.pop(uid, None)
        if worker is not None:
            self._starting.discard(worker)
            log.debug("pod gone", pod=podspec.key(worker.pod), uid=uid)
            task = asyncio.create_task(worker.removed())
            self._endings.add(task)
            task.add_done_callback(self._removed)

    def _removed(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        self._gone += 1
        if self._gone >= _COLLECT_AFTER:
            self._gone = 0
            asyncio.get_running_loop().call_later(_COLLECT_PAUSE_S, self._collect, 0)

    def _collect(self, postponed: int) -> None:
        """A pod and its parts refer to each other, so only the collector frees them; and it seldom comes by itself
        (`commands.run`), because it must not come while pods are started."""
        if self.busy and postponed < _COLLECT_PATIENCE:
            asyncio.get_running_loop().call_later(_COLLECT_PAUSE_S, self._collect, postponed + 1)
            return
        began = time.monotonic()
        found = gc.collect()
        log.debug("collected", objects=found, seconds=round(time.monotonic() - began, 3))

    def _remove_orphans(self) -> None:
        """Runs and files of pods that were deleted while no agent ran: end and remove them."""
        orphans, self._recorded = self._recorded, {}
        if orphans:
            task = asyncio.create_task(self._end_orphans(orphans))
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)
        stale = [p for p in self._services.config.pods_dir.iterdir() if p.name not in self.workers]
        stale = [p for p in stale if p.name not in orphans]
        if stale:
            task = asyncio.create_task(asyncio.to_thread(_remove_all, stale))
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    async def _end_orphans(self, orphans: dict[str, dict[RunId, str]]) -> None:
        import signal

        for uid, runs in orphans.items():
            log.info("ending runs of a pod that is gone", uid=uid, runs=len(runs))
            for run_id, engine in runs.items():
                try:
                    run = await self._services.runtime.attach(engine, run_id)
                    if not run.done:
                        await run.kill(signal.SIGKILL)
                        async with asyncio.timeout(10):
                            await run.wait()
                except Exception as error:
                    log.warning("cannot end a run", run=run_id, error=error)
                await self._services.runtime.forget(engine, run_id)
            await asyncio.to_thread(filesystems.remove, self._services.config.pods_dir / uid)

    def evict(self, uid: str, message: str) -> asyncio.Task[None] | None:
        """End a pod that takes more than it may, or than the node has.

        Returns
        -------
        Task or None
            Its end, its volumes' included; None if it is ending anyway.
        """
        worker = self.workers.get(uid)
        if worker is None or worker.over or worker.stopping:
            return None
        log.warning("evicting a pod", pod=podspec.key(worker.pod), why=message)
        task = asyncio.create_task(self._evict(worker, message))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def _evict(self, worker: PodWorker, message: str) -> None:
        await worker.fail(Verdict("Failed", "Evicted", message, disruption=True), _EVICTION_GRACE_S)
        await self._services.volumes.released(worker.uid)

    # ---- asked by the endpoint and the agent ----

    def by_name(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of that name; the living one if an earlier one still ends."""
        found = [
            w
            for w in self.workers.values()
            if w.pod["metadata"]["name"] == name and w.pod["metadata"]["namespace"] == namespace
        ]
        found.sort(key=lambda w: (bool(w.pod["metadata"].get("deletionTimestamp")), w.over))
        return found[0] if found else None

    @property
    def busy(self) -> int:
        """How many pods are on their way somewhere."""
        # Asked for several times a pod: not all of a thousand that run quietly are looked at for that.
        self._starting -= {worker for worker in self._starting if worker.quiet}
        return sum(worker.busy for worker in self._starting)

    def live_logs(self) -> list[tuple[Path, Callable[[], Awaitable[None]]]]:
        """The logs of all running containers, for `rotation`."""
        found = (c.live_log for w in self.workers.values() if not w.over for c in w.containers)
        return [one for one in found if one is not None]

    def pods(self) -> list[Json]:
        """All pods as last seen."""
        return [worker.pod for worker in self.workers.values()]

    def images_in_use(self) -> set[str]:
        """References and digests of the modules that pods here need, or may need again."""
        from wasmlab.errors import InvalidReference
        from wasmlab.oci.reference import Reference

        found = set()
        for worker in self.workers.values():
            if worker.over:
                continue
            for container in worker.containers:
                found.add(container.module_digest)
                with contextlib.suppress(InvalidReference):
                    found.add(str(Reference.parse(container.record.image)))
        return found

    async def shut_down(self, total_s: float, critical_s: float) -> None:
        """End all pods because the node ends: the critical ones last, in the time that is kept for them."""
        verdict = Verdict("Failed", SHUTDOWN_REASON, SHUTDOWN_MESSAGE, disruption=True)
        unfinished = [w for w in self.workers.values() if not w.over]
        for group, seconds in (
            ([w for w in unfinished if not admission.critical(w.pod)], total_s - critical_s),
            ([w for w in unfinished if admission.critical(w.pod)], critical_s),
        ):
            ends = (w.fail(verdict, min(w.grace_s, seconds)) for w in group)
            await asyncio.gather(*ends, return_exceptions=True)
            await asyncio.gather(*(w.settle() for w in group), return_exceptions=True)

    async def drain(self, timeout_s: float) -> None:
        """End all running modules (the agent was told to take them with it)."""
        unfinished = [w for w in self.workers.values() if not w.over]
        await asyncio.gather(*(w.end(timeout_s) for w in unfinished), return_exceptions=True)

    async def aclose(self, settle_s: float) -> None:
        """Let go of all pods, writing what is known for at most `settle_s`."""
        try:
            async with asyncio.timeout(settle_s):
                await asyncio.gather(*(w.settle() for w in self.workers.values()), return_exceptions=True)
        except TimeoutError:
            log.warning("some statuses are left unwritten; the next agent writes them")
        await asyncio.gather(*(w.abandon() for w in self.workers.values()), return_exceptions=True)
        for task in list(self._endings):
            task.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)


def _began_before(pod: Json) -> tuple[bool, str]:
    """In which order pods are looked at: what runs already counts before what asks for room, then the older first."""
    phase = (pod.get("status") or {}).get("phase")
    return phase != "Running", pod["metadata"].get("creationTimestamp") or ""


def _remove_all(paths: list[Path]) -> None:
    for path in paths:
        filesystems.remove(path)
