"""Scale experiments on WASM nodes: burst, density, concurrency (one module each).

On an embedded cluster by default; on somebody else's with its own scheduler and nodes, when one machine is not enough.

Each is carried out in blocks; a block holds every size once, in random order where there is a choice (a ramp of live
Pods has none). The rows go into the same store as every other measurement, ``scale.parquet``; cost curves with their
knees are in the JSON file beside it. In an embedded cluster client, control plane, node and guests share the machine's
cores, so these are figures of the whole. Nodes elsewhere cannot be looked into: memory is then not among the figures.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.bench import hosts
from wasmlab.bench.environment import Conditions, busy_share, fingerprint
from wasmlab.bench.noise import NoiseLog
from wasmlab.bench.pods import PodExecutor
from wasmlab.bench.scale_burst import burst
from wasmlab.bench.scale_concurrency import concurrency
from wasmlab.bench.scale_curves import curves
from wasmlab.bench.scale_density import density
from wasmlab.bench.scale_rows import Budget, Lab, Rows
from wasmlab.bench.store import Results
from wasmlab.console import say, step
from wasmlab.engines import names as known_engines
from wasmlab.errors import BenchmarkError
from wasmlab.modules import workloads

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster, NodeHandle

NAME = "scale"


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults are those of the recorded run.

    Attributes
    ----------
    engines : tuple of str
        On which.
    burst, density, concurrency : tuple of int
        Pods at once, live Pods, runs in flight; an empty one leaves the experiment out.
    blocks : int
        How often each size.
    probes : int
        Starts that are timed at every level of density.
    runs : int
        Runs at every level of concurrency.
    seed : int
        Orders the sizes.

    Raises
    ------
    BenchmarkError
        If there is nothing to measure, a size makes no sense, or nodes do not have an engine.
    """

    engines: tuple[str, ...] = ("wasmtime", "wasmer")
    burst: tuple[int, ...] = (10, 30, 100, 300, 1000)
    density: tuple[int, ...] = (0, 10, 25, 50, 100, 150, 200, 300)
    concurrency: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    blocks: int = 3
    probes: int = 5
    runs: int = 60
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.engines or self.blocks < 1 or not (self.burst or self.density or self.concurrency):
            raise BenchmarkError(
                "there is nothing to measure", remedy="give an engine, a block and a size at least"
            )
        if any(n < 1 for n in (*self.burst, *self.concurrency)) or any(n < 0 for n in self.density):
            raise BenchmarkError("bursts and runs in flight count from 1, live Pods from 0")
        if self.probes < 1 or self.runs < 1:
            raise BenchmarkError("probes and runs count from 1")
        unknown = sorted(set(self.engines) - set(known_engines()))
        if unknown:
            raise BenchmarkError(
                f"a node has no engine {unknown[0]!r}", remedy=f"choose from {', '.join(known_engines())}"
            )

    @classmethod
    def quick(cls, engines: Sequence[str] = ("wasmtime",)) -> Sizes:
        """Some twenty seconds' worth: what the notebook does by default."""
        return cls(
            engines=tuple(engines),
            burst=(5, 10, 20, 40, 80),
            density=(0, 5, 10, 20, 30),
            concurrency=(1, 2, 3, 4, 6, 8),
            blocks=2,
            probes=3,
            runs=24,
        )

    @property
    def most_pods(self) -> int:
        """How many Pods the node must take at a time."""
        return max(
            (*self.burst, *self.concurrency, *(level + self.probes for level in self.density), 110 - 10)
        ) + 10  # fmt: skip


def measure(
    out: Path | None,
    sizes: Sizes | None = None,
    *,
    budget_s: float | None = None,
    quiet: bool = False,
    kubeconfig: Path | str = "",
    context: str | None = None,
    registry: str = "",
) -> Results:
    """Start an embedded cluster, carry the experiments out on it, and write ``<out>/scale.parquet`` and ``.json``.

    Parameters
    ----------
    out : Path or None
        Directory of the results; None writes nothing.
    sizes : Sizes, optional
        How much.
    budget_s : float, optional
        What does not fit into so many seconds is left out; ``plan["left_out"]`` says what.
    kubeconfig, context : str, optional
        Carry them out on this cluster instead: on its Ready WASM nodes, or if it has none on one that joins from here.
        Everything of it is removed at the end.
    registry : str
        ``host:port`` from which its nodes pull; without it only a node that joins from here can.

    Returns
    -------
    Results
        ``extra["curves"]`` has the fitted curves. If interrupted by Ctrl-C: what was measured so far.

    Raises
    ------
    WasmlabError
        If the cluster does not start, or something breaks; what was measured before is written first.
    """
    from wasmlab.cluster import Cluster

    sizes = sizes or Sizes()
    budget = Budget(budget_s)
    busy = busy_share(0.5)
    args = ("--max-pods", str(sizes.most_pods))
    with ExitStack() as stack:
        node: NodeHandle | None
        if kubeconfig:
            cluster = stack.enter_context(Cluster.from_kubeconfig(kubeconfig, context, registry))
            node = _own_node(cluster, args, registry, quiet)
        else:
            with step("Start a control plane and a node", quiet=quiet):
                cluster = stack.enter_context(Cluster.embedded(node_args=args))
            node = next(iter(cluster.nodes.values()))
        return measure_on(cluster, node, sizes, out=out, budget=budget, busy_before=busy, quiet=quiet)


