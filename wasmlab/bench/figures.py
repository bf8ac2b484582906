"""The headline figures: what ``make bench`` measures, with what else ran in the same minutes.

Everything is measured on one embedded cluster on this machine: client, control plane, node and guests share its cores,
so these are figures of the whole, not of a part that had a machine to itself. Controls (native processes) are started
between the pods, so that ratios can be compared where milliseconds cannot.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench import cpu, live, stats
from wasmlab.bench.api import Api, PodWatch
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.environment import Conditions, busy_share, fingerprint
from wasmlab.bench.flood import flood, remove
from wasmlab.bench.local import LocalExecutor
from wasmlab.bench.plan import CONTROLS, Arm, Plan
from wasmlab.bench.pods import PodExecutor, make_namespace
from wasmlab.bench.runner import Executor, carry_out
from wasmlab.bench.store import Results
from wasmlab.console import say, step
from wasmlab.errors import ClusterError, NotReady

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster

ENGINES = ("wasmtime", "wasmer")
# In workers that need no Python, which only wasmtime has: rows of its own, beside the two that can be compared.
RUNNER = "wasmtime-runner"
POD_ENGINES = (*ENGINES, RUNNER)


# A p99 of fewer is their maximum.
_ENOUGH_FOR_P99 = 200


@dataclass(frozen=True)
class Headline:
    """One figure of the table.

    Attributes
    ----------
    name : str
        What was measured.
    unit : str
        ``ms``, ``s``, ``MB``, ``GB``, ``%`` or ``1/s``.
    median, low, high : float
        Median and its 95 % bootstrap interval (all equal for a single value).
    p95 : float or None
        95th percentile, None for fewer than 20 values.
    n : int
        How many values.
    target : float or None
        What was aimed for.
    at_least : bool
        Whether more is better (rates).
    p95_target : float or None
        What was aimed for at the 95th percentile.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    p95: float | None
    n: int
    target: float | None = None
    at_least: bool = False
    p95_target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        good = self.median >= self.target if self.at_least else self.median <= self.target
        if self.p95_target is not None and self.p95 is not None:
            good = good and self.p95 <= self.p95_target
        return good


def headline(
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    target: float | None = None,
    at_least: bool = False,
    p95_target: float | None = None,
) -> Headline:
    """Summarize `values` into one figure."""
    middle = stats.median(values)
    p95 = stats.quantile(values, 0.95).value if middle.n >= 20 else None
    return Headline(
        name, unit, middle.value, middle.low, middle.high, p95, middle.n, target, at_least, p95_target
    )


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults are those of the README's figures."""

    starts: int = 3
    pods: int = 300
    burst: int = 1000
    idle_pods: int = 50
    live_pods: int = 1000
    seed: int = 1
    settle_s: float = 5.0

    @classmethod
    def quick(cls) -> Sizes:
        """A minute's worth, to see that everything works."""
        return cls(starts=1, pods=10, burst=50, idle_pods=10, live_pods=20, settle_s=1.0)


def measure(out: Path, sizes: Sizes | None = None, *, quiet: bool = False) -> Results:
    """Measure everything and write ``<out>/figures.parquet`` and ``.json``.

    Parameters
    ----------
    out : Path
        Directory of the results.
    sizes : Sizes, optional
        How much.

    Returns
    -------
    Results
        Rows of pods, local runs and controls; ``extra`` holds ``headlines``, ``samples`` and ``burst``. If interrupted,
        what was measured so far.

    Raises
    ------
    WasmlabError
        If something cannot be measured; what was measured before is written first.
    """
    sizes = sizes or Sizes()
    busy = busy_share()
    before = Conditions.read()
    results = Results(environment=fingerprint(), plan={"sizes": asdict(sizes), "interrupted": False})
    failure: Exception | None = None
    samples: dict[str, list[float]] = {}
    results.extra = {"headlines": [], "samples": samples}
    try:
        with contextlib.ExitStack() as stack:
            cluster = _starts(sizes, samples, stack, quiet)
            results.environment = fingerprint(kubernetes=_version(cluster))
            _on_cluster(cluster, sizes, results, samples, quiet)
    except KeyboardInterrupt:
        results.plan["interrupted"] = True
        say("interrupted: what was measured so far is kept")
    except Exception as error:
        if not samples and not results.rows:
            raise
        results.extra["error"] = f"{type(error).__name__}: {getattr(error, 'message', error)}"
        failure = error
    lines = headlines(results, samples)
    results.extra["headlines"] = [asdict(line) | {"met": line.met} for line in lines]
    # The whole first: it says when this began, and how busy the machine was before.
    results.conditions.insert(0, before.until(Conditions.read()) | {"busy_share_before": busy})
    for row in results.rows:
        row["fingerprint"] = results.environment["id"]
    path = results.save(Path(out) / "figures.parquet")
    if failure is not None:
        say(f"what was measured before it failed is in {path}")
        raise failure
    return results


