"""Did an arm change, or did the machine? Two measurements side by side, with intervals. Pure.

How a verdict is reached
------------------------
1. Refuse what must not be compared (`wasmlab.bench.pooling`): other hosts, engines, software, settings or modules,
   unless the comparison is *about* them (`across`).
2. The *level* of an arm is the mean of the middle half of the logarithms of its times, one per block (the
   interquartile mean: hardly more moved by outliers than the median, but surer). The *environment's* ratio is the
   level of the control arms after, over that before.
3. An arm's *adjusted* ratio is its own ratio of levels divided by the environment's. Before the levels are taken, each
   block is corrected by what the controls were in it beyond their level, as far as the arm follows them (the slope of a
   regression, between 0 and 1): a slow block of a restless machine cancels, and so does a step inside a measurement,
   while on a steady machine the chance noise of the controls is not added to every block.
4. Intervals come from the hierarchical bootstrap: blocks are drawn, before and after apart, all arms in the same
   draws. They are simultaneous: their common width is such that in 95 % of draws *no* ratio leaves its interval, so a
   comparison of twenty arms raises no more false alarms than one of a single arm.
5. ``slower`` if the whole interval is above 1, ``faster`` if below, ``same`` if it lies within 1 plus or minus `margin`
   (a change too small to matter, however sure), ``unclear`` otherwise.
6. Arms do not feel a slower machine exactly as the controls do. On two cores, while other work made the controls 1.3 to
   2 times slower, arms slowed down by the power 0.7 to 1.4 of that (the quartiles over arms and pairs of measurements).
   So where the environment changed, a factor up to its power `UNEQUAL` is not held against an arm: where everything
   takes 3.3 times as long, an arm at 1.5 times that is ``unclear``, and only one beyond 1.8 times is ``slower``.
7. Blocks tell how much a machine varies within minutes, not how it varies from one measurement to the next. On a quiet
   machine that makes no difference; beside other work it does: of 28 comparisons of equal measurements on two cores at
   load 12 seven called some arm changed, by up to 1.9 times. So where others used the machine before one of the two
   began (`noise.BUSY_SHARE`), a factor up to `BUSY` is not held against an arm.

The controls are the arms of the path ``control``. runc, the control of container Pods in reports, is judged like any
arm here: if containerd became slower, that is what shall be said.

References
----------
Davison, Hinkley: Bootstrap Methods and their Application, 1997, section 3.8 (hierarchical data).
Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013 (speed-ups with intervals in place of tests).
Lavenberg, Welch: A Perspective on the Use of Control Variables to Increase the Efficiency of Monte Carlo Simulations,
Management Science 27 (1981), 322-335 (step 3).
Romano, Wolf: Exact and Approximate Stepdown Methods for Multiple Hypothesis Testing, JASA 100 (2005), 94-108 (the
largest deviation over all comparisons; here its single step).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmlab.bench import drift, noise, pooling, stats
from wasmlab.bench.changes import Changes, Side, changes
from wasmlab.bench.plan import Arm
from wasmlab.bench.pooling import Difference
from wasmlab.bench.stats import Interval
from wasmlab.errors import BenchmarkError

if TYPE_CHECKING:
    from wasmlab.bench.store import Results

MARGIN = 0.05
UNEQUAL = 0.5
BUSY = 2.0
MIN_BLOCKS = 8


@dataclass(frozen=True)
class Environment:
    """What became of the machine, as the control arms tell.

    Attributes
    ----------
    verdict : str
        ``same``, ``changed``, or ``unknown`` without a control arm on both sides.
    ratio : Interval or None
        How many times longer the controls take after than before.
    controls : tuple of Arm
        Those that both sides have.
    why : str
        The verdict in words.
    """

    verdict: str
    ratio: Interval | None
    controls: tuple[Arm, ...]
    why: str


@dataclass(frozen=True)
class ArmChange:
    """What became of one arm.

    Attributes
    ----------
    arm : Arm
    verdict : str
        ``same``, ``faster``, ``slower`` or ``unclear``.
    ratio : Interval or None
        After over before, as measured; None if there is too little to say.
    adjusted : Interval or None
        The same, divided by the controls block by block; the verdict is made of this one.
    why : str
        The verdict in words.
    n_before, n_after : int
        Runs that succeeded.
    failed_before, failed_after : int
        Runs that did not.
    """

    arm: Arm
    verdict: str
    ratio: Interval | None
    adjusted: Interval | None
    why: str
    n_before: int
    n_after: int
    failed_before: int
    failed_after: int


@dataclass(frozen=True)
class Comparison:
    """The outcome of `verdict`.

    Attributes
    ----------
    refused : tuple of str
        Why nothing was compared; empty if it was.
    environment : Environment
    arms : tuple of ArmChange
        One per arm that both sides have, in the order of the first one; controls are not among them.
    notes : tuple of str
        What a reader should know: arms of one side only, steps inside a side, interruptions.
    differences : tuple of Difference
        Everything the two differ in, also what was allowed.
    level : float
        With this probability no interval misses.
    margin : float
        The largest relative change that counts as none.
    """

    refused: tuple[str, ...]
    environment: Environment
    arms: tuple[ArmChange, ...]
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]
    level: float
    margin: float

    @property
    def slower(self) -> tuple[ArmChange, ...]:
        """The arms that take longer."""
        return tuple(one for one in self.arms if one.verdict == "slower")

    @property
    def faster(self) -> tuple[ArmChange, ...]:
        """The arms that take less time."""
        return tuple(one for one in self.arms if one.verdict == "faster")

    @property
    def changed(self) -> tuple[ArmChange, ...]:
        """The arms that changed."""
        return (*self.slower, *self.faster)

    @property
    def is_same(self) -> bool:
        """Whether every arm was compared and found the same."""
        return bool(self.arms) and all(one.verdict == "same" for one in self.arms)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as it goes into JSON; arms are texts like ``node/wasmtime/warm/hello``."""

        def plain(value: Any) -> Any:
            if isinstance(value, Arm):
                return str(value)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return [plain(one) for one in value] if isinstance(value, tuple) else value

        return plain(self)


