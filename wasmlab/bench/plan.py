"""What is to be measured, in which order. Pure, and the same for the same seed.

Design: randomized complete blocks. Every block holds each arm once, in an order of its own. A slow minute of the
machine then hits all arms alike, and no arm always follows the same neighbor.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wasmlab.errors import BenchmarkError

PATHS = ("local", "node", "containerd", "control")
MODES = ("cold", "cached", "warm")


class Arm(NamedTuple):
    """One combination that is measured repeatedly.

    Attributes
    ----------
    path : str
        ``local``, ``node``, ``containerd`` or ``control``.
    engine : str
        ``wasmtime``, ``wasmer``; ``runc`` on the path containerd, ``native`` for controls.
    mode : str
        ``cold``, ``cached``, ``warm`` (see `wasmlab.bench.local`, `wasmlab.bench.pods` and
        `wasmlab.bench.containerd_pods` for what they mean there); ``exec`` for controls.
    workload : str
        Name in `wasmlab.modules.workloads`, or of a control.
    """

    path: str
    engine: str
    mode: str
    workload: str

    def __str__(self) -> str:
        return "/".join(self)


CONTROLS = (Arm("control", "native", "exec", "true"), Arm("control", "native", "exec", "python"))


class PlannedRun(NamedTuple):
    """One run: `number` counts from 0 over the whole plan, `block` from 0."""

    number: int
    block: int
    arm: Arm


@dataclass(frozen=True)
class Plan:
    """Arms, how often, and the seed that orders them.

    Parameters
    ----------
    repeats : int
        The number of blocks.
    every : dict
        Path -> n: the arms of a slow path are only in every n-th block, from the first on.

    Raises
    ------
    BenchmarkError
        If there is nothing to run, or an arm occurs twice.
    """

    arms: tuple[Arm, ...]
    repeats: int
    seed: int = 1
    every: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.every.values()):
            raise BenchmarkError("`every` counts blocks from 1", remedy="give 1 or more")
        if not self.arms or self.repeats < 1:
            raise BenchmarkError("the plan is empty", remedy="choose at least one arm and one repetition")
        if len(set(self.arms)) != len(self.arms):
            twice = sorted({str(arm) for arm in self.arms if self.arms.count(arm) > 1})
            raise BenchmarkError(
                f"the plan names an arm twice: {', '.join(twice)}", remedy="name each arm once"
            )

    def __len__(self) -> int:
        return sum(-(-self.repeats // self.every.get(arm.path, 1)) for arm in self.arms)

    def runs(self) -> list[PlannedRun]:
        """Return all runs in the order in which they are carried out."""
        # One generator for the whole plan: block n is the same however many blocks follow it.
        dice = random.Random(self.seed)
        planned: list[PlannedRun] = []
        for block in range(self.repeats):
            order = list(self.arms)
            dice.shuffle(order)
            order = [arm for arm in order if block % self.every.get(arm.path, 1) == 0]
            planned += [PlannedRun(len(planned) + i, block, arm) for i, arm in enumerate(order)]
        return planned


def cross(
    paths: Iterable[str],
    engines: Iterable[str],
    modes: Iterable[str],
    workloads: Sequence,
    *,
    controls: bool = True,
) -> tuple[Arm, ...]:
    """Return every combination that can be run.

    Parameters
    ----------
    workloads : sequence of Workload
        Those that cannot run on a path (standard input on a node) or on an engine (components on wasmer) are left out
        there. The path containerd has no mode warm: each pod gets a shim of its own.
    controls : bool
        Add the native control arms.

    Raises
    ------
    BenchmarkError
        If a path or mode is unknown.
    """
    arms: list[Arm] = []
    engines, modes = tuple(engines), tuple(modes)
    for path in paths:
        if path not in PATHS:
            raise BenchmarkError(f"unknown path {path!r}", remedy=f"choose from {', '.join(PATHS)}")
        for mode in modes:
            if mode not in MODES:
                raise BenchmarkError(f"unknown mode {mode!r}", remedy=f"choose from {', '.join(MODES)}")
        arms += [
            Arm(path, engine, mode, work.name)
            for engine in engines
            for mode in modes
            for work in workloads
            # Whatever a WASM node can run, a container node can: neither gives a Pod standard input.
            if ("node" if path == "containerd" else path) in work.paths
            and engine in work.engines
            and not (path == "containerd" and mode == "warm")
        ]
    return (*arms, *(CONTROLS if controls else ()))
