"""One container's way through the state table: pull, create, run, and again if its restartPolicy says so.

A `ContainerTask` belongs to a pod worker, which starts it, is told when the status has changed, and ends it with `end`.
What only waits can be cancelled at any moment. The one step that never is, is the start: between asking the sandbox and
knowing its answer nobody may lose the run. While its module runs, an `Attempt` looks after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.errors import SandboxError
from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.api.kubeapi import Json
from wasmlab.node.containers import creating, instances, limits, pulling
from wasmlab.node.containers.attempt import Attempt, Turn
from wasmlab.node.containers.backoff import Backoff, CrashBackoff
from wasmlab.node.containers.grace import Grace
from wasmlab.node.containers.pod import Pod
from wasmlab.node.containers.services import Services
from wasmlab.node.runtime import rotation
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import podspec
from wasmlab.node.status import outcomes, states, termmessage
from wasmlab.node.status.records import ContainerRecord, Ended
from wasmlab.node.status.states import State
from wasmlab.node.status.statuswriter import Urgency

if TYPE_CHECKING:
    from wasmlab.oci.store import StoredModule
    from wasmlab.sandbox import Outcome, Run

# ``backoffLimiter`` of pkg/kubelet/volumemanager: 500 ms, doubled.
_MOUNT_BASE_S = 0.5


class ContainerTask:
    """One container.

    Parameters
    ----------
    services : Services
        The node.
    pod : Pod
        The pod it belongs to.
    spec : dict
        v1.Container.
    record : ContainerRecord
        What is reported of it; only this task changes it.
    engine : str
        Where it runs.
    runs : dict of RunId to engine
        Its attempts on record, oldest first.
    """

    def __init__(
        self,
        services: Services,
        pod: Pod,
        spec: Json,
        record: ContainerRecord,
        engine: str,
        runs: dict[RunId, str],
    ) -> None:
        intervals = services.config.intervals
        self.services = services
        self.pod = pod
        self.spec = spec
        self.record = record
        self.engine = engine
        self.runs = runs
        self.instances: set[Run] = set()  # what runs beside it: probes, hooks, kubectl exec
        self.spent_ns = 0  # the CPU time of those that have ended
        self.adopt: RunId | None = None  # the run that an earlier agent left
        self.reported: Ended | None = None  # or only its end, as the API has it
        self.had_proved = (False, False)  # whether its probes had found it started, and ready
        self.dismissed = False  # a sidecar that is not needed any more
        self.up = asyncio.Event() if record.sidecar else None  # set when those after it may start
        self.crash = CrashBackoff(intervals.backoff_base_s, intervals.backoff_cap_s)
        self._task: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None
        self.message_directory: Path | None = None
        self._module: StoredModule | None = None
        self.interruptible = False
        self._told = ""
        self.retry = asyncio.Event()
        self._redefined = False  # its image was changed while it ran
        self.mounting = Backoff(min(_MOUNT_BASE_S, intervals.backoff_base_s), intervals.backoff_cap_s)

    # ---- for the pod ----

    async def run(self) -> None:
        """Go through the table to DONE."""
        self._task = asyncio.current_task()
        try:
            if self.reported is not None and not await self._ended(self.reported):
                return
            if self.adopt is not None and not await self._take_up(self.adopt):
                return
            while not self._leaving:
                self.pod.starts()
                self._module = await pulling.pull(self)
                begun = await creating.start(self, self._module)
                if isinstance(begun, Ended):
                    again = await self._ended(begun)
                elif begun is None:  # it has another image now
                    continue
                else:
                    again = await self._follow(begun.run, begun.run_id, time.time(), fresh=True)
                if not again:
                    return
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            # `end` cancelled a wait. The task itself goes on: it may be the pod's.
            if self._task is not None:
                self._task.uncancel()
        finally:
            self._task = None
        if self.record.state is not State.DONE:
            self.record.move(State.DONE)

    async def end(self, grace: Grace, turns: Sequence[Turn] = ()) -> None:
        """End it: no more waiting if it waits, else as `Attempt.end` does. The pod is stopping, or it was dismissed."""
        if self._attempt is not None:
            await self._attempt.end(grace, self._farewell, turns)
        elif self._task is not None and self.interruptible:
            self._task.cancel()

    async def kill(self) -> None:
        """End it at once."""
        if self._attempt is not None:
            await self._attempt.signal(signal.SIGKILL)
        elif self._task is not None and self.interruptible:
            self._task.cancel()

    async def destroy(self) -> None:
        """End whatever of it runs, also what this task has lost sight of (a bug of this agent has ended it)."""
        self.dismissed = True
        await self.kill()
        for run_id, engine in list(self.runs.items())[-1:]:
            with contextlib.suppress(KeyError, SandboxError):
                run = await self.services.runtime.attach(engine, run_id)
                await run.kill(signal.SIGKILL)

    async def quiet(self) -> None:
        """Wait until its module does not run."""
        if self._attempt is not None:
            await self._attempt.over()

    @property
    def current(self) -> RunId | None:
        """Its run, while it runs."""
        run_id = RunId(self.pod.uid, self.record.name, self.record.restarts)
        return run_id if self._attempt is not None and str(run_id) == self.record.run_id else None

    def told(self) -> None:
        """Something that its status says has changed."""
        if self.up is not None and self.record.is_started:
            self.up.set()
        self.pod.changed(Urgency.HELD)

    def event(self, kind: str, reason: str, message: str) -> None:
        """Record an event of it."""
        self.services.recorder.pod(self.pod.pod, kind, reason, message, self.record.name, self.record.init)

    @property
    def _farewell(self) -> str:
        return f"Stopping container {self.record.name}"

    @property
    def _leaving(self) -> bool:
        return self.dismissed or self.pod.leaving

    @property
    def _stopping(self) -> bool:
        return self.dismissed or self.pod.stopping

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of its module and of what runs beside it."""
        runs = (self._attempt.run, *self.instances) if self._attempt is not None else ()
        return tuple(run.pid for run in runs)

    @property
    def module_digest(self) -> str:
        """Of its module; empty before it was pulled."""
        return self._module.digest if self._module is not None else ""

    @property
    def live_log(self) -> tuple[Path, Callable[[], Awaitable[None]]] | None:
        """The log that is being written to, and how to have it opened anew; None if the module does not run."""
        run_id = self.current
        if run_id is None:
            return None
        reopen = functools.partial(self.services.runtime.reopen_log, self.engine, run_id)
        return self.log_path(self.record.restarts), reopen

    def redefine(self, spec: Json) -> None:
        """Its image was changed: what waits tries the new one at once, what runs is ended and begun anew.

        References
        ----------
        ``pkg/kubelet/kuberuntime/kuberuntime_manager.go`` (``containerChanged``): regardless of restartPolicy, and the
        back-off belonged to what it was. An ordinary init container that runs is let end.
        """
        self.spec = spec
        intervals = self.services.config.intervals
        self.crash = CrashBackoff(intervals.backoff_base_s, intervals.backoff_cap_s)
        self.retry.set()
        record = self.record
        if self._attempt is None or (record.init and not record.sidecar):
            return
        self._redefined = True
        said = f"{record.title} definition changed{', will be restarted' if record.main else ''}"
        self._attempt.doom(Grace(self.pod.grace_s), said)

    @property
    def outdated(self) -> bool:
        """Whether what is known of it is of an image that it had before."""
        return bool(self.record.image != self.spec["image"])

    async def pause(self, seconds: float) -> None:
        """Wait, but not if there is something new to try."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.retry.wait()

    def retry_now(self) -> None:
        """Something about the pod changed: a configuration error may be mended."""
        if self.record.state is State.CONFIG_ERROR:
            self.retry.set()

    def log_path(self, attempt: int) -> Path:
        """Where an attempt's output is."""
        # No directory per container: making one costs as much as everything else this agent does to start a module.
        return self.pod.directory / f"{self.record.name}.{attempt}.log"

    def message_path(self, attempt: int) -> Path:
        """The directory where an attempt may leave its termination message."""
        return self.pod.directory / f"{self.record.name}.{attempt}.message"

    # ---- the states ----

    async def _take_up(self, run_id: RunId) -> bool:
        """A run of an earlier agent. False when the container is done with it."""
        try:
            run = await self.services.runtime.attach(self.engine, run_id)
        except (KeyError, SandboxError) as error:
            log.warning("a run is lost", pod=podspec.key(self.pod.pod), run=run_id, error=error)
            return await self._ended(outcomes.lost(self.pod.start_time, time.time(), str(run_id)))
        log.info("took up a run", pod=podspec.key(self.pod.pod), run=run_id, ended=run.done)
        began = self.services.runtime.started_at(run_id) or self.pod.start_time
        with contextlib.suppress(KeyError):
            spec = self.services.runtime.recorded_spec(run_id)
            self.message_directory = termmessage.host_directory(spec, self.spec)
        return await self._follow(run, run_id, began, fresh=False)

    async def _follow(self, run: Run, run_id: RunId, began: float, *, fresh: bool) -> bool:
        """RUNNING, until it has ended."""
        record = self.record
        attempt = self._attempt = Attempt(self.services, self.pod, self, run)
        self.interruptible = False
        record.run_id = str(run_id)
        record.started_at = began
        outcome: Outcome | None = None
        told_ns = ended_ns = time.monotonic_ns()
        if run.done:
            record.runs()
        else:
            attempt.begin(fresh=fresh)
            self.told()
        try:
            if self._stopping:  # ended while its start was under way
                attempt.doom(self.pod.ending, self._farewell)
            elif self.outdated:  # or its image was changed meanwhile
                self.redefine(self.spec)
            outcome = await self.services.runtime.outcome(self.engine, run_id, run)
            end = outcomes.ended(outcome, str(run_id))
            # When the module began, by the sandbox; this agent was told a little later, under load after the end.
            spawned, reaped = outcome.span("spawn"), outcome.span("reaped")
            told_ns = spawned.end_ns if spawned is not None else told_ns
            ended_ns = reaped.end_ns if reaped is not None else time.monotonic_ns()
            self.pod.spans.mark("started", told_ns)
            self.pod.spans.ran(outcome.spans)
            first = outcome.span("first_byte")
            if first is not None:
                self.pod.spans.mark("first_byte", first.end_ns)
        except SandboxError as error:
            log.error("a run is lost", pod=podspec.key(self.pod.pod), run=run_id, error=error.message)
            end = outcomes.lost(began, time.time(), str(run_id))
        except asyncio.CancelledError:
            attempt.abandon()
            raise
        finally:
            self._attempt = None
        attempt.close()
        if self.instances:
            await instances.end_all(self)
        end = await limits.settled(self.services, self.spec, run_id, end, outcome)
        end = termmessage.complete(end, self.spec, self.message_directory, self.log_path(run_id.attempt))
        self.pod.spans.mark("exited")
        return await self._ended(end, max(0, ended_ns - told_ns) / 1e9, ended_ns)

    async def _ended(self, end: Ended, ran_s: float = 0.0, ended_ns: int | None = None) -> bool:
        """EXITED: what next? True, after its back-off, if the container is to be started again."""
        record = self.record
        record.ends(end)
        redefined, self._redefined = self._redefined, False
        if self._leaving or not (redefined or record.restarts_after(end.exit_code, self.pod.policy)):
            record.move(State.DONE)
            # The pod's end, if this was its last container, is written at once by the pod.
            self.pod.changed(Urgency.HELD)
            return False
        self.retry.clear()
        wait_s = 0.0 if redefined else self.crash.ended(ran_s)
        if wait_s > 0:
            meta = self.pod.pod["metadata"]
            who = f"{meta['name']}_{meta['namespace']}({self.pod.uid})"
            self.event(
                events.WARNING, "BackOff", f"Back-off restarting failed container {record.name} in pod {who}"
            )
            message = f"back-off {wait_s:g}s restarting failed container={record.name} pod={who}"
            record.move(State.CRASH_BACKOFF, states.CRASH_LOOP, message)
            self.pod.changed(Urgency.NOW)
            self.interruptible = True
            # By CLOCK_MONOTONIC, which all agents and zygotes of one boot share: the wall clock may be stepped.
            waited_s = (time.monotonic_ns() - ended_ns) / 1e9 if ended_ns is not None else 0.0
            await self.pause(wait_s - min(max(0.0, waited_s), wait_s))
        await self._forget_old()
        record.restarts += 1
        self.spent_ns = 0
        return True

    async def _forget_old(self) -> None:
        """Keep the end just past (for ``logs --previous``), drop what is older."""
        for run_id in [r for r in self.runs if r.attempt < self.record.restarts]:
            await self.services.runtime.forget(self.runs.pop(run_id), run_id)
            path = self.log_path(run_id.attempt)
            for old in (path, *rotation.rotated(path)):
                old.unlink(missing_ok=True)
            shutil.rmtree(self.message_path(run_id.attempt), ignore_errors=True)

    def is_news(self, message: str) -> bool:
        """Whether this failure is another than the last: the same need not be told again and again."""
        news, self._told = message != self._told, message
        return news