def _starts(
    sizes: Sizes, samples: dict[str, list[float]], stack: contextlib.ExitStack, quiet: bool
) -> Cluster:
    """Start the cluster several times, timing it; return the last one, with its node."""
    from wasmlab.cluster import Cluster, binary
    from wasmlab.engines import wasmtime_runner

    binary.ensure()
    wasmtime_runner.build()
    for number in range(sizes.starts):
        last = number + 1 == sizes.starts
        with step(f"Start a control plane and a node ({number + 1} of {sizes.starts})", quiet=quiet):
            began = time.monotonic()
            cluster = Cluster.embedded(node=False)
            try:
                samples.setdefault("control plane ready", []).append(time.monotonic() - began)
                samples.setdefault("first pod bound", []).append(_first_bound(cluster, began))
                began = time.monotonic()
                # A burst must not wait for room: by default a node, like a kubelet, takes 110 pods at a time.
                room = max(110, sizes.burst, sizes.live_pods) + sizes.idle_pods
                cluster.add_node("wasm-node", args=("--max-pods", str(room)))
                samples.setdefault("node joined", []).append(time.monotonic() - began)
            except BaseException:
                cluster.stop()
                raise
            if last:
                stack.callback(cluster.stop)
            else:
                cluster.stop()
    return cluster


def _first_bound(cluster: Cluster, began: float) -> float:
    """Put a stand-in Node up and return when a pod was bound to it, in seconds since `began`."""
    api = Api(cluster.kubeconfig)
    room = {"cpu": "1", "memory": "1Gi", "pods": "10"}
    api.must(
        "POST",
        "/api/v1/nodes",
        {
            "metadata": {"name": "stand-in"},
            "status": {
                "capacity": room,
                "allocatable": room,
                "conditions": [{"type": "Ready", "status": "True", "reason": "StandIn"}],
            },
        },
    )
    pod = {
        "metadata": {"name": "first"},
        "spec": {
            "containers": [{"name": "first", "image": "stand-in"}],
            "nodeSelector": {},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
        },
    }
    deadline = time.monotonic() + 60
    try:
        with PodWatch(api, "default") as watch:
            while True:
                status, data = api.request("POST", "/api/v1/namespaces/default/pods", pod)
                if status == 201:
                    break
                # 403 until the namespace has its default service account.
                if status != 403 or time.monotonic() > deadline:
                    raise ClusterError(
                        f"the first pod was refused: {status} {data[:200].decode(errors='replace')}"
                    )
                time.sleep(0.01)
            if not watch.wait(lambda: "scheduled" in watch.seen.get("first", {}), 60):
                raise NotReady("the first pod was not bound within 60 s", events=[])
            return watch.seen["first"]["scheduled"] * 1e-9 - began
    finally:
        api.request("DELETE", "/api/v1/namespaces/default/pods/first?gracePeriodSeconds=0")
        api.request("DELETE", "/api/v1/nodes/stand-in")
        api.close()


def _on_cluster(
    cluster: Cluster, sizes: Sizes, results: Results, samples: dict[str, list[float]], quiet: bool
) -> None:
    node = cluster.nodes["wasm-node"]
    with PodExecutor(cluster, node.dir) as pods, LocalExecutor() as local:
        with step("Let it settle, and measure control plane and agent at rest", quiet=quiet):
            from wasmlab.modules import workloads

            for engine in POD_ENGINES:
                pods.prepare(engine, workloads.get("hello"))
            time.sleep(sizes.settle_s)
            samples["control plane memory"] = [cluster.stats()["rss_bytes"] / 1e6]
            if node.process is not None:
                live.agent_at_rest(node.process.pid, 2 * sizes.settle_s, samples)
        with step(
            f"Run {sizes.pods} pods per engine, one after the other, with controls between", quiet=quiet
        ):
            arms = [
                Arm(path, engine, "warm", "hello") for path in ("node", "local") for engine in POD_ENGINES
            ]
            plan = Plan((*arms, *CONTROLS), sizes.pods, sizes.seed)
            executors: dict[str, Executor] = {"node": pods, "local": local, "control": ControlExecutor()}
            some = carry_out(plan, executors, results.environment, quiet=quiet)
            results.rows += some.rows
            results.plan |= some.plan
            results.conditions += some.conditions
            if some.plan["interrupted"]:
                raise KeyboardInterrupt
        if sizes.idle_pods:
            with step(f"Start {sizes.idle_pods} pods that sleep, and measure their memory", quiet=quiet):
                live.idle_memory(
                    pods, node.dir, sizes.idle_pods, samples, agent=node.child.pid if node.child else None
                )
        if sizes.burst:
            for engine, key in (("wasmtime", "burst"), (RUNNER, "burst_runner")):
                with step(f"Write {sizes.burst:,} pods for {engine} as fast as possible", quiet=quiet):
                    results.extra[key] = burst(cluster, pods, sizes.burst, engine=engine)
        if sizes.live_pods:
            with step(f"Have {sizes.live_pods:,} pods alive that sleep, and start others", quiet=quiet):
                starts = min(sizes.pods, 50)
                results.extra["live_pods"] = live.live_pods(
                    cluster, pods, node, sizes.live_pods, starts, engine=RUNNER
                )


