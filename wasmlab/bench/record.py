"""The recorded run: everything that the notebooks draw, measured in one go on one machine.

Three measurements are pooled into one file: all start modes of hello on both paths with controls between; execution of
every kernel and program in warm workers; and, because compiling CPython takes ten seconds each time, a few cold starts
of the large programs.
"""

from __future__ import annotations

from pathlib import Path

from wasmlab.bench import runner
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.environment import busy_share, fingerprint
from wasmlab.bench.local import LocalExecutor, feasible
from wasmlab.bench.plan import CONTROLS, Arm, Plan, cross
from wasmlab.bench.pods import PodExecutor
from wasmlab.bench.store import Results, pool
from wasmlab.console import step
from wasmlab.modules import workloads

ENGINES = ("wasmtime", "wasmer")
MODES = ("cold", "cached", "warm")
PROGRAMS = ("boolector", "python")


def plans(repeats: int, large: int, seed: int) -> list[tuple[str, Plan]]:
    """Return what is measured, with a title each."""
    starts = [
        Arm(path, engine, mode, "hello") for path in ("local", "node") for engine in ENGINES for mode in MODES
    ]
    starts += [Arm("node", engine, "warm", work) for engine in ENGINES for work in ("sha256", "boolector")]
    works = [*workloads.ordinary(), *map(workloads.get, (*PROGRAMS, "boolector/factor"))]
    warm, _ = feasible(cross(("local",), ENGINES, ("warm",), works, controls=False))
    found = [
        ("starts, on both paths", Plan((*starts, *CONTROLS), repeats, seed)),
        ("execution of every workload", Plan((*warm, *CONTROLS), repeats, seed + 1)),
    ]
    if large:
        cold = tuple(
            Arm("local", engine, mode, work) for engine in ENGINES for mode in MODES[:2] for work in PROGRAMS
        )
        found.append(("starts of large programs", Plan((*cold, *CONTROLS), large, seed + 2)))
    return found


def record(out: Path, *, repeats: int = 30, large: int = 8, seed: int = 1, quiet: bool = False) -> Results:
    """Measure and write ``<out>/bench.parquet`` and ``.json``.

    Parameters
    ----------
    out : Path
        The directory.
    repeats : int
        Runs of every arm.
    large : int
        Cold and cached starts of the large programs; 0 leaves them out.

    Returns
    -------
    Results
        Everything measured; with ``plan["interrupted"]`` if Ctrl-C ended it.
    """
    from wasmlab.cluster import Cluster

    busy = busy_share()
    found: list[Results] = []
    with step("Start a control plane and a node", quiet=quiet):
        cluster = Cluster.embedded()
    with cluster:
        facts = fingerprint(kubernetes=(cluster.status().get("versions") or {}).get("kubernetes"))
        node = next(iter(cluster.nodes.values()))
        paths = {
            "local": LocalExecutor(),
            "node": PodExecutor(cluster, node.dir),
            "control": ControlExecutor(),
        }
        with runner.stack_of(paths) as executors:
            for title, plan in plans(repeats, large, seed):
                with step(f"Measure {title}", quiet=quiet):
                    found.append(runner.carry_out(plan, executors, facts, quiet=quiet, busy_before=busy))
                if found[-1].plan["interrupted"]:
                    break
    results = pool(found)
    results.save(Path(out) / "bench.parquet")
    return results
