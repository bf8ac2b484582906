"""What is known of the pods of a launch, and what may be said of them. Pure.

Medians and intervals are those of `wasmlab.bench.stats`, by blocks, so that the figures that grow on the page end where
the report's begin. Pods of one burst wait for each other: they are no independent measurements, and get no interval.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wasmlab.bench import bootstrap, phases, stats
from wasmlab.bench.stats import Interval

#: What to measure: the moment at which the clock stops, and how it is said.
MEASURES = {"first_byte": "first byte of output", "status_observed": "Succeeded seen"}


class PodRecord(NamedTuple):
    """One pod that has ended.

    Attributes
    ----------
    engine : str
        What ran it.
    when : mapping
        ``<moment>_ns`` since its own API write began (`wasmlab.bench.phases.POD`).
    began_ns : int
        When that was, since the launch's first one.
    ok : bool
        Whether it did what it should.
    error : str
        Why not.
    block : int
        Which block of the plan it belongs to.
    warmup : bool
        Not to be counted.
    """

    engine: str
    when: Mapping[str, int]
    began_ns: int = 0
    ok: bool = True
    error: str = ""
    block: int = 0
    warmup: bool = False


class Ending(NamedTuple):
    """How a launch ended.

    Attributes
    ----------
    total : int
        How many pods were asked for.
    ended, failed : int
        How many have ended, and how many of those failed.
    stopped : int
        How many were removed before they ended.
    at_once : bool
        Whether it was a burst.
    seconds : float
        How long it took.
    cancelled, is_clean : bool
        Whether somebody cancelled it, and whether all of its pods are gone.
    """

    total: int
    ended: int
    failed: int
    stopped: int
    at_once: bool
    seconds: float
    cancelled: bool = False
    is_clean: bool = True

    def __str__(self) -> str:
        failed = f"{self.failed} failed"
        if self.cancelled:
            never = self.total - self.ended - self.stopped
            left = "None is left." if self.is_clean else "Some are still being removed."
            return (
                f"cancelled: of {self.total} pods {self.ended} had ended ({failed}), {self.stopped} were removed "
                f"before they ended, {never} were not started. {left}"
            )
        rate = f", {self.ended / self.seconds:.0f} pods per second" if self.at_once and self.seconds else ""
        return f"done: {self.ended} pods in {self.seconds:.1f} s{rate}, {failed}"


class Standing(NamedTuple):
    """How an engine does so far; times in milliseconds.

    Attributes
    ----------
    interval : Interval or None
        The median with its interval; None without a value.
    has_interval : bool
        Whether the ends of `interval` mean anything: enough values, and independent ones.
    failed, warmup, unknown : int
        How many pods are not in it, and why: of the last nobody knows that moment.
    """

    engine: str
    interval: Interval | None
    has_interval: bool
    failed: int
    warmup: int
    unknown: int = 0

    @property
    def n(self) -> int:
        """How many pods are in the median."""
        return self.interval.n if self.interval else 0


def of_row(row: Mapping[str, Any]) -> PodRecord:
    """Return the record of a row of results (`wasmlab.bench.runner`)."""
    when = {
        key: int(value)
        for moment in phases.POD_MOMENTS
        if (value := row.get(key := f"{moment}_ns")) is not None and value == value
    }
    return PodRecord(
        row["engine"],
        when,
        ok=bool(row["ok"]),
        error=str(row.get("error") or ""),
        block=row["block"],
        warmup=bool(row.get("warmup")),
    )


def milliseconds(records: Sequence[PodRecord], engine: str, measure: str) -> list[tuple[int, float]]:
    """Return block and value of every pod that counts."""
    key = f"{measure}_ns"
    return [
        (one.block, one.when[key] * 1e-6)
        for one in records
        if one.engine == engine and one.ok and not one.warmup and key in one.when
    ]


def _sample(pairs: Sequence[tuple[int, float]]) -> bootstrap.Sample:
    return bootstrap.sample([value for _, value in pairs], [block for block, _ in pairs])


def standing(records: Sequence[PodRecord], engine: str, measure: str, *, independent: bool) -> Standing:
    """Return how an engine does.

    Parameters
    ----------
    measure : str
        A key of `MEASURES`.
    independent : bool
        Whether the pods ran one after the other.
    """
    own = [one for one in records if one.engine == engine]
    pairs = milliseconds(own, engine, measure)
    return Standing(
        engine,
        _median(pairs, independent) if pairs else None,
        independent and len(pairs) >= stats.FEWEST,
        sum(not one.ok for one in own),
        sum(one.ok and one.warmup for one in own),
        sum(one.ok and not one.warmup for one in own) - len(pairs),
    )


def _median(pairs: Sequence[tuple[int, float]], independent: bool) -> Interval:
    if independent:
        return stats.median(_sample(pairs))
    # Without its interval, which costs the kernel thirty times as much.
    value = statistics.median(value for _, value in pairs)
    return Interval(value, value, value, len(pairs))


def verdict(records: Sequence[PodRecord], above: str, below: str, measure: str) -> str:
    """Say how `above` compares with `below`, and whether that is more than chance."""
    pairs = [milliseconds(records, engine, measure) for engine in (above, below)]
    least = min(len(one) for one in pairs)
    if least < stats.FEWEST:
        return f"Too few pods to compare the engines: {least} of each, {stats.FEWEST} are needed."
    ratio = stats.ratio_of_medians(*map(_sample, pairs))
    between = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}, n = {ratio.n}"
    if ratio.low <= 1 <= ratio.high:
        return f"No difference can be told: {above} / {below} = {ratio.value:.2f} ({between})."
    return f"{above} takes {ratio.value:.2f} times as long as {below} ({between})."


def failures(records: Sequence[PodRecord]) -> str:
    """Say how many pods failed, and why the first one did; empty if none did."""
    failed = [one for one in records if not one.ok]
    if not failed:
        return ""
    return f"{len(failed)} of {len(records)} pods failed; the first, on {failed[0].engine}: {failed[0].error}"


def duration(value_ms: float) -> str:
    """Return a time for people: ``13.0 ms``, ``1.24 s``."""
    if value_ms >= 1000:
        return f"{value_ms / 1000:.2f} s"
    return f"{value_ms:.0f} ms" if value_ms >= 100 else f"{value_ms:.1f} ms"