def burst(
    cluster: Cluster, pods: PodExecutor, count: int, *, engine: str = "wasmtime", writers: int = 4
) -> dict:
    """Write `count` hello pods over a few connections as fast as they are taken, and wait until all have ended.

    Returns
    -------
    dict
        ``count, succeeded, seconds`` (first write to last Succeeded), ``created_s`` and ``succeeded_s`` (sorted, in
        seconds since the first write), ``engine``, ``writers``, ``errors``, ``cpu_ms_per_pod`` (CPU milliseconds of the
        client, the control plane, the node agent and the sandboxes with their workers, divided by `count`).
    """
    from wasmlab.modules import workloads

    image = pods.prepare(engine, workloads.get("hello"))
    used_before = _cpu_seconds(cluster)
    api = Api(cluster.kubeconfig)
    namespace = f"{pods.namespace}-burst-{secrets.token_hex(2)}"
    make_namespace(api, namespace)
    bodies = []
    for _ in range(count):
        name, manifest = pods.pod(image, engine)
        manifest["metadata"]["namespace"] = namespace
        bodies.append((name, json.dumps(manifest).encode()))
    created: dict[str, int] = {}
    try:
        with PodWatch(api, namespace) as watch:
            deadline_s = 60 + count * 0.1
            flooded = flood(api, watch, namespace, bodies, writers=writers, timeout_s=deadline_s)
            created = {name: one.began_ns for name, one in flooded.written.items()}
            watch.wait(lambda: watch.ended >= len(created), timeout_s=deadline_s)
            phases = {name: pod["status"].get("phase") for name, pod in watch.last.items()}
            zero = min(created.values(), default=time.monotonic_ns())
            done = sorted(
                (watch.seen[name]["done"] - zero) * 1e-9
                for name in created
                if phases.get(name) == "Succeeded" and "done" in watch.seen[name]
            )
        used = {name: one - used_before[name] for name, one in _cpu_seconds(cluster).items()}
    finally:
        # Gone before something else is measured: a thousand deletions would be part of that.
        if not remove(api, namespace):
            say("some pods of the burst are still there")
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")
        api.close()
    return {
        "count": count,
        "succeeded": len(done),
        "seconds": done[-1] if done else None,
        "created_s": [round((at - zero) * 1e-9, 4) for at in sorted(created.values())],
        "succeeded_s": [round(at, 4) for at in done],
        "engine": engine,
        "writers": writers,
        "errors": flooded.errors[:5],
        "cpu_ms_per_pod": {name: round(one * 1e3 / count, 3) for name, one in used.items()},
    }


def _cpu_seconds(cluster: Cluster) -> dict[str, float]:
    """Return the CPU seconds used so far by each part of the lab."""
    from wasmlab.cluster import processes

    found = {"client": cpu.seconds(os.getpid()), "control plane": 0.0, "node agent": 0.0, "sandboxes": 0.0}
    if cluster.plane is not None and cluster.plane.pid is not None:
        found["control plane"] = cpu.seconds(cluster.plane.pid)
    for node in cluster.nodes.values():
        if node.process is not None:
            found["node agent"] += cpu.seconds(node.process.pid)
        # Not only the zygotes, whose children count once they were waited for: a template goes on.
        found["sandboxes"] += sum(cpu.seconds(one.pid) for one in processes.sandboxes_under(node.dir))
    return found


