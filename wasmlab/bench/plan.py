"""What is to be measured, in which order. Pure, and the same for the same seed.

Design: randomized complete blocks. Every block holds each arm `repetitions` times, in an order of its own. A slow
minute of the machine then hits all arms alike, and no arm always follows the same neighbor. Every block holds the
controls too: native processes, and runc where the plan walks the path ``containerd``.

References
----------
Fisher: The Design of Experiments, 1935 (blocks, randomization, repetition).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wasmlab.bench.stopping import Stopping
from wasmlab.bench.warmup import SETTLE
from wasmlab.errors import BenchmarkError

PATHS = ("local", "node", "containerd", "control")
RUNC = "runc"
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
    arms : tuple of Arm
        What is compared, controls included.
    repeats : int
        The number of blocks; the largest one if there is a rule for stopping.
    seed : int
        Orders the runs.
    every : dict
        Path -> n: the arms of a slow path are only in every n-th block, from the first on.
    repetitions : int
        How often every arm runs in a block.
    settings : dict
        What is held constant, by name.
    warmup : str or int
        ``settle`` for the rule of `wasmlab.bench.warmup`, or how many first blocks are marked as warm-up.
    stopping : Stopping, optional
        When to end early.

    Raises
    ------
    BenchmarkError
        If there is nothing to run, an arm occurs twice, or a control is not in every block.
    """

    arms: tuple[Arm, ...]
    repeats: int
    seed: int = 1
    every: dict[str, int] = field(default_factory=dict)
    repetitions: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    warmup: str | int = SETTLE
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.every.values()):
            raise BenchmarkError("`every` counts blocks from 1", remedy="give 1 or more")
        if self.every.get("control", 1) != 1:
            raise BenchmarkError(
                "the controls belong into every block", remedy="leave control out of `every`"
            )
        if not self.arms or self.repeats < 1 or self.repetitions < 1:
            raise BenchmarkError("the plan is empty", remedy="choose at least one arm and one repetition")
        if len(set(self.arms)) != len(self.arms):
            twice = sorted({str(arm) for arm in self.arms if self.arms.count(arm) > 1})
            raise BenchmarkError(
                f"the plan names an arm twice: {', '.join(twice)}", remedy="name each arm once"
            )
        if self.warmup != SETTLE and not (is_count(self.warmup) and int(self.warmup) < self.repeats):
            raise BenchmarkError(
                f"{self.warmup!r} is no warm-up for {self.repeats} blocks",
                remedy=f"give {SETTLE}, or a number of blocks that leaves some",
            )

    def __len__(self) -> int:
        blocks = (-(-self.repeats // self.every.get(arm.path, 1)) for arm in self.arms)
        return self.repetitions * sum(blocks)

    @property
    def blocks(self) -> int:
        """The number of blocks, as a plan file calls it."""
        return self.repeats

    @property
    def factors(self) -> dict[str, list[str]]:
        """The levels of each factor, without the controls: ``path``, ``engine``, ``mode``, ``workload``."""
        own = [arm for arm in self.arms if arm.path != "control"]
        return {name: list(dict.fromkeys(getattr(arm, name) for arm in own)) for name in Arm._fields}

    def runs(self) -> list[PlannedRun]:
        """Return all runs in the order in which they are carried out."""
        # One generator for the whole plan: block n is the same however many blocks follow it.
        dice = random.Random(self.seed)
        planned: list[PlannedRun] = []
        for block in range(self.repeats):
            order = list(self.arms) * self.repetitions
            dice.shuffle(order)
            order = [arm for arm in order if block % self.every.get(arm.path, 1) == 0]
            planned += [PlannedRun(len(planned) + i, block, arm) for i, arm in enumerate(order)]
        return planned

    def by_block(self) -> list[list[PlannedRun]]:
        """Return the same runs, one list per block; a block may be empty."""
        blocks: list[list[PlannedRun]] = [[] for _ in range(self.repeats)]
        for run in self.runs():
            blocks[run.block].append(run)
        return blocks

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as data, as it goes into the metadata of results and into a plan file."""
        return {
            "arms": [list(arm) for arm in self.arms],
            "factors": self.factors,
            "blocks": self.repeats,
            "repetitions": self.repetitions,
            "seed": self.seed,
            "every": dict(self.every),
            "settings": dict(self.settings),
            "warmup": self.warmup,
            "stopping": None if self.stopping is None else self.stopping.as_dict(),
        }


def is_count(value: Any) -> bool:
    """Whether a value from a file is a whole number from 0 on; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


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
        Add the control arms: native processes and, on the path containerd, runc.

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
        # The same workload, natively compiled, through the same kubelet and containerd.
        control = (RUNC,) if path == "containerd" and controls and RUNC not in engines else ()
        arms += [
            Arm(path, engine, mode, work.name)
            for engine in (*engines, *control)
            for mode in modes
            for work in workloads
            # Whatever a WASM node can run, a container node can: neither gives a Pod standard input.
            if ("node" if path == "containerd" else path) in work.paths
            # Natively only what there is C source of.
            and (work.runs_on(engine) or (engine == RUNC and work.kind not in ("program", "component")))
            and not (path == "containerd" and mode == "warm")
        ]
    return (*arms, *(CONTROLS if controls else ()))
