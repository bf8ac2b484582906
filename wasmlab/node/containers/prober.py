"""Asks a running container's probes, one after the other or side by side, and tells what they found.

The order is the kubelet's: the startup probe alone until it succeeds; then liveness and readiness. Unlike the kubelet,
whose probes go by a beat that began with the pod, the first question is asked when the initial delay is over, and
readiness as soon as the container counts as started.

A container that an earlier agent left running is not asked to prove again what it had proved: it stays started, and
ready, until a probe says otherwise.

httpGet, tcpSocket and grpc ask the node's address, where a module that listens does so.

References
----------
``k8s.io/kubernetes/pkg/kubelet/prober/{prober.go,worker.go,prober_manager.go}``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.containers import actions
from wasmlab.node.spec.probes import LIVENESS, READINESS, STARTUP, Probe, Tally, next_tick

if TYPE_CHECKING:
    from wasmlab.node.containers.container import ContainerTask
    from wasmlab.node.containers.services import Services

_TRIES = 3  # of what could not be tried at all

Event = Callable[[str, str, str], None]


class Prober:
    """The probes of one run of a container.

    Parameters
    ----------
    services : Services
        The node.
    container : ContainerTask
        Whose record is kept up to date.
    event : callable
        Records an event of the container: ``event(kind, reason, message)``.
    changed : callable
        Called when `started` or `ready` of the record has changed.
    fresh : bool
        The container has just been started. If not, an agent has: then many probes begin at once, and each waits for a
        random part of its period first.
    """

    def __init__(
        self,
        services: Services,
        container: ContainerTask,
        event: Event,
        changed: Callable[[], None],
        *,
        fresh: bool,
    ) -> None:
        self._services = services
        self._container = container
        self._event = event
        self._changed = changed
        self._fresh = fresh
        self._began = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> Probe:
        """Ask until the container is to be ended because of a probe, and return that one; else until cancelled."""
        record = self._container.record
        startup, liveness, readiness = (
            Probe.of(self._container.spec, kind) for kind in (STARTUP, LIVENESS, READINESS)
        )
        if startup is not None and not record.started:
            if not await self._until_decided(startup):
                return startup
            record.started = True
            self._changed()
        if readiness is not None:
            self._reading = asyncio.create_task(self._readiness(readiness))
        if liveness is None:
            await asyncio.Event().wait()
        assert liveness is not None
        await self._until_decided(liveness, failing=True)
        return liveness

    def cancel(self) -> None:
        """Ask nothing any more. Until then readiness is asked on, also while the container is being ended."""
        if self._reading is not None:
            self._reading.cancel()

    async def _until_decided(self, probe: Probe, *, failing: bool = False) -> bool:
        """Ask until a threshold is reached; with `failing`, until that of failure is."""
        tally = Tally(probe)
        await self._initial_delay(probe)
        begin = time.monotonic()
        while True:
            answer = await self._ask(probe)
            decided = tally.count(answer) if answer is not None else None
            if decided is False or (decided and not failing):
                return decided
            await _sleep_until(next_tick(begin, probe.period_s, time.monotonic()))

    async def _readiness(self, probe: Probe) -> None:
        record = self._container.record
        tally = Tally(probe)
        await self._initial_delay(probe)
        begin = time.monotonic()
        while True:
            answer = await self._ask(probe)
            decided = tally.count(answer) if answer is not None else None
            if decided is not None and decided is not record.ready:
                record.ready = decided
                self._changed()
            await _sleep_until(next_tick(begin, probe.period_s, time.monotonic()))

    async def _initial_delay(self, probe: Probe) -> None:
        delay_s = probe.initial_delay_s if self._fresh else random.uniform(0.0, probe.period_s)
        await _sleep_until(self._began + delay_s)

    async def _ask(self, probe: Probe) -> bool | None:
        """One answer; None if none can be had."""
        error: Exception | None = None
        for _ in range(_TRIES):
            try:
                result = await actions.perform(
                    self._services,
                    self._container,
                    probe.handler,
                    purpose="probe",
                    timeout_s=probe.timeout_s,
                )
            except actions.Failed as failed:
                error = failed
                continue
            except Exception as bug:  # of this agent: the probe goes on being asked
                log.error("a probe failed", exc_info=bug, container=self._container.record.name)
                error = bug
                break
            if result.verdict is actions.Verdict.FAILURE:
                self._event(events.WARNING, "Unhealthy", f"{probe.kind} probe failed: {result.output}")
            elif result.verdict is actions.Verdict.WARNING:
                self._event(events.WARNING, "ProbeWarning", f"{probe.kind} probe warning: {result.output}")
            return result.good
        if self._container.current is not None:  # else it has just ended, and there is nothing to be said
            said = f"{probe.kind} probe errored and resulted in unknown state: {error}"
            log.info("a probe cannot be asked", container=self._container.record.name, error=str(error))
            self._event(events.WARNING, "Unhealthy", said)
        return None


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
