"""What notebooks 07 to 09 share: carry out a plan on the paths that it names, or fetch what was measured before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks import kit

if TYPE_CHECKING:
    from wasmlab.bench.plan import Plan
    from wasmlab.bench.store import Results
    from wasmlab.cluster import Cluster

SOURCES = ("live", "recorded")
_NODE = "wasm-bench"


def results(name: str, source: str, plan: Plan, *, kubeconfig: str = "", registry: str = "") -> Results:
    """Measure and keep the result, or show the recorded run.

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
        return _recorded(plan)
    from wasmlab.bench import environment, runner

    with contextlib.ExitStack() as stack:
        paths = {arm.path for arm in plan.arms}
        cluster = stack.enter_context(_cluster(kubeconfig, registry)) if "node" in paths else None
        facts = environment.fingerprint(kubernetes=kit.kubernetes_version(cluster[0]) if cluster else None)
        executors = stack.enter_context(runner.stack_of(_executors(paths, cluster)))
        # Quiet: a notebook is no terminal, and its outputs are kept.
        measured = runner.carry_out(plan, executors, facts, quiet=True)
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


def _known(source: str) -> str:
    if source not in SOURCES:
        raise NotebookError(f"there is no source {source!r}", remedy=f"one of: {', '.join(SOURCES)}")
    return source


def _recorded(plan: Plan | None) -> Results:
    from wasmlab.bench.store import load_recorded

    found = load_recorded()
    if plan is not None:
        arms = {tuple(arm) for arm in plan.arms}
        keys = ("path", "engine", "mode", "workload")
        found.rows = [row for row in found.rows if tuple(row[key] for key in keys) in arms]
    return found


def _executors(paths: set[str], cluster: tuple[Cluster, Path] | None) -> dict[str, Any]:
    from wasmlab.bench.control import ControlExecutor
    from wasmlab.bench.local import LocalExecutor

    executors: dict[str, Any] = {}
    if "local" in paths:
        executors["local"] = LocalExecutor()
    if "control" in paths:
        executors["control"] = ControlExecutor()
    if cluster is not None:
        from wasmlab.bench.pods import PodExecutor

        executors["node"] = PodExecutor(*cluster)
    return executors


@contextlib.contextmanager
def _cluster(kubeconfig: str, registry: str) -> Iterator[tuple[Cluster, Path]]:
    """Give a cluster, and the directory of a node agent of ours in it."""
    from wasmlab.cluster import Cluster

    if kubeconfig:
        cluster = Cluster.from_kubeconfig(kubeconfig, registry=registry)
    else:
        cluster = Cluster.embedded(node=False)
    with cluster:
        # The node's own spans are in files: only an agent on this machine can be measured in full.
        node = cluster.add_node(_NODE)
        try:
            yield cluster, node.dir
        finally:
            kit.remove_node(cluster, node)
