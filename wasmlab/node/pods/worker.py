"""One pod's life on this node.

The worker lets the pod's containers run in their order (`course`), has the status written when it changes, and ends
the pod when it is told to: by deletion, by its deadline, by the agent. Ending goes one way: no more starts, each
container to its end as `Attempt.end` does it, the last status, and then, for a deleted pod, its removal from the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from pathlib import Path

from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json
from wasmlab.node.api.times import parse_time
from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.containers.grace import LEAST_S, Grace
from wasmlab.node.containers.services import Services
from wasmlab.node.inputs import filesystems
from wasmlab.node.pods import adoption
from wasmlab.node.pods.admission import Account
from wasmlab.node.pods.course import Course
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import podspec
from wasmlab.node.status.podstatus import build
from wasmlab.node.status.records import PodFacts, Verdict
from wasmlab.node.status.spans import PodSpans
from wasmlab.node.status.states import State
from wasmlab.node.status.statuswriter import Gone, StatusWriter, Urgency

_KILL_WAIT_S = 10.0  # SIGKILL needs no longer; if it does, the machine has other troubles
_REMOVED_GRACE_S = 2.0
_GRACE_S = 30.0
_BUSY = frozenset({State.QUEUED, State.PULLING, State.CREATING})
_QUIET = frozenset({State.RUNNING, State.DONE})
# References: k8s.io/kubernetes/pkg/kubelet/active_deadline.go
DEADLINE_REASON = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


class PodWorker:
    """One pod.

    Parameters
    ----------
    services : Services
        The node.
    account : Account
        What the node has promised to its pods.
    pod : dict
        The pod as first seen.
    runs : dict of RunId to engine
        Runs of this pod that an earlier agent left on record.
    starting : set of PodWorker
        It is put there by itself while it may be `busy`, and taken out by whoever finds it `quiet`.
    """

    def __init__(
        self,
        services: Services,
        account: Account,
        pod: Json,
        runs: dict[RunId, str],
        starting: set[PodWorker],
    ) -> None:
        self._services = services
        self._starting = starting
        self._account = account
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        # Its own: logs and emptyDir volumes.
        self.directory: Path = services.config.pods_dir / self.uid
        self.spans = PodSpans()
        self._krustlet = podspec.semantics_of(pod, services.config.restart_semantics) == "krustlet"
        self.policy: str | None = "Never" if self._krustlet else pod["spec"].get("restartPolicy")
        status = pod.get("status") or {}
        start = status.get("startTime")
        self.start_time = parse_time(start) if start else time.time()
        self._begun_before = bool(start)
        self._generation = pod["metadata"].get("generation")
        self._seen_at = time.monotonic()
        # A pod that was over before this agent knew it is not run; its runs on record serve only its logs.
        self.over = self._was_over = status.get("phase") in ("Succeeded", "Failed")
        self.stopping = False
        self._terminal = False
        self._verdict: Verdict | None = None
        self._conditions = status.get("conditions") or []
        self.containers = adoption.containers(services, self, runs, krustlet=self._krustlet)
        self._course = Course(self, self.containers)
        self._writer = StatusWriter(
            services.api,
            pod,
            self._status,
            hold_s=services.hold_s,
            gate=services.gate,
            on_written=self._on_written,
        )
        self._writing: asyncio.Task[None] | None = None
        self._driving: asyncio.Task[None] | None = None
        self._deleting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failing: asyncio.Task[None] | None = None
        self._deadline_s: int | None = None
        self.closed = asyncio.Event()
        self.starts()

    # ---- what the manager and the endpoint call ----

    def start(self) -> None:
        """Begin."""
        if not self._was_over:
            self._writing = self._spawn(self._writer.run())
            rejected = self._rejected()
            if rejected is None:
                self._driving = self._spawn(self._drive())
            else:
                log.info("pod rejected", pod=podspec.key(self.pod), reason=rejected.reason)
                self._verdict = rejected
                self._event(events.WARNING, rejected.reason, rejected.message)
                self._finish()
        else:
            self._services.volumes.release(self.uid)  # an earlier agent may not have come to it
        self.update(self.pod)

    def _rejected(self) -> Verdict | None:
        """Why this node does not take the pod; None if it does, or has done so already."""
        if any(c.adopt is not None or c.reported is not None for c in self.containers):
            self._account.taken(self.pod)
            self._services.volumes.adopt(self.pod)
            return None
        return None if self.leaving else self._account.admit(self.pod)

    def update(self, pod: Json) -> None:
        """Take note of a change made through the API."""
        self.pod = pod
        self._services.volumes.update(pod)
        if pod["metadata"].get("deletionTimestamp"):
            if self._deleting is None:
                self._deleting = self._spawn(self._delete())
            elif self._course.grace is not None:
                self._course.grace.shorten(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        elif not self.over:
            generation = pod["metadata"].get("generation")
            if generation != self._generation or generation is None:  # before 1.33 pods have none
                self._generation = generation
                self._respecified()
            if pod["spec"].get("readinessGates"):
                self.changed(Urgency.HELD)  # one of them may have opened
            for container in self.containers:
                container.retry_now()

    def _respecified(self) -> None:
        """See to what of a spec may be changed: the deadline, images, and ephemeral containers."""
        self._set_deadline()
        spec = self.pod["spec"]
        given = {c["name"]: c for c in (*(spec.get("initContainers") or ()), *spec["containers"])}
        for container in self.containers:
            now = given.get(container.record.name, container.spec)
            if now["image"] != container.spec["image"]:
                container.redefine(now)
        if self._driving is None or self.leaving:
            return
        known = {container.record.name for container in self.containers}
        for one in spec.get("ephemeralContainers") or ():
            if one["name"] not in known:
                added = adoption.container(
                    self._services, self, {}, one, "ephemeralContainers", krustlet=self._krustlet
                )
                self.containers.append(added)
                self._course.add(added)

    async def removed(self) -> None:
        """The pod is gone from the API (removed by us, by force, or while nobody looked): end it, keep nothing."""
        if self._deleting is not None:
            self._deleting.cancel()
        await self._stop(_REMOVED_GRACE_S)
        self.over = True
        if self._writing is not None:
            self._writing.cancel()
        for container in self.containers:
            for run_id, engine in list(container.runs.items()):
                await self._services.runtime.forget(engine, run_id)
        self._let_go()
        await self._services.volumes.released(self.uid)  # two that remove one tree leave some of it
        await asyncio.to_thread(filesystems.remove, self.directory)
        self.closed.set()

    async def end(self, grace_s: float) -> None:
        """End it with the agent (``--drain``): what runs is stopped and reported, nothing is started again."""
        await self._stop(grace_s)
        self._finish()
        await self.settle()

    async def settle(self) -> None:
        """Wait until what is known is written."""
        if not self._was_over:
            with contextlib.suppress(Gone):
                await self._writer.flushed()

    async def abandon(self) -> None:
        """The agent ends: let go, leave running modules running."""
        if self._timer is not None:
            self._timer.cancel()
        known = (self._driving, self._writing, self._deleting, self._failing)
        tasks = [task for task in known if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._course.abandon()

    @property
    def leaving(self) -> bool:
        """Whether nothing may be started any more."""
        return self.stopping or bool(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def grace_s(self) -> float:
        """Its termination grace period."""
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return _GRACE_S if grace is None else float(grace)

    @property
    def ending(self) -> Grace:
        """The grace period within which its containers are being ended."""
        return self._course.grace if self._course.grace is not None else Grace(self.grace_s)

    @property
    def busy(self) -> bool:
        """Whether it is on its way somewhere, as opposed to running quietly or being over."""
        return not self.over and any(c.record.state in _BUSY for c in self.containers)

    @property
    def quiet(self) -> bool:
        """Whether it is not `busy`, and will not be before `starts` is called again."""
        return self.over or all(c.record.state in _QUIET for c in self.containers)

    def starts(self) -> None:
        """One of its containers is about to be started."""
        self._starting.add(self)

    def find(self, container: str) -> ContainerTask | None:
        """A container by name."""
        return next((c for c in self.containers if c.record.name == container), None)

    def changed(self, urgency: Urgency) -> None:
        """Have the status written."""
        self._writer.want(urgency)

    # ---- reporting ----

    def _status(self) -> Json:
        facts = PodFacts(
            host_ip=self._services.config.address,
            pod_ip=self._services.config.pod_address,
            start_time=self.start_time,
            now=time.time(),
            krustlet=self._krustlet,
            terminal=self._terminal,
            verdict=self._verdict if self._terminal else None,  # not while something of it still runs
            previous=self._conditions,
            generation=self.pod["metadata"].get("generation"),
            closed_gates=podspec.closed_gates(self.pod),
        )
        return build([c.record for c in self.containers], self.policy, facts)

    def _on_written(self, status: Json) -> None:
        self._conditions = status["conditions"]
        if status["phase"] in ("Succeeded", "Failed") and "status_written" not in self.spans.ends:
            self.spans.mark("status_written")
            meta = self.pod["metadata"]
            self._services.spans.write(
                uid=self.uid,
                namespace=meta["namespace"],
                name=meta["name"],
                engine=self.containers[-1].engine,
                spans=self.spans,
            )

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._services.recorder.pod(self.pod, kind, reason, message)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guard(work))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # a bug must be seen, and must not take the other pods with it
            log.error("pod worker failed", exc_info=error, pod=podspec.key(self.pod), uid=self.uid)

    # ---- the pod's way ----

    async def _drive(self) -> None:
        """Containers from first to last."""
        self.changed(Urgency.LAZY)
        self._set_deadline()
        try:
            await self._course.run()
        except Exception as error:
            # A bug of this agent. The pod must not hang about as if it were about to run.
            log.error("pod worker failed", exc_info=error, pod=podspec.key(self.pod), uid=self.uid)
            self._verdict = Verdict("Failed", "NodeAgentError", f"the node agent failed: {error!r}")
            await self._course.destroy()
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if not self.stopping:  # else whoever stopped it writes the end
            self._finish()

    def _finish(self) -> None:
        """Nothing of this pod will run any more: say how it ended."""
        self._terminal = True
        self.over = True
        self._let_go()
        self.changed(Urgency.NOW)

    def _let_go(self) -> None:
        """What the node holds for the pod while it is not over: its share, and its volumes."""
        self._account.release(self.uid)
        self._services.volumes.release(self.uid)

    def _set_deadline(self) -> None:
        """See to activeDeadlineSeconds, which may be given, and made shorter, while the pod runs."""
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds == self._deadline_s or self.stopping:
            return
        self._deadline_s = seconds
        if self._timer is not None:
            self._timer.cancel()
        if not seconds:
            self._timer = None
            return
        # Only what an earlier agent began is counted by the wall clock, which may have been stepped since.
        ran_s = time.time() - self.start_time if self._begun_before else time.monotonic() - self._seen_at
        left_s = min(float(seconds), max(0.0, seconds - ran_s))
        self._timer = asyncio.get_running_loop().call_later(left_s, self._past_deadline)

    def _past_deadline(self) -> None:
        verdict = Verdict("Failed", DEADLINE_REASON, DEADLINE_MESSAGE)
        self._failing = self._spawn(self.fail(verdict, self.grace_s, kind=events.NORMAL))

    async def fail(self, verdict: Verdict, grace_s: float, *, kind: str = events.WARNING) -> None:
        """End the pod for a reason that is not its containers': its deadline, an eviction.

        Parameters
        ----------
        verdict : Verdict
            What its status then says.
        grace_s : float
            How long its containers have to end.
        kind : {"Normal", "Warning"}
            Of the event that tells of it.
        """
        if self.over or self.stopping:
            return
        self._verdict = verdict
        self._event(kind, verdict.reason, verdict.message)
        await self._stop(grace_s)
        self._finish()

    async def _stop(self, grace_s: float) -> None:
        """End every container; return when all have ended."""
        self.stopping = True
        await self._course.end(grace_s)
        if self._driving is None or self._driving.done():
            return
        # Only a start that was under way is left, and what then came of it.
        _, rest = await asyncio.wait({self._driving}, timeout=self.ending.left_s + LEAST_S)
        if rest:
            await self._course.kill()
            _, rest = await asyncio.wait(rest, timeout=_KILL_WAIT_S)
        if rest:
            log.error("a pod does not end", pod=podspec.key(self.pod), uid=self.uid)

    async def _delete(self) -> None:
        """The pod is to go: end it, say how it ended, remove it from the API."""
        meta = self.pod["metadata"]
        if not self.over:
            await self._stop(float(meta.get("deletionGracePeriodSeconds") or 0))
            self._finish()
        await self.settle()
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        # With the UID: never remove a pod that was made under this name meanwhile.
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        wait_s = 0.1
        while not self._writer.gone:
            try:
                await self._services.api.delete(path, body)
                return
            except ApiError as error:
                if error.context["status"] in (404, 409):
                    return
                log.warning("cannot remove a pod; trying on", pod=podspec.key(self.pod), error=error.message)
            except ApiUnavailable:
                pass  # the watch says so already
            await asyncio.sleep(wait_s)
            wait_s = min(10.0, wait_s * 2)
