"""The Node object and its Lease: create them, keep them true, make them again when somebody deletes them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from wasmlab.errors import BootstrapError
from wasmlab.node import log
from wasmlab.node.api.kubeapi import STRATEGIC, ApiError, ApiUnavailable, Json, KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.host import machine, pressure
from wasmlab.node.host.pressure import Pressure
from wasmlab.node.membership import nodeobject
from wasmlab.node.membership.nodeobject import NodeFacts

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


async def _fine() -> str:
    return ""


def kubelet_version() -> str:
    """What the VERSION column shows: this program's own, in the form tools expect of a kubelet."""
    from wasmlab import __version__

    return f"v{__version__}+wasmlab"


def facts(config: NodeConfig, port: int, engines: tuple[str, ...]) -> NodeFacts:
    """Read the machine."""
    capacity, allocatable = machine.resources(config.dir, config.max_pods, config.capacity)
    return NodeFacts(
        name=config.node_name,
        hostname=config.host,
        address=config.address,
        port=port,
        kubelet_version=kubelet_version(),
        capacity=capacity,
        allocatable=allocatable,
        system=machine.system(),
        disk=machine.disk(config.dir),
        pod_cidr=config.pod_cidr,
        extra_labels=config.labels,
        engines=engines,
    )


class Registration:
    """Keeps the Node and the Lease of this node.

    Parameters
    ----------
    config : NodeConfig
        Names and periods.
    api : KubeApi
        With the node's own credentials.
    facts : NodeFacts
        What to say.
    probe : callable
        Finds out whether modules can be run; returns why not, or nothing.
    pressed : callable
        Is told which pressures hold, whenever that was measured.
    """

    def __init__(
        self,
        config: NodeConfig,
        api: KubeApi,
        facts: NodeFacts,
        *,
        probe: Callable[[], Awaitable[str]] = _fine,
        pressed: Callable[[Mapping[str, str]], None] = lambda pressure: None,
    ) -> None:
        self._probe = probe
        self._pressed = pressed
        self._pressure = Pressure(pressure.parse(config.eviction_hard), config.intervals.pressure_hold_s)
        self._leaving = ""
        self._config = config
        self._api = api
        self._facts = facts
        self._uid = ""
        self._conditions: list[Json] = []
        self._reported_at = 0.0
        self._lease_seen = False

    @property
    def _path(self) -> str:
        return f"/api/v1/nodes/{self._config.node_name}"

    async def register(self) -> None:
        """Create the Node, or correct the one that is there.

        Raises
        ------
        BootstrapError
            The API server refuses this node for good.
        """
        wait_s = 0.1
        while True:
            try:
                await self._register()
                return
            except ApiUnavailable as error:
                log.warning("cannot register yet", error=error.message)
            except ApiError as error:
                # The node's rights reach the API server's caches a moment after they are granted.
                if not error.transient and (error.context["status"] != 403 or wait_s > 2):
                    raise BootstrapError(
                        f"node {self._config.node_name} cannot register: {error.message}",
                        remedy="check the node's rights (group system:nodes) and name",
                        node=self._config.node_name,
                    ) from error
            await asyncio.sleep(wait_s)
            wait_s = min(5.0, wait_s * 2)

    async def _register(self) -> None:
        try:
            created = await self._api.create("/api/v1/nodes", nodeobject.node(self._facts, time.time()))
            log.info("registered", node=self._config.node_name)
        except ApiError as error:
            if error.context["reason"] != "AlreadyExists":
                raise
            created = await self._api.patch(self._path, nodeobject.node_patch(self._facts))
            lacking = nodeobject.missing_taints(created)
            if lacking:
                log.warning(
                    "the Node lacks taints that only an administrator may add", taints=",".join(lacking)
                )
        self._uid = created["metadata"]["uid"]
        self._conditions = created.get("status", {}).get("conditions") or []
        await self.report()
        await self.renew()

    async def report(self) -> None:
        """Write the node's status with fresh heartbeats."""
        now = time.time()
        status = nodeobject.status(self._facts, now, self._conditions)
        answer = await self._api.patch(f"{self._path}/status", {"status": status}, STRATEGIC)
        self._conditions = answer.get("status", {}).get("conditions") or []
        self._reported_at = time.monotonic()

    async def renew(self) -> None:
        """Renew the Lease, creating it if need be."""
        now = time.time()
        try:
            await self._api.patch(
                f"{_LEASES}/{self._config.node_name}", nodeobject.lease_renewal(self._config.node_name, now)
            )
        except ApiError as error:
            if error.context["status"] != 404:
                raise
            await self._api.create(_LEASES, nodeobject.lease(self._config.node_name, self._uid, now))

    async def keep_lease(self) -> None:
        """Renew the Lease until cancelled."""
        await self._forever(self.renew, self._config.intervals.lease_s, "renew the lease")

    async def keep_node(self) -> None:
        """Look after the Node until cancelled: report what changed, and heartbeats now and then; register again if it
        was deleted."""
        await self._forever(self._check, self._config.intervals.node_check_s, "report the node's status")

    async def _check(self) -> None:
        changed = await self._measure()
        try:
            if changed or time.monotonic() - self._reported_at >= self._config.intervals.node_report_s:
                await self.report()
                return
            found = await self._api.get(self._path)
            self._conditions = found.get("status", {}).get("conditions") or []
            if found["metadata"]["uid"] != self._uid or self._says_ready() == bool(self._facts.problem):
                # Somebody made the Node anew, or the controller gave us up for dead while we were away.
                self._uid = found["metadata"]["uid"]
                await self.report()
        except ApiError as error:
            if error.context["status"] != 404:
                raise
            log.warning("the Node object is gone; registering again", node=self._config.node_name)
            await self.register()

    async def _measure(self) -> bool:
        """Look at the machine and the sandbox; whether a condition has changed."""
        before, directory = self._facts, self._config.dir
        pressed = self._pressure.observe(machine.signals(directory), time.monotonic())
        problem = self._leaving or await self._probe()
        self._facts = now = dataclasses.replace(
            before, disk=machine.disk(directory), pressure=pressed, problem=problem
        )
        self._pressed(pressed)
        if now.disk.full != before.disk.full:
            log.warning("disk", full=now.disk.full, free_bytes=now.disk.free_bytes)
        if set(pressed) != set(before.pressure):
            log.warning("pressure", conditions="; ".join(f"{k}: {v}" for k, v in pressed.items()) or "none")
        if bool(problem) != bool(before.problem):
            log.warning("readiness", ready=not problem, why=problem or "the sandbox works again")
        return (
            now.disk.full != before.disk.full
            or set(pressed) != set(before.pressure)
            or problem != before.problem
        )

    async def leave(self, why: str) -> None:
        """The node is about to end with its pods: say so, for good."""
        self._leaving = why
        self._facts = dataclasses.replace(self._facts, problem=why)
        try:
            await self.report()
        except (ApiError, ApiUnavailable) as error:
            log.warning("cannot say that the node is leaving", error=error.message)

    def _says_ready(self) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self._conditions)

    async def _forever(self, action: Callable[[], Awaitable[None]], period_s: float, what: str) -> None:
        failing = False
        while True:
            await asyncio.sleep(period_s * random.uniform(0.9, 1.1) if not failing else min(1.0, period_s))
            try:
                await action()
                if failing:
                    log.info(f"can {what} again")
                failing = False
            except (ApiError, ApiUnavailable) as error:
                if not failing:
                    log.warning(f"cannot {what}; trying on", error=error.message)
                failing = True