def verdict(
    before: Results,
    after: Results,
    *,
    value: str = "total_ns",
    across: Collection[str] = (),
    level: float = stats.LEVEL,
    margin: float = MARGIN,
    resamples: int = stats.RESAMPLES,
    seed: int = stats.SEED,
) -> Comparison:
    """Compare two measurements arm by arm, and tell a change of an arm from one of the machine.

    Parameters
    ----------
    before, after : Results
        Each with a control arm in its blocks; rows of the warm-up and failed runs are left out.
    value : str
        The column to compare.
    across : collection of str
        What the comparison is about and may therefore differ: kinds of `pooling.KINDS`, e.g. ``{"host"}`` for machine A
        beside machine B. The version of wasmlab may always differ.
    level : float
        With this probability none of the intervals misses.
    margin : float
        The largest relative change that counts as none.

    Returns
    -------
    Comparison
        Sets that must not be compared are refused in it, with every reason.

    Raises
    ------
    BenchmarkError
        If `across` names something else.
    """
    unknown = set(across) - set(pooling.KINDS)
    if unknown:
        raise BenchmarkError(
            f"nothing is called {', '.join(sorted(unknown))} that a comparison could be about",
            remedy=f"choose from {', '.join(pooling.KINDS)}",
        )
    differences = tuple(pooling.differences(before, after))
    frames = before.frame, after.frame
    sides = Side.of(frames[0], value), Side.of(frames[1], value)
    shared = [arm for arm in sides[0].arms if arm in sides[1].arms]
    refused = [f"{one.kind}: {one}" for one in differences if one.kind not in {*across, "lab"}]
    if {row["run_id"] for row in before.rows} & {row["run_id"] for row in after.rows}:
        refused.append("both sides hold the same runs")
    if not any(not drift.is_control(arm) for arm in shared):
        refused.append("no arm was measured on both sides")
    if refused:
        nothing = Environment("unknown", None, (), "nothing was compared")
        return Comparison(tuple(refused), nothing, (), (), differences, level, margin)
    busy = max(noise.busy_before(one.conditions) for one in (before, after)) > noise.BUSY_SHARE
    environment, arms = judge(*sides, busy=busy, level=level, margin=margin, resamples=resamples, seed=seed)
    steps = [drift.environment_steps(frame, value) for frame in frames]
    notes = tuple(_notes((before, after), sides, steps))
    return Comparison((), environment, arms, notes, differences, level, margin)


def judge(
    before: Side,
    after: Side,
    *,
    busy: bool = False,
    level: float = stats.LEVEL,
    margin: float = MARGIN,
    resamples: int = stats.RESAMPLES,
    seed: int = stats.SEED,
) -> tuple[Environment, tuple[ArmChange, ...]]:
    """Return what became of the machine and of every arm; `verdict` without asking whether the two may be compared.

    Parameters
    ----------
    busy : bool
        Other work used the machine before one of the two began.
    """
    sides = before, after
    shared = [arm for arm in before.arms if arm in after.arms]
    enough = [arm for arm in shared if all(side.blocks_of(arm) >= MIN_BLOCKS for side in sides)]
    controls = tuple(arm for arm in enough if drift.is_control(arm))
    judged = [arm for arm in enough if not drift.is_control(arm)]
    found = changes(before, after, judged, controls, level=level, resamples=resamples, seed=seed)
    environment = _environment(found, controls, margin)
    allowance = _allowance(environment, busy)
    arms = (_arm(arm, sides, found, allowance, margin) for arm in shared if not drift.is_control(arm))
    return environment, tuple(arms)


