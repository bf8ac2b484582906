"""Made-up measurements whose truth is known: what a machine and its arms look like, with changes planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wasmlab.bench.bootstrap import Sample
from wasmlab.bench.changes import Side
from wasmlab.bench.plan import CONTROLS, Arm
from wasmlab.bench.store import Results

ARMS = tuple(
    Arm("local", engine, mode, "hello")
    for engine in ("wasmtime", "wasmer")
    for mode in ("cold", "cached", "warm")
)
_TYPICAL_NS = (255e6, 95e6, 3.3e6, 200e6, 76e6, 2.5e6, 0.8e6, 8.4e6)
TYPICAL_NS = dict(zip((*ARMS, *CONTROLS), _TYPICAL_NS, strict=True))
# As in the recorded runs: a run varies by 12 % of its time, one in fifty takes much longer, and all runs of a block
# share what the machine did in it.
RUN_SD, BLOCK_SD, OUTLIERS = 0.12, 0.08, 0.02


def logs(
    dice: np.random.Generator,
    blocks: int,
    *,
    repetitions: int = 1,
    factors: Mapping[Arm, float] | None = None,
    environment: float | Sequence[float] = 1.0,
    arms: Sequence[Arm] = (*ARMS, *CONTROLS),
    block_sd: float = BLOCK_SD,
) -> dict[Arm, np.ndarray]:
    """Return the logarithms of every arm's times, shape (blocks, repetitions).

    Parameters
    ----------
    factors : mapping, optional
        Arm -> how many times as long it takes.
    environment : float or sequence
        How many times as long everything takes; one number, or one per block.
    """
    shared = dice.normal(0, block_sd, blocks) + np.log(np.broadcast_to(environment, blocks))
    found = {}
    for arm in arms:
        noise = dice.normal(0, RUN_SD, (blocks, repetitions))
        noise += np.where(dice.random((blocks, repetitions)) < OUTLIERS, np.log(5), 0.0)
        found[arm] = np.log(TYPICAL_NS[arm] * (factors or {}).get(arm, 1.0)) + shared[:, None] + noise
    return found


def side(dice: np.random.Generator, blocks: int, **design) -> Side:
    """Return one side of a comparison."""
    names = tuple(range(blocks))
    arms = logs(dice, blocks, **design)
    return Side(names, {arm: Sample(own, np.full(blocks, own.shape[1]), names) for arm, own in arms.items()})


def results(dice: np.random.Generator, blocks: int, session: str, **design) -> Results:
    """Return the same as tidy rows, in random order within each block."""
    rows = []
    arms = logs(dice, blocks, **design)
    for block in range(blocks):
        runs = [(arm, value) for arm, own in arms.items() for value in own[block]]
        for place in dice.permutation(len(runs)):
            arm, value = runs[place]
            rows.append(
                {
                    "run_id": f"{session}-{len(rows):05d}",
                    "session": session,
                    "block": block,
                    **arm._asdict(),
                    "ok": True,
                    "total_ns": int(np.exp(value)),
                }
            )
    return Results(rows, {"cpu_model": "one", "cores": 2}, [{"started_at": "2026-11-24T09:00:00Z"}])
