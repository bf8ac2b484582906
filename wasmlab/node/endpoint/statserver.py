"""``/metrics``, ``/metrics/resource`` and ``/stats/summary``: measured when asked, for all who ask at once only once.

Nothing is sampled while nobody asks. A rate is the difference to the last time somebody asked (at least a second ago),
else the average since the container's start.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from wasmlab.node import promtext
from wasmlab.node.config import NodeConfig
from wasmlab.node.endpoint.metrics import Requests, pod_families, process_families
from wasmlab.node.endpoint.summary import (
    ContainerFigures,
    Figures,
    NodeFigures,
    PodFigures,
    resource_families,
    summary,
    use_of,
)
from wasmlab.node.host import machine, usage
from wasmlab.node.host.disk import DiskUse
from wasmlab.node.host.usage import Usage
from wasmlab.node.pods.eviction import Use
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.promtext import Family
from wasmlab.node.runtime.runs import RunId, Runtime
from wasmlab.node.spec import podspec

FRESH_S = 0.5
_RATE_OVER_S = 1.0

Key = tuple[str, ...]


@dataclass(frozen=True)
class _Container:
    """What is to be measured, taken down in the event loop, so that the thread that measures needs nothing of it."""

    key: Key
    run_id: RunId
    pids: tuple[int, ...]
    spent_ns: int
    started_at: float
    limit_bytes: int | None
    log: Path


@dataclass(frozen=True)
class _Pod:
    name: str
    namespace: str
    uid: str
    started_at: float
    directory: Path
    containers: tuple[_Container, ...]


@dataclass(frozen=True)
class _Moment:
    """When something was measured, its CPU time then, and the rate that was told."""

    clock_s: float
    cpu_ns: int
    rate: float


class StatServer:
    """Measures the node and its pods.

    Parameters
    ----------
    config : NodeConfig
        Name and directory.
    manager : PodManager
        The pods.
    runtime : Runtime
        Where they run.
    requests : Requests
        What the endpoint was asked.
    more : callable
        Gives further families for ``/metrics``.
    groups : callable
        Gives the directories of a run's control group, whether they exist or not.
    """

    def __init__(
        self,
        config: NodeConfig,
        manager: PodManager,
        runtime: Runtime,
        requests: Requests,
        *,
        more: Callable[[], list[Family]] = list,
        groups: Callable[[RunId], Iterable[str]] = lambda _: (),
    ) -> None:
        self._config = config
        self._manager = manager
        self._runtime = runtime
        self._requests = requests
        self._more = more
        self._groups = groups
        self._started_at = time.time()
        self._before: dict[Key, _Moment] = {}
        self._measuring = asyncio.Lock()
        self._last: tuple[float, bool, NodeFigures, list[PodFigures]] | None = None

    async def metrics(self, _request: web.Request) -> web.Response:
        """GET /metrics."""
        families = [
            *pod_families(self._config.node_name, self._manager),
            *self._requests.families(),
            *process_families(self._started_at),
            *self._more(),
        ]
        return _text(families)

    async def resource_metrics(self, _request: web.Request) -> web.Response:
        """GET /metrics/resource."""
        return _text(resource_families(*await self._figures(disk=False)))

    async def summary(self, request: web.Request) -> web.Response:
        """GET /stats/summary[?only_cpu_and_memory=true]."""
        import orjson

        short = request.query.get("only_cpu_and_memory") == "true"
        body = summary(*await self._figures(disk=not short))
        if short:
            for pod in body["pods"]:
                del pod["ephemeral-storage"]
                for container in pod["containers"]:
                    del container["rootfs"], container["logs"]
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def uses(self, disk: bool) -> dict[str, Use]:
        """What the pods that run use of the node, by UID, measured now; of the disk only if asked for."""
        self._last = None
        _, pods = await self._figures(disk=disk)
        return {pod.uid: use_of(pod) for pod in pods}

    async def _figures(self, *, disk: bool) -> tuple[NodeFigures, list[PodFigures]]:
        async with self._measuring:
            last = self._last
            if last is None or time.monotonic() - last[0] > FRESH_S or (disk and not last[1]):
                zygotes = self._runtime.zygotes
                node, pods = await asyncio.to_thread(self._measure, self._plan(), zygotes, disk)
                last = self._last = (time.monotonic(), disk, node, pods)
            return last[2], last[3]

    def _plan(self) -> list[_Pod]:
        pods = []
        for worker in self._manager.workers.values():
            containers = []
            for container in worker.containers:
                run_id = container.current
                if run_id is None:
                    continue
                containers.append(
                    _Container(
                        key=(worker.uid, run_id.container, str(run_id.attempt)),
                        run_id=run_id,
                        pids=container.pids,
                        spent_ns=container.spent_ns,
                        started_at=container.record.started_at or worker.start_time,
                        limit_bytes=_limit(container.spec),
                        log=container.log_path(run_id.attempt),
                    )
                )
            if containers:
                meta = worker.pod["metadata"]
                pods.append(
                    _Pod(
                        name=meta["name"],
                        namespace=meta["namespace"],
                        uid=worker.uid,
                        started_at=worker.start_time,
                        directory=worker.directory,
                        containers=tuple(containers),
                    )
                )
        return sorted(pods, key=lambda pod: (pod.namespace, pod.name))

    def _measure(
        self, plan: list[_Pod], zygotes: tuple[int, ...], disk: bool
    ) -> tuple[NodeFigures, list[PodFigures]]:
        """In a thread: reading /proc for a thousand workers takes longer than the loop may stand still."""
        seen: dict[Key, _Moment] = {}
        pods = []
        for pod in plan:
            containers = []
            for one in pod.containers:
                used = usage.of_workers(one.pids) + Usage(cpu_ns=one.spent_ns)
                used = usage.in_groups(used, self._groups(one.run_id))
                figures = self._as_figures(one.key, used, one.started_at, seen, one.limit_bytes)
                log_bytes = _log_bytes(one.log) if disk else 0
                containers.append(ContainerFigures(one.run_id.container, figures, log_bytes))
            space = usage.of_directory(pod.directory) if disk else DiskUse()
            pods.append(PodFigures(pod.name, pod.namespace, pod.uid, pod.started_at, containers, space))
        total = usage.machine()
        whole = Usage(total.cpu_ns, total.memory_working_set_bytes)
        agent = usage.of_process(os.getpid()) or Usage()
        idle = sum((usage.of_process(pid) or Usage() for pid in zygotes), Usage())
        node = NodeFigures(
            self._config.node_name,
            self._as_figures(
                ("machine",),
                whole,
                total.booted_at,
                seen,
                total.memory_total_bytes,
                usage_bytes=total.memory_usage_bytes,
            ),
            self._as_figures(("agent",), agent, self._started_at, seen),
            self._as_figures(("zygotes",), idle, self._started_at, seen),
            machine.disk(self._config.dir),
        )
        self._before = seen
        return node, pods

    def _as_figures(
        self,
        key: Key,
        used: Usage,
        started_at: float,
        seen: dict[Key, _Moment],
        limit_bytes: int | None = None,
        *,
        usage_bytes: int | None = None,
    ) -> Figures:
        now, clock_s = time.time(), time.monotonic()
        before = self._before.get(key)
        if before is not None and clock_s - before.clock_s < _RATE_OVER_S:
            moment = before  # a younger one would make the next rate one of noise
        elif before is not None and used.cpu_ns >= before.cpu_ns:
            moment = _Moment(clock_s, used.cpu_ns, (used.cpu_ns - before.cpu_ns) / (clock_s - before.clock_s))
        else:
            moment = _Moment(clock_s, used.cpu_ns, used.cpu_ns / max(1e-3, now - started_at))
        seen[key] = moment
        return Figures(
            time=now,
            started_at=started_at,
            cpu_ns=used.cpu_ns,
            nano_cores=round(moment.rate),
            usage_bytes=used.working_set_bytes if usage_bytes is None else usage_bytes,
            working_set_bytes=used.working_set_bytes,
            rss_bytes=used.rss_bytes,
            page_faults=used.page_faults,
            major_page_faults=used.major_page_faults,
            processes=used.processes,
            limit_bytes=limit_bytes,
        )


def _limit(container: podspec.Json) -> int | None:
    try:
        return podspec.memory_limit(container)
    except podspec.Refused:
        return None  # such a container does not run


def _log_bytes(log: Path) -> int:
    total = 0
    for path in (log, *log.parent.glob(f"{log.name}.*")):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # rotated away meanwhile
    return total


def _text(families: list[Family]) -> web.Response:
    body = promtext.text(families).encode()
    return web.Response(body=body, headers={"Content-Type": promtext.CONTENT_TYPE})
