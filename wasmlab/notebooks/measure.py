"""What the measuring notebooks share: carry out a plan on the paths it names, or fetch what was measured before."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks import kit

if TYPE_CHECKING:
    from wasmlab.bench.plan import Plan
    from wasmlab.bench.scale import Sizes
    from wasmlab.bench.store import Results
    from wasmlab.cluster import Cluster
    from wasmlab.containerd import ContainerdNode

SOURCES = ("live", "recorded")
_NODE = "wasm-bench"


def results(name: str, source: str, plan: Plan, *, kubeconfig: str = "", registry: str = "") -> Results:
    """Measure and keep the result, or show the recorded run.

    Where no container node can run (`skipped` says why), the arms of the path ``containerd`` are left out; `both_paths`
    then has them from the recorded run.

    Parameters
    ----------
    name : str
        The result is kept as ``results/<name>.parquet`` in the report directory.
    source : {"live", "recorded"}
        Measure now, or load the run that came with the repository.
    plan : Plan
        What to measure. A recorded run is cut down to its arms, as far as it has them.
    kubeconfig, registry : str
        The cluster for the path ``node``; empty starts an embedded one.

    Raises
    ------
    NotebookError
        If `source` is neither.
    """
    if _known(source) == "recorded":
        paths = {arm.path for arm in plan.arms}
        return _recorded(plan, "paths" if "containerd" in paths else "bench")
    from wasmlab.bench import environment, runner

    # A container node needs a cluster on this machine: its API server asks the kubelet for logs.
    if kubeconfig or skipped():
        plan = dataclasses.replace(plan, arms=tuple(arm for arm in plan.arms if arm.path != "containerd"))
    busy = environment.busy_share()
    with contextlib.ExitStack() as stack:
        paths = {arm.path for arm in plan.arms}
        cluster = None
        if paths & {"node", "containerd"}:
            cluster = stack.enter_context(kit.cluster(kubeconfig, registry))
        facts = environment.fingerprint(kubernetes=kit.kubernetes_version(cluster) if cluster else None)
        executors = stack.enter_context(runner.stack_of(_executors(paths, cluster, stack)))
        if "containerd" in executors:
            executors["containerd"].prepare(arm for arm in plan.arms if arm.path == "containerd")
        # Quiet: a notebook is no terminal, and its outputs are kept.
        measured = runner.carry_out(plan, executors, facts, quiet=True, busy_before=busy)
    if measured.plan["interrupted"]:
        raise KeyboardInterrupt
    measured.save(kit.reports("results") / f"{name}.parquet")
    return measured


def scale(
    name: str,
    source: str,
    sizes: Sizes,
    *,
    budget_s: float | None = None,
    kubeconfig: str = "",
    registry: str = "",
) -> Results:
    """Carry out scale experiments and keep the result, or show the recorded run.

    Parameters
    ----------
    name : str
        The result is kept as ``results/<name>.parquet`` in the report directory.
    source : {"live", "recorded"}
        Measure now, or load the run that came with the repository (all of it, whatever the sizes).
    sizes : Sizes
        How much.
    budget_s : float, optional
        What does not fit into so many seconds is left out.
    kubeconfig, registry : str
        The cluster; empty starts an embedded one.
    """
    if not live(source):
        return _recorded(None, "scale")
    from wasmlab.bench import scale as scaling

    measured = scaling.measure(
        None, sizes, budget_s=budget_s, quiet=True, kubeconfig=kubeconfig, registry=registry
    )
    if measured.plan["interrupted"]:
        raise KeyboardInterrupt
    measured.save(kit.reports("results") / f"{name}.parquet")
    return measured


def gathered(name: str, source: str) -> Results:
    """Return what notebook `name` measured, else the recorded run.

    Raises
    ------
    NotebookError
        If `source` is neither "live" nor "recorded".
    """
    from wasmlab.bench.store import Results

    path = kit.reports("results") / f"{name}.parquet"
    if _known(source) == "live" and path.exists():
        return Results.load(path)
    return _recorded(None)


def live(source: str) -> bool:
    """Return whether a notebook carries things out: True for ``"live"``, False for ``"recorded"``.

    Raises
    ------
    NotebookError
        If `source` is neither.
    """
    return _known(source) == "live"


def pods_of(cluster: Cluster, node: ContainerdNode, plan: Plan) -> Results:
    """Carry out a plan of Pods on a container node that runs; nothing is kept."""
    from wasmlab.bench import environment, runner
    from wasmlab.bench.containerd_pods import ContainerdPodExecutor

    facts = environment.fingerprint(kubernetes=kit.kubernetes_version(cluster))
    with runner.stack_of({"containerd": ContainerdPodExecutor(cluster, node)}) as executors:
        executors["containerd"].prepare(plan.arms)
        return runner.carry_out(plan, executors, facts, quiet=True)


def skipped() -> str:
    """Say why path 2 cannot be measured here; empty if it can."""
    from wasmlab.containerd import missing

    return missing()


def both_paths(measured: Results | None, plan: Plan | None = None) -> Results:
    """Return results that have Pods of path 2: these, or the recorded ones if it was not measured.

    Times of two machines are never put beside each other, so it is all from one or all from the other.
    """
    if measured is not None and any(row["path"] == "containerd" for row in measured.rows):
        return measured
    return _recorded(plan, "paths")


def _known(source: str) -> str:
    if source not in SOURCES:
        raise NotebookError(f"there is no source {source!r}", remedy=f"one of: {', '.join(SOURCES)}")
    return source


def _recorded(plan: Plan | None, name: str = "bench") -> Results:
    from wasmlab.bench.store import load_recorded

    found = load_recorded(name)
    if plan is not None:
        arms = {tuple(arm) for arm in plan.arms}
        keys = ("path", "engine", "mode", "workload")
        found.rows = [row for row in found.rows if tuple(row[key] for key in keys) in arms]
    return found


def _executors(paths: set[str], cluster: Cluster | None, stack: contextlib.ExitStack) -> dict[str, Any]:
    from wasmlab.bench.control import ControlExecutor
    from wasmlab.bench.local import LocalExecutor

    executors: dict[str, Any] = {}
    if "local" in paths:
        executors["local"] = LocalExecutor()
    if "control" in paths:
        executors["control"] = ControlExecutor()
    if cluster is not None and "node" in paths:
        from wasmlab.bench.pods import PodExecutor

        # The node's own spans are in files: only an agent on this machine can be measured in full.
        node = cluster.add_node(_NODE)
        stack.callback(kit.remove_node, cluster, node)
        executors["node"] = PodExecutor(cluster, node.dir)
    if cluster is not None and "containerd" in paths:
        from wasmlab.bench.containerd_pods import ContainerdPodExecutor
        from wasmlab.containerd import ContainerdNode

        container_node = stack.enter_context(ContainerdNode(cluster))
        executors["containerd"] = ContainerdPodExecutor(cluster, container_node)
    return executors
