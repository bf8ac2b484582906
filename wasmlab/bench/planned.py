"""Set up what a plan needs (a cluster, a node, a container node), carry it out, and take all of it down again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench import runner
from wasmlab.bench.environment import busy_share, fingerprint
from wasmlab.bench.plan import RUNC, Plan
from wasmlab.bench.store import Results
from wasmlab.console import step

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster


def read(path: Path) -> Plan:
    """Read a plan file (`wasmlab.bench.planfile`), and see that its engines and workloads exist.

    Raises
    ------
    BenchmarkError
        If it cannot be read, is no plan, or names a workload that does not exist.
    WasmlabError
        If it names an engine that does not exist.
    """
    from wasmlab import engines
    from wasmlab.bench import planfile
    from wasmlab.errors import BenchmarkError
    from wasmlab.modules import workloads

    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"cannot read the plan {path}: {error}", remedy="give a YAML file") from None
    plan = planfile.from_yaml(text, workloads.get)
    for arm in plan.arms:
        if arm.path != "control":
            workloads.get(arm.workload)
            if arm.engine != RUNC:
                engines.get(arm.engine)
    return plan


def measure(plan: Plan, *, lab: Path | None = None, containerd: str = "debian") -> Results:
    """Carry out a plan.

    Parameters
    ----------
    plan : Plan
        On any paths.
    lab : Path, optional
        Use the lab that `wasmlab up --dir` started there, and leave it running. By default a control plane is started
        if the plan needs one.
    containerd : str
        Which containerd the path of that name uses.

    Returns
    -------
    Results
        See `wasmlab.bench.runner.carry_out`.
    """
    # Before anything of ours runs: what is busy now is somebody else.
    busy = busy_share()
    paths = {arm.path for arm in plan.arms}
    with contextlib.ExitStack() as stack:
        cluster = None
        if paths & {"node", "containerd"}:
            cluster = stack.enter_context(_cluster(lab, node="node" in paths))
        version = (cluster.status().get("versions") or {}).get("kubernetes") if cluster else None
        facts = fingerprint(kubernetes=version)
        executors = stack.enter_context(runner.stack_of(dict(_executors(paths, cluster, containerd, stack))))
        if "containerd" in executors:
            executors["containerd"].prepare([arm for arm in plan.arms if arm.path == "containerd"])
        return runner.carry_out(plan, executors, facts, busy_before=busy)


def _executors(
    paths: set[str], cluster: Cluster | None, containerd: str, stack: contextlib.ExitStack
) -> Iterator[tuple[str, Any]]:
    if "local" in paths:
        from wasmlab.bench.local import LocalExecutor

        yield "local", LocalExecutor()
    if "control" in paths:
        from wasmlab.bench.control import ControlExecutor

        yield "control", ControlExecutor()
    if cluster is not None and "node" in paths:
        from wasmlab.bench.pods import PodExecutor

        # The node's own spans are in files: only an agent on this machine can be measured in full.
        handle = next(iter(cluster.nodes.values()), None)
        yield "node", PodExecutor(cluster, handle.dir if handle else None)
    if cluster is not None and "containerd" in paths:
        from wasmlab.bench.containerd_pods import ContainerdPodExecutor
        from wasmlab.containerd import ContainerdNode

        with step("Start a container node"):
            node = stack.enter_context(ContainerdNode(cluster, containerd=containerd))
        yield "containerd", ContainerdPodExecutor(cluster, node)


@contextlib.contextmanager
def _cluster(lab: Path | None, *, node: bool) -> Iterator[Cluster]:
    from wasmlab.cluster import Cluster

    if lab is not None:
        yield Cluster.attach(lab)
        return
    with step("Start a control plane and a node" if node else "Start a control plane"):
        cluster = Cluster.embedded(node=node)
    with cluster:
        yield cluster
