"""One pod's life on this node.

The worker starts the pod's containers (init containers one after the other, then the others side by side), has the
status written when it changes, and ends the pod when it is told to: by deletion, by its deadline, by the agent.
Ending goes one way: no more starts, each container to its end as `Attempt.end` does it (sidecars after the others, in
reverse), the last status, and then, for a deleted pod, its removal from the API.

Sidecars (init containers with restartPolicy Always) have tasks of their own: the next container starts when one has
started, and they are ended when the containers that are none have ended.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go`` (``computeInitContainerActions``),
``kuberuntime_termination_order.go``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from pathlib import Path

from wasmlab.node import events, filesystems, log, podspec, states
from wasmlab.node.container import ContainerTask
from wasmlab.node.grace import LEAST_S, Grace
from wasmlab.node.kubeapi import ApiError, ApiUnavailable, Json
from wasmlab.node.podstatus import build, initial_reason
from wasmlab.node.records import ContainerRecord, Ended, PodFacts, Verdict, ended_of, parse_time
from wasmlab.node.runtime import RunId
from wasmlab.node.services import Services
from wasmlab.node.spans import PodSpans
from wasmlab.node.states import State
from wasmlab.node.statuswriter import Gone, StatusWriter, Urgency

_KILL_WAIT_S = 10.0  # SIGKILL needs no longer; if it does, the machine has other troubles
_REMOVED_GRACE_S = 2.0
_GRACE_S = 30.0
_BUSY = frozenset({State.QUEUED, State.PULLING, State.CREATING})
# References: k8s.io/kubernetes/pkg/kubelet/active_deadline.go
DEADLINE_REASON = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
# References: k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses).
_INITIALIZED = "Unable to get init container status and pod has been initialized, treat it as exited normally"


class PodWorker:
    """One pod.

    Parameters
    ----------
    services : Services
        The node.
    pod : dict
        The pod as first seen.
    runs : dict of RunId to engine
        Runs of this pod that an earlier agent left on record.
    """

    def __init__(self, services: Services, pod: Json, runs: dict[RunId, str] | None = None) -> None:
        self._services = services
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
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
        self.containers = self._make_containers(status, runs or {})
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
        self._sidecars: list[asyncio.Task[None]] = []
        self._grace: Grace | None = None  # once it is being ended
        self._timer: asyncio.TimerHandle | None = None
        self._failing: asyncio.Task[None] | None = None
        self._deadline_s: int | None = None
        self.closed = asyncio.Event()

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
            self._services.account.taken(self.pod)
            self._services.volumes.adopt(self.pod)
            return None
        return None if self.leaving else self._services.account.admit(self.pod)

    def update(self, pod: Json) -> None:
        """Take note of a change made through the API."""
        self.pod = pod
        self._services.volumes.update(pod)
        if pod["metadata"].get("deletionTimestamp"):
            if self._deleting is None:
                self._deleting = self._spawn(self._delete())
            elif self._grace is not None:
                self._grace.shorten(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        elif not self.over:
            if pod["metadata"].get("generation") != self._generation:
                self._generation = pod["metadata"].get("generation")
                self._respecified()
            if pod["spec"].get("readinessGates"):
                self.changed(Urgency.HELD)  # one of them may have opened
            for container in self.containers:
                container.retry_now()

    def _respecified(self) -> None:
        """See to what of a spec may be changed: the deadline, and images."""
        self._set_deadline()
        spec = self.pod["spec"]
        given = {c["name"]: c for c in (*(spec.get("initContainers") or ()), *spec["containers"])}
        for container in self.containers:
            now = given.get(container.record.name, container.spec)
            if now["image"] != container.spec["image"]:
                container.redefine(now)

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
        known = (self._driving, self._writing, self._deleting, self._failing, *self._sidecars)
        tasks = [task for task in known if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        return self._grace if self._grace is not None else Grace(self.grace_s)

    @property
    def busy(self) -> bool:
        """Whether it is on its way somewhere, as opposed to running quietly or being over."""
        return not self.over and any(c.record.state in _BUSY for c in self.containers)

    @property
    def directory(self) -> Path:
        """The pod's own directory: logs and emptyDir volumes."""
        return self._services.config.pods_dir / self.uid

    def find(self, container: str) -> ContainerTask | None:
        """A container by name."""
        return next((c for c in self.containers if c.record.name == container), None)

    def changed(self, urgency: Urgency) -> None:
        """Have the status written."""
        self._writer.want(urgency)

    # ---- making and reporting ----

    def _make_containers(self, status: Json, runs: dict[RunId, str]) -> list[ContainerTask]:
        spec = self.pod["spec"]
        inits = spec.get("initContainers") or []
        reported = (
            status.get("initContainerStatuses") or [],
            status.get("containerStatuses") or [],
        )
        known = {one["name"]: one for statuses in reported for one in statuses}
        result = []
        for init, container in [*((True, c) for c in inits), *((False, c) for c in spec["containers"])]:
            name = container["name"]
            before = known.get(name, {})
            mine = {r: e for r, e in sorted(runs.items(), key=lambda i: i[0].attempt) if r.container == name}
            sidecar = init and container.get("restartPolicy") == "Always"
            record = ContainerRecord(
                name=name,
                image=container["image"],
                init=init,
                sidecar=sidecar,
                policy=None if sidecar or self._krustlet else container.get("restartPolicy"),
                rules=() if self._krustlet else container.get("restartPolicyRules") or (),
                reason=initial_reason(bool(inits), init),
                restarts=int(before.get("restartCount") or 0),
                image_id=before.get("imageID") or "",
            )
            last = (before.get("lastState") or {}).get("terminated")
            record.last = ended_of(last) if last else None
            default = self._services.config.engine
            task = ContainerTask(
                self._services, self, container, record, podspec.engine_of(self.pod, name, default), mine
            )
            state = before.get("state") or {}
            if mine:
                record.image = before.get("image") or record.image  # as it was when that one was started
                task.adopt = list(mine)[-1]
                task.engine = mine[task.adopt]
                record.restarts = max(record.restarts, task.adopt.attempt)
                record.run_id = str(task.adopt)
            elif "terminated" in state:
                # Its record is gone with the sandbox's directory, but how it ended is known.
                task.reported = ended_of(state["terminated"])
            elif "running" in state:
                # It ran, and its record is gone. The same attempt must not run again: taking up what is not there
                # reports the run as lost, and restartPolicy decides.
                task.adopt = RunId(self.uid, name, record.restarts)
            elif record.last is not None and record.last.run_id == str(
                RunId(self.uid, name, record.restarts)
            ):
                # It waited for its restart; so it does again.
                task.reported, record.last = record.last, None
            task.had_proved = (before.get("started") is True, before.get("ready") is True)
            task.crash.resume(record.restarts)
            result.append(task)
        return result

    def _status(self) -> Json:
        facts = PodFacts(
            host_ip=self._services.config.address,
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

    def _event(self, kind: str, reason: str, message: str, container: ContainerRecord | None = None) -> None:
        name, init = (container.name, container.init) if container else ("", False)
        self._services.recorder.pod(self.pod, kind, reason, message, name, init)

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
            await self._run_containers()
        except Exception as error:
            # A bug of this agent. The pod must not hang about as if it were about to run.
            log.error("pod worker failed", exc_info=error, pod=podspec.key(self.pod), uid=self.uid)
            self._verdict = Verdict("Failed", "NodeAgentError", f"the node agent failed: {error!r}")
            for container in self.containers:
                container.dismissed = True
                await container.kill()
            await asyncio.gather(*self._sidecars, return_exceptions=True)
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if not self.stopping:  # else whoever stopped it writes the end
            self._finish()

    async def _run_containers(self) -> None:
        initialized = any(not c.record.init and c.adopt is not None for c in self.containers)
        for container in self.containers:
            if container.record.init and not await self._initialize(container, initialized):
                break
        else:
            await self._run_mains()
        if self._sidecars:
            await self._dismiss()

    async def _initialize(self, container: ContainerTask, initialized: bool) -> bool:
        """Run an init container; whether the next one may start.

        Parameters
        ----------
        initialized : bool
            An earlier agent had come past the init containers: none is begun again, and none is waited for.
        """
        if container.up is not None:
            task = self._spawn(container.run())
            self._sidecars.append(task)
            if initialized:
                return True
            up = asyncio.create_task(container.up.wait())
            await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            return not task.done()
        if initialized and container.adopt is None and container.reported is None:
            container.reported = Ended(0, "Completed", _INITIALIZED, self.start_time, self.start_time, "")
        await container.run()
        return initialized or (container.record.ended is not None and container.record.ended.exit_code == 0)

    async def _run_mains(self) -> None:
        mains = [c for c in self.containers if not c.record.init]
        for container in mains:
            if container.record.reason == states.POD_INITIALIZING:
                container.record.move(container.record.state, states.CONTAINER_CREATING)
        if len(mains) == 1:  # the usual pod needs no task of its own for its container
            await mains[0].run()
            return
        async with asyncio.TaskGroup() as group:
            for container in mains:
                group.create_task(container.run())

    async def _dismiss(self) -> None:
        """End the sidecars: what they were there for has ended."""
        sidecars = [c for c in self.containers if c.record.sidecar]
        for container in sidecars:
            container.dismissed = True
        if not self.stopping:  # else they are being ended already
            self._grace = Grace(self.grace_s)
            await self._end_containers(self._grace)
        _, rest = await asyncio.wait(self._sidecars, timeout=self.ending.left_s + LEAST_S + _KILL_WAIT_S)
        if rest:
            log.error("a sidecar does not end", pod=podspec.key(self.pod), uid=self.uid)

    async def _end_containers(self, grace: Grace) -> None:
        """Bring all containers to their end, sidecars after the others and the last one first."""
        if len(self.containers) == 1:
            await self.containers[0].end(grace)
            return
        ends = []
        later = [c for c in self.containers if not c.record.init]
        for container in reversed(self.containers):
            turns = [one.quiet for one in later] if container.record.sidecar else []
            ends.append(container.end(grace, turns))
            if container.record.sidecar:
                later = [*later, container]
        await asyncio.gather(*ends)

    def _finish(self) -> None:
        """Nothing of this pod will run any more: say how it ended."""
        self._terminal = True
        self.over = True
        self._let_go()
        self.changed(Urgency.NOW)

    def _let_go(self) -> None:
        """What the node holds for the pod while it is not over: its share, and its volumes."""
        self._services.account.release(self.uid)
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
        if self._grace is None:
            self._grace = Grace(grace_s)
        else:
            self._grace.shorten(grace_s)
        await self._end_containers(self._grace)
        if self._driving is None or self._driving.done():
            return
        # Only a start that was under way is left, and what then came of it.
        _, rest = await asyncio.wait({self._driving}, timeout=self._grace.left_s + LEAST_S)
        if rest:
            for container in self.containers:
                await container.kill()
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