def around(results: Results, step: drift.Step) -> tuple[Results, Results]:
    """Cut the session of a step in two: what was measured before it, and after it."""
    own = [row for row in results.rows if row["session"] == step.session]
    parts = ([row for row in own if (row["block"] >= step.block) is late] for late in (False, True))
    before, after = (dataclasses.replace(results, rows=rows) for rows in parts)
    return before, after


def _environment(found: Changes, controls: tuple[Arm, ...], margin: float) -> Environment:
    ratio = found.environment
    if ratio is None:
        return Environment("unknown", None, (), "there is no control arm on both sides to tell it by")
    names = " and ".join(arm.workload for arm in controls)
    chance = ratio.low <= 1 <= ratio.high
    if chance or abs(math.log(ratio.value)) <= math.log1p(margin):
        size = "no change beyond chance" if chance else f"a change within {margin:.0%}"
        return Environment("same", ratio, controls, f"{size} of the control ({names}): {ratio:.2f}")
    return Environment(
        "changed",
        ratio,
        controls,
        f"the control ({names}) took {ratio:.2f} times as long: the machine changed",
    )


def _allowance(environment: Environment, busy: bool) -> tuple[float, str]:
    """Return up to which factor nothing is held against an arm, and why."""
    factor, why = 1.0, ""
    if environment.verdict == "changed" and environment.ratio is not None:
        factor = math.exp(UNEQUAL * abs(math.log(environment.ratio.value)))
        why = f"the machine changed by {environment.ratio.value:.2f}"
    if busy and factor < BUSY:
        factor, why = BUSY, "other work used the machine"
    return factor, why


def _arm(
    arm: Arm,
    sides: tuple[Side, Side],
    found: Changes,
    allowance: tuple[float, str],
    margin: float,
) -> ArmChange:
    counts = [side.arms[arm].n for side in sides]
    failed = [side.failed.get(arm, 0) for side in sides]
    raw, adjusted = found.raw.get(arm), found.adjusted.get(arm)
    outcome, why = _judge(raw, adjusted, allowance, margin)
    if raw is None:
        blocks = [side.blocks_of(arm) for side in sides]
        why = f"{blocks[0]} blocks before and {blocks[1]} after; {MIN_BLOCKS} of each are needed"
        if not all(counts):
            why = f"every run failed {'before' if not counts[0] else 'after'}"
    return ArmChange(arm, outcome, raw, adjusted, why, *counts, *failed)


def _judge(
    raw: Interval | None, adjusted: Interval | None, allowance: tuple[float, str], margin: float
) -> tuple[str, str]:
    ratio = raw if adjusted is None else adjusted
    if ratio is None:
        return "unclear", ""
    if 1 / (1 + margin) <= ratio.low and ratio.high <= 1 + margin:
        return "same", f"within {margin:.0%}"
    if ratio.low <= 1 <= ratio.high:
        return "unclear", f"no change beyond chance, but one of more than {margin:.0%} is not excluded"
    if adjusted is None:
        return "unclear", "without a control arm it may as well be the machine that changed"
    factor, why = allowance
    if ratio.low <= factor and ratio.high >= 1 / factor:
        return "unclear", f"{why}; up to {factor:.2f} times more or less can be how this arm feels that"
    return ("slower", "longer than before") if ratio.low > 1 else ("faster", "shorter than before")


def _notes(
    results: tuple[Results, Results], sides: tuple[Side, Side], steps: Sequence[Sequence[drift.Step]]
) -> Iterator[str]:
    for here, there, when in ((sides[0], sides[1], "before"), (sides[1], sides[0], "after")):
        alone = [str(arm) for arm in here.arms if arm not in there.arms]
        if alone:
            yield f"only {when}: {', '.join(alone)}"
    for one, inside, when in zip(results, steps, ("before", "after"), strict=True):
        if one.plan.get("interrupted"):
            yield f"the measurement {when} was interrupted"
        share = noise.busy_before(one.conditions)
        if share > noise.BUSY_SHARE:
            yield f"other work used {share:.0%} of the machine just before the measurement {when}"
        for step in inside:
            yield f"the environment was not steady {when}: {step}"
