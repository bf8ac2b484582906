"""The recorded run of both paths, for machines without root or containerd: ``data/recorded/paths.parquet``.

It holds what notebooks 06 to 08 draw, measured in one interleaved run on one machine: starts in the sandbox, as Pods
of a WASM node, and as Pods of a container node (both engines and runc); and the execution of kernels beside native code
under runc. ``python -m wasmlab.bench.record_paths`` measures it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wasmlab.bench import runner
from wasmlab.bench.containerd_pods import RUNC, ContainerdPodExecutor
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.environment import busy_share, fingerprint
from wasmlab.bench.local import LocalExecutor, feasible
from wasmlab.bench.plan import CONTROLS, Arm, Plan, cross
from wasmlab.bench.pods import PodExecutor
from wasmlab.bench.store import Results, pool
from wasmlab.modules import workloads

ENGINES = ("wasmtime", "wasmer")
MODES = ("cold", "cached", "warm")
# Beside native code under runc; the sandbox runs the whole catalogue.
KERNELS = ("sha256", "nbody", "churn", "sort", "print")
PROGRAMS = ("boolector", "boolector/factor", "python")
# A Pod of a container node takes two seconds, most of them the kubelet's.
EVERY = {"containerd": 2}


def starts(engines: tuple[str, ...] = ENGINES, workload: str = "hello") -> tuple[Arm, ...]:
    """Return the arms of a comparison of starts on all paths, with runc and native controls."""
    return (
        *(Arm(path, engine, mode, workload) for path in ("local", "node") for engine in engines for mode in MODES),
        *containers(engines, ("cold", "cached"), (workload,)),
        *CONTROLS,
    )  # fmt: skip


def containers(engines: tuple[str, ...], modes: tuple[str, ...], names: tuple[str, ...]) -> tuple[Arm, ...]:
    """Return the arms of a container node: engines and runc."""
    return tuple(
        Arm("containerd", engine, mode, name)
        for name in names
        for engine in (*engines, RUNC)
        for mode in modes
    )


def record(out: Path, *, repeats: int = 30, seed: int = 1, quiet: bool = False) -> Results:
    """Measure and write ``<out>/paths.parquet`` and ``.json``. Needs root, containerd and runc.

    Raises
    ------
    PrerequisiteError
        If no container node can run here.
    """
    from wasmlab.cluster import Cluster
    from wasmlab.containerd import ContainerdNode

    works = [*workloads.ordinary(), *map(workloads.get, PROGRAMS)]
    warm, _ = feasible(cross(("local",), ENGINES, ("warm",), works, controls=False))
    plans = [
        Plan(starts(), repeats, seed, EVERY),
        Plan((*warm, *containers(ENGINES, ("cached",), KERNELS)), repeats, seed + 1, {"containerd": 4}),
    ]
    found = []
    busy = busy_share()
    with Cluster.embedded() as cluster, ContainerdNode(cluster) as container_node:
        facts = fingerprint(kubernetes=(cluster.status().get("versions") or {}).get("kubernetes"))
        node = next(iter(cluster.nodes.values()))
        paths = {
            "local": LocalExecutor(),
            "node": PodExecutor(cluster, node.dir),
            "containerd": ContainerdPodExecutor(cluster, container_node),
            "control": ControlExecutor(),
        }
        with runner.stack_of(paths) as executors:
            for plan in plans:
                found.append(runner.carry_out(plan, executors, facts, quiet=quiet, busy_before=busy))
                if found[-1].plan["interrupted"]:
                    break
    results = pool(found)
    results.save(Path(out) / "paths.parquet")
    return results


if __name__ == "__main__":
    record(Path(sys.argv[1] if len(sys.argv) > 1 else "data/recorded"))
