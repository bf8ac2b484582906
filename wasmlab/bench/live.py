"""What a node costs at rest, and with many modules alive that do nothing."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench import cpu, memory
from wasmlab.bench.api import Api, PodWatch
from wasmlab.bench.flood import flood, remove
from wasmlab.bench.pods import PodExecutor, make_namespace
from wasmlab.console import say
from wasmlab.errors import NotReady

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster

_SLEEP = ("3600",)
_RUNNING_S = 60.0
# A machine that swaps measures its disk; and each live module has two threads, of a number that is the machine's.
_BYTES_PER_POD = 8 << 20
_SPARE_BYTES = 512 << 20
# What control plane and agent together take of a core when nothing is left to do is less than this.
_QUIET_SHARE, _SETTLE_S = 0.08, 90.0


def agent_at_rest(pid: int, seconds: float, samples: dict[str, list[float]]) -> None:
    """Note how much of a core the agent takes while nothing happens, in percent, and its resident memory in MB."""
    began, used = time.monotonic(), cpu.seconds(pid)
    time.sleep(seconds)
    samples["agent's share of a core"] = [(cpu.seconds(pid) - used) / (time.monotonic() - began) * 100]
    found = memory.of(pid)
    if found is not None:
        samples["agent's memory"] = [found.rss_bytes / 1e6]


def idle_memory(
    pods: PodExecutor,
    node_dir: Path,
    count: int,
    samples: dict[str, list[float]],
    *,
    agent: int | None = None,
    engine: str = "wasmtime",
) -> None:
    """Start pods that sleep; note when each was seen Running, and what each one's process takes.

    Fills ``pod Running`` (ms from the API write to a watch that sees Running), ``idle pod private`` and ``idle pod
    proportional`` (MB of each worker), and ``node memory per idle pod`` (MB by which agent, zygote and workers
    together grew, per pod).
    """
    from wasmlab.modules.files import fixture

    image = pods.image(fixture("sleep"), "sleep")

    # One first, so that pulling, compiling and growing once are not counted as fifty pods' memory.
    names = []
    before = memory.Memory()
    for number in range(count + 1):
        if number == 1:
            time.sleep(1.0)
            before = memory.of_node(node_dir, agent)
        name, manifest = pods.pod(image, engine, ("600",))
        began, _, _ = pods.create(manifest)
        if not pods.watch.wait(lambda name=name: "running" in pods.watch.seen.get(name, {}), 60):  # type: ignore[misc]
            raise NotReady(f"the sleeping pod {name} was not Running within 60 s", events=[])
        if number:
            samples.setdefault("pod Running", []).append((pods.watch.seen[name]["running"] - began) * 1e-6)
        names.append(name)
    time.sleep(2.0)
    after = memory.of_node(node_dir, agent)
    found = [one for pid in memory.running_workers(node_dir) if (one := memory.of(pid)) is not None]
    samples["idle pod private"] = [one.uss_bytes / 1e6 for one in found]
    samples["idle pod proportional"] = [one.pss_bytes / 1e6 for one in found]
    samples["node memory per idle pod"] = [(after.pss_bytes - before.pss_bytes) / 1e6 / count]
    for name in names:
        pods.api.request("DELETE", f"/api/v1/namespaces/{pods.namespace}/pods/{name}?gracePeriodSeconds=1")
    deadline = time.monotonic() + 60
    while memory.running_workers(node_dir) and time.monotonic() < deadline:
        time.sleep(0.1)


def live_pods(
    cluster: Cluster, pods: PodExecutor, node: Any, count: int, starts: int, *, engine: str
) -> dict[str, Any]:
    """Have `count` pods alive that sleep, measure the memory of everything, and start others beside them.

    Parameters
    ----------
    node : Node
        The cluster's only node; its agent must take so many pods at a time.
    starts : int
        How many hello pods are run, one after the other, while the others are alive.

    Returns
    -------
    dict
        ``engine, count, alive`` (modules whose process was there at the end), ``node_pss_bytes`` (agent, zygotes, all
        modules), ``plane_pss_bytes``, ``private_bytes`` (of each module's process), ``starts_ms`` (API write to
        Succeeded seen). Empty if the machine has no room for them.

    Raises
    ------
    NotReady
        If not all of them came to run.
    """
    from wasmlab.modules import workloads
    from wasmlab.modules.files import fixture

    if why := _no_room(count):
        say(f"{count:,} live pods are left out: {why}")
        return {}
    image = pods.image(fixture("sleep"), "sleep")
    hello = pods.prepare(engine, workloads.get("hello"))
    api = Api(cluster.kubeconfig)
    namespace = f"{pods.namespace}-live-{secrets.token_hex(2)}"
    make_namespace(api, namespace)
    agent = node.process.pid if node.process is not None else None
    try:
        with PodWatch(api, namespace) as watch:
            written = flood(
                api, watch, namespace, [_body(pods, image, engine, namespace) for _ in range(count)]
            )
            names = written.written

            def running() -> bool:
                return all("running" in watch.seen.get(name, {}) for name in names)

            if len(names) < count or not watch.wait(running, _RUNNING_S + 0.2 * count):
                up = sum("running" in watch.seen.get(name, {}) for name in names)
                raise NotReady(f"of {count:,} sleeping pods {up:,} are Running", events=written.errors[:5])
            _settle(cluster, agent)
            found = [one for pid in memory.running_workers(node.dir) if (one := memory.of(pid)) is not None]
            own = memory.of_node(node.dir, agent)
            plane = memory.of(cluster.plane.pid) if cluster.plane is not None and cluster.plane.pid else None
            taken = []
            for _ in range(starts):
                name, manifest = pods.pod(hello, engine)
                began, _, _ = pods.create(manifest)
                taken.append((pods.watch.wait_done(name, _RUNNING_S)["done"] - began) * 1e-6)
            alive = len(memory.running_workers(node.dir))
        return {
            "engine": engine,
            "count": count,
            "alive": alive,
            "node_pss_bytes": own.pss_bytes,
            "plane_pss_bytes": plane.pss_bytes if plane is not None else 0,
            "private_bytes": [one.uss_bytes for one in found],
            "starts_ms": taken,
        }
    finally:
        if not remove(api, namespace):
            say("some of the live pods are still there")
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")
        api.close()


def _settle(cluster: Cluster, agent: int | None) -> None:
    """Wait until the events of so many starts are written: they are held back while pods start, and come after."""
    pids = [pid for pid in (agent, cluster.plane.pid if cluster.plane is not None else None) if pid]
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        used = sum(cpu.seconds(pid) for pid in pids)
        time.sleep(1.0)
        if sum(cpu.seconds(pid) for pid in pids) - used < _QUIET_SHARE:
            return


def _body(pods: PodExecutor, image: str, engine: str, namespace: str) -> tuple[str, bytes]:
    import json

    name, manifest = pods.pod(image, engine, _SLEEP)
    manifest["metadata"]["namespace"] = namespace
    return name, json.dumps(manifest).encode()


def _no_room(count: int) -> str:
    """Why this machine cannot hold so many; empty if it can."""
    from wasmlab.bench.scale_density import available_bytes

    free = available_bytes()
    if free is not None and free < count * _BYTES_PER_POD + _SPARE_BYTES:
        return f"the machine has {free >> 20:,} MiB to spare"
    with open("/proc/sys/kernel/pid_max") as file:
        pids = int(file.read())
    return f"the machine has room for {pids:,} threads" if pids < 4 * count else ""
