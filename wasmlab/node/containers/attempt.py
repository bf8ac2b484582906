"""One run of a container while it lasts: its postStart hook, its probes, and how it is brought to its end.

A container without hooks and probes has no task here; that is most of them. Ending goes the kubelet's way: the Killing
event, the preStop hook within the grace period, then SIGTERM, and SIGKILL when the period (but at least two seconds)
is over. WASI preview 1 knows no signals: SIGTERM ends the module where it is, with exit code 143. What a module wants
to do before, it can be told by the preStop hook.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go`` (``startContainer``, ``killContainer``),
``kuberuntime_manager.go`` (``computePodActions``: what a failed probe is answered with).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from wasmlab.errors import SandboxError
from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.containers import hooks
from wasmlab.node.containers.grace import LEAST_S, Grace
from wasmlab.node.containers.prober import Prober
from wasmlab.node.spec import podspec, probes
from wasmlab.node.status.states import State

if TYPE_CHECKING:
    from wasmlab.node.containers.container import ContainerTask
    from wasmlab.node.containers.pod import Pod
    from wasmlab.node.containers.services import Services
    from wasmlab.node.spec.probes import Probe
    from wasmlab.sandbox import Run

_KILLED_S = 10.0  # SIGKILL needs no longer; if it does, the machine has other troubles

Turn = Callable[[], Awaitable[object]]


class Attempt:
    """A run under way.

    Parameters
    ----------
    services : Services
        The node.
    pod : Pod
        The pod.
    container : ContainerTask
        The container.
    run : Run
        Its module.
    """

    def __init__(self, services: Services, pod: Pod, container: ContainerTask, run: Run) -> None:
        self.run = run
        self._services = services
        self._pod = pod
        self._container = container
        self._care: asyncio.Task[None] | None = None
        self._prober: Prober | None = None
        self._ending: asyncio.Task[None] | None = None
        self._grace: Grace | None = None
        self._over: asyncio.Event | None = None

    def begin(self, *, fresh: bool) -> None:
        """Take note that the module runs.

        Parameters
        ----------
        fresh : bool
            It was started just now. If an earlier agent did, its postStart hook is not run again, and what the probes
            had found stays found.
        """
        spec, record = self._container.spec, self._container.record
        post_start = hooks.of(spec, "postStart") if fresh else None
        has_probes = probes.probed(spec)
        if has_probes:
            was_started, was_ready = (False, False) if fresh else self._container.had_proved
            record.started = was_started or not spec.get("startupProbe")
            record.ready = was_ready or not spec.get("readinessProbe")
        if post_start is None:
            record.runs()
        else:
            record.move(State.STARTING)
        if post_start is not None or has_probes:
            self._care = asyncio.create_task(self._attend(post_start, fresh))

    async def over(self) -> None:
        """Wait until the module has ended."""
        if self._over is None:
            self._over = asyncio.Event()
        await self._over.wait()

    def close(self) -> None:
        """The module has ended."""
        if self._over is None:
            self._over = asyncio.Event()
        self._over.set()
        for one in (self._care, self._prober):
            if one is not None:
                one.cancel()

    def abandon(self) -> None:
        """The agent lets go of it; it runs on."""
        if self._ending is not None:
            self._ending.cancel()
        for one in (self._care, self._prober):
            if one is not None:
                one.cancel()

    async def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(SandboxError, ProcessLookupError, KeyError):
            run_id = self._container.current
            if self.run.done and run_id is not None:
                # What this connection knew of it is over; the module may go on, known to another connection.
                self.run = await self._services.runtime.attach(self._container.engine, run_id)
            await self.run.kill(number)

    async def end(self, grace: Grace, message: str, turns: Sequence[Turn] = ()) -> None:
        """Bring it to its end; return when it has ended. Asked twice, it ends once, by the shorter period.

        Parameters
        ----------
        grace : Grace
            How long that may take.
        message : str
            Of the Killing event.
        turns : sequence of callable
            What has to be waited for before SIGTERM is sent, within the grace period.
        """
        await asyncio.shield(self.doom(grace, message, turns))

    def doom(self, grace: Grace, message: str, turns: Sequence[Turn] = ()) -> asyncio.Task[None]:
        """Begin what `end` waits for."""
        if self._ending is None:
            self._grace = grace
            # A task of its own: who asked may lose interest, but what is half ended has to be ended.
            self._ending = asyncio.create_task(self._end(grace, message, turns))
        elif self._grace is not None:
            grace.govern(self._grace)
        return self._ending

    async def _end(self, grace: Grace, message: str, turns: Sequence[Turn]) -> None:
        if self._care is not None:
            self._care.cancel()  # no more liveness; readiness is asked on
        self._container.event(events.NORMAL, "Killing", message)
        pre_stop = hooks.of(self._container.spec, "preStop")
        if pre_stop is not None and grace.left_s > 0:
            await self._pre_stop(pre_stop, grace)
        for turn in turns:
            with contextlib.suppress(TimeoutError):
                async with grace.limit():
                    await turn()
        await self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with grace.limit(LEAST_S):
                await self.over()
                return
        await self.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_S):
                await self.over()

    async def _pre_stop(self, handler: hooks.Json, grace: Grace) -> None:
        hook = asyncio.create_task(self._hook(handler))
        over = asyncio.create_task(self.over())
        try:
            async with grace.limit():
                await asyncio.wait({hook, over}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.info(
                "a preStop hook takes longer than the grace period",
                pod=podspec.key(self._pod.pod),
                container=self._container.record.name,
            )
        finally:
            # What the hook asked for has happened when the module has ended; a hook beside no module is none.
            failed = not over.done() and hook.done() and not hook.cancelled() and hook.result()
            for task in (hook, over):
                task.cancel()
            await asyncio.gather(hook, over, return_exceptions=True)
        if failed:
            self._container.event(events.WARNING, "FailedPreStopHook", "PreStopHook failed")

    async def _hook(self, handler: hooks.Json) -> str:
        meta = self._pod.pod["metadata"]
        pod = f"{meta['name']}_{meta['namespace']}({self._pod.uid})"
        try:
            problem = await hooks.run(self._services, self._container, handler, pod)
        except Exception as error:  # a bug of this agent must not keep the container from its end
            log.error("a hook cannot be run", exc_info=error, pod=podspec.key(self._pod.pod))
            return repr(error)
        if problem:
            log.info("a hook failed", pod=podspec.key(self._pod.pod), problem=problem)
        return problem

    async def _attend(self, post_start: hooks.Json | None, fresh: bool) -> None:
        container = self._container
        try:
            if post_start is not None:
                if await self._hook(post_start):
                    container.event(events.WARNING, "FailedPostStartHook", "PostStartHook failed")
                    await self.end(Grace(self._pod.grace_s), "FailedPostStartHook")
                    return
                container.record.runs()
                container.told()
            if probes.probed(container.spec):
                self._prober = Prober(self._services, container, container.event, container.told, fresh=fresh)
                culprit = await self._prober.run()
                grace_s = self._pod.grace_s if culprit.grace_s is None else culprit.grace_s
                await self.end(Grace(grace_s), self._sentence(culprit))
        except Exception as error:  # a bug of this agent: it must be seen, and restartPolicy decides
            log.error("cannot attend to a container", exc_info=error, pod=podspec.key(self._pod.pod))
            await self.end(Grace(self._pod.grace_s), f"the node agent failed: {error!r}")

    def _sentence(self, culprit: Probe) -> str:
        record = self._container.record
        said = f"{record.title} failed {culprit.kind.lower()} probe"
        restarts = record.main and (record.policy or self._pod.policy) != "Never"
        return f"{said}, will be restarted" if restarts else said