def headlines(results: Results, samples: dict[str, list[float]]) -> list[Headline]:
    """Return the table of figures out of rows and samples; what was not measured is left out."""
    found: list[Headline] = []

    def add(name: str, unit: str, values: Sequence[float] | None, **aims: Any) -> None:
        if values is not None and len(values):
            found.append(headline(name, unit, values, **aims))

    add("control plane ready", "s", samples.get("control plane ready"))
    add("first pod bound", "s", samples.get("first pod bound"))
    add("node joined", "s", samples.get("node joined"))
    if results.rows:
        frame = stats.arm_rows(results.frame)
        for engine in POD_ENGINES:
            own = frame[(frame["path"] == "node") & (frame["engine"] == engine)]
            add(f"pod written to module started, {engine}", "ms", _ms(own, "started_ns"))
            aims = {"target": 12.0} if engine == RUNNER else {"target": 25.0, "p95_target": 60.0}
            taken = _ms(own, "total_ns")
            add(f"pod written to Succeeded seen, {engine}", "ms", taken, **aims)
            if len(taken) >= _ENOUGH_FOR_P99:
                found.append(_p99(f"the slowest of 100 such pods (p99), {engine}", "ms", taken, 40.0))
        for engine in POD_ENGINES:
            own = frame[(frame["path"] == "local") & (frame["engine"] == engine)]
            add(f"first byte in a warm worker, {engine}", "ms", _ms(own, "first_byte_ns"), target=2.0)
        for name in ("true", "python"):
            own = frame[(frame["path"] == "control") & (frame["workload"] == name)]
            label = "native /bin/true" if name == "true" else "native python -c"
            add(f"control: {label}", "ms", _ms(own, "total_ns"))
    add("pod written to Running seen (a sleeping pod)", "ms", samples.get("pod Running"))
    for key, aim in (("burst", 100.0), ("burst_runner", 200.0)):
        found += _of_burst(results.extra.get(key), aim)
    add("private memory of an idle pod (USS)", "MB", samples.get("idle pod private"), target=5.0)
    add("proportional memory of an idle pod (PSS)", "MB", samples.get("idle pod proportional"))
    add("node's growth per idle pod (PSS, all its processes)", "MB", samples.get("node memory per idle pod"))
    found += _of_live_pods(results.extra.get("live_pods"))
    add("control plane at idle (RSS)", "MB", samples.get("control plane memory"), target=400.0)
    add("node agent at idle (RSS)", "MB", samples.get("agent's memory"), target=80.0)
    add("node agent at idle, share of a core", "%", samples.get("agent's share of a core"), target=1.0)
    return found


def _p99(name: str, unit: str, values: Sequence[float], target: float) -> Headline:
    one = stats.quantile(values, 0.99)
    return Headline(name, unit, one.value, one.low, one.high, None, one.n, target)


def _of_burst(one: dict[str, Any] | None, aim: float) -> list[Headline]:
    """One burst is one value: an interval would be a fiction."""
    if not one or not one["seconds"]:
        return []
    rate = one["succeeded"] / one["seconds"]
    engine = one["engine"]
    name = f"burst of {one['count']:,} pods, {one['succeeded']:,} Succeeded, {engine}"
    found = [Headline(name, "1/s", rate, rate, rate, None, 1, target=aim, at_least=True)]
    if one.get("cpu_ms_per_pod"):
        total = sum(one["cpu_ms_per_pod"].values())
        name = f"CPU time per pod of the burst, all parts, {engine}"
        found.append(Headline(name, "ms", total, total, total, None, 1))
    return found


def _of_live_pods(one: dict[str, Any] | None) -> list[Headline]:
    if not one:
        return []
    engine = one["engine"]
    what = f"{one['alive']:,} live idle pods"
    of_node = one["node_pss_bytes"] / 1e9
    of_all = of_node + one["plane_pss_bytes"] / 1e9
    private = [size / 1e6 for size in one["private_bytes"]]
    return [
        headline(f"private memory of an idle pod (USS), {engine}", "MB", private, target=5.0),
        Headline(f"node with {what} (PSS), {engine}", "GB", of_node, of_node, of_node, None, 1),
        Headline(
            f"node and control plane with {what} (PSS)", "GB", of_all, of_all, of_all, None, 1, target=3.0
        ),
        headline(
            f"pod written to Succeeded seen beside {what}, {engine}", "ms", one["starts_ms"], target=20.0
        ),
    ]


def _ms(frame: Any, column: str) -> list[float]:
    return [float(value) * 1e-6 for value in frame[column].dropna()]


def _version(cluster: Cluster) -> str | None:
    versions = (cluster.status().get("versions") or {}) if cluster.state is not None else {}
    return versions.get("kubernetes")