def measure_on(
    cluster: Cluster,
    node: NodeHandle | None,
    sizes: Sizes,
    *,
    out: Path | None = None,
    budget: Budget | None = None,
    busy_before: float | None = None,
    quiet: bool = False,
) -> Results:
    """Carry the experiments out on a cluster that runs. See `measure`.

    Parameters
    ----------
    node : NodeHandle or None
        The node if it runs on this machine; it takes ``sizes.most_pods``. None: the cluster's own nodes.
    """
    before = Conditions.read()
    facts = fingerprint(kubernetes=cluster.rest.get("/version")["gitVersion"])
    results = Results(environment=facts)
    results.plan = {"scale": asdict(sizes), "seed": sizes.seed, "interrupted": False}
    if cluster.guest is not None:
        results.plan["own_cluster"] = {
            "wasm_nodes": len(hosts.wasm_nodes(cluster)),
            "node_joined_here": bool(node),
        }
    rows, budget, noise = Rows(facts["id"]), budget or Budget(), NoiseLog()
    results.rows = rows.rows
    failure: Exception | None = None
    try:
        with PodExecutor(cluster, node.dir if node else None) as pods:
            lab = Lab(cluster, node, pods, rows, budget)
            for title, block, act in _blocks(lab, sizes):
                with step(title, quiet=quiet):
                    start = Conditions.read()
                    act()
                if block is not None:
                    noise.add(block, start, Conditions.read())
    except KeyboardInterrupt:
        results.plan["interrupted"] = True
        say("interrupted: what was measured so far is kept")
    except Exception as error:
        if not rows.rows:
            raise
        failure = error
        results.extra["error"] = f"{type(error).__name__}: {getattr(error, 'message', error)}"
    results.plan["left_out"] = budget.left_out
    results.conditions = [
        before.until(Conditions.read())
        | {"busy_share_before": busy_before, "session": rows.session, "blocks": noise.columns}
    ]
    results.extra["curves"] = {name: one.as_dict() for name, one in curves(results.frame).items()}
    if out is not None:
        path = results.save(Path(out) / f"{NAME}.parquet")
        if failure is not None:
            say(f"what was measured before it failed is in {path}")
    if failure is not None:
        raise failure
    return results


def _blocks(lab: Lab, sizes: Sizes) -> Iterator[tuple[str, int | None, Callable[[], None]]]:
    """Yield a title, the block's number, and what to do, block by block; the warm-up, which is none, first."""
    dice = random.Random(sizes.seed)
    yield "Let the node pull and compile", None, partial(_warm_up, lab, sizes)
    number = itertools.count()
    for repetition in range(sizes.blocks):
        of = f"block {repetition + 1} of {sizes.blocks}"
        for engine in sizes.engines if sizes.burst else ():
            block = next(number)
            title = f"{_listed(sizes.burst)} Pods at once, {engine} ({of})"
            yield title, block, partial(burst, lab, engine, sizes.burst, block, dice)
        for engine in sizes.engines if sizes.density else ():
            block = next(number)
            title = f"{_listed(sizes.density)} live Pods, {engine} ({of})"
            yield title, block, partial(density, lab, engine, sizes.density, sizes.probes, block)
        if sizes.concurrency:
            block = next(number)
            title = f"{_listed(sizes.concurrency)} runs in flight ({of})"
            levels = sizes.concurrency
            yield title, block, partial(concurrency, lab, sizes.engines, levels, sizes.runs, block, dice)


def _own_node(cluster: Cluster, args: tuple[str, ...], registry: str, quiet: bool) -> NodeHandle | None:
    """Join a node from here if the cluster has no WASM node, or none that could pull; None if it has."""
    if hosts.wasm_nodes(cluster):
        if registry:
            return None
        raise BenchmarkError(
            "the cluster has WASM nodes, and no registry is given that they can pull from",
            remedy="--registry HOST:PORT",
        )
    with step("Join a node from this machine: the cluster has none", quiet=quiet):
        return cluster.add_node(hosts.NAME, args=args)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{one:,}" for one in sorted(sizes))


def _warm_up(lab: Lab, sizes: Sizes) -> None:
    from wasmlab.modules.files import fixture

    image = lab.pods.image(fixture("sleep"), "sleep")
    for engine in sizes.engines:
        lab.pods.prepare(engine, workloads.get("hello"))
        name, manifest = lab.pods.pod(image, engine, ("0.01",))
        lab.pods.create(manifest)
        lab.pods.watch.wait_done(name, 120.0)
    lab.clear()
