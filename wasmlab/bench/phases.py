"""Names of the phases of a run, and tables made of them. Pure.

All spans are on CLOCK_MONOTONIC of one host, in nanoseconds, so that those of the client, the node agent and the
sandbox fit together.

Two families:

engine phases
    Durations inside the sandbox: where the time of a start goes.
pod moments
    What happened to a pod. Each span starts when the API write begins and ends at the moment, so that a waterfall
    is drawn from successive ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

ENGINE_PHASES = ("import", "read", "compile", "load", "instantiate", "run", "teardown", "spawn")
POD_MOMENTS = (
    "api_write",
    "scheduled",
    "seen",
    "sandboxed",
    "pulled",
    "compiled",
    "contained",
    "created",
    "started",
    "first_byte",
    "exited",
    "noticed",
    "status_written",
    "status_observed",
)
# What ended at the moment, said for a reader of the waterfall.
LABELS = {
    "import": "start a process, import the engine",
    "read": "read the module",
    "compile": "compile in a child process",
    "load": "load compiled code",
    "instantiate": "instantiate",
    "run": "run",
    "teardown": "tear down",
    "spawn": "hand over to a worker",
    "api_write": "API server stores the Pod",
    "scheduled": "scheduler binds it",
    "seen": "node hears of it",
    "sandboxed": "pod sandbox: network, pause",
    "pulled": "module pulled",
    "compiled": "module compiled",
    "contained": "root file system prepared",
    "created": "task created by the shim",
    "started": "worker has it",
    "first_byte": "first byte of output",
    "exited": "module has ended",
    "noticed": "kubelet notices the end",
    "status_written": "node writes the status",
    "status_observed": "client sees Succeeded",
}


class Span(NamedTuple):
    """One phase: `start_ns` and `end_ns` on CLOCK_MONOTONIC."""

    phase: str
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns


class Stage(NamedTuple):
    """One bar of a waterfall, in nanoseconds since the beginning of the whole."""

    phase: str
    label: str
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns


def as_spans(spans: Iterable[Sequence]) -> tuple[Span, ...]:
    """Turn ``(phase, start_ns, end_ns)`` sequences (JSON lists, other packages' spans) into spans.

    Raises
    ------
    ValueError
        If one ends before it starts: then its clock is not the others' clock.
    """
    found = tuple(Span(str(one[0]), int(one[1]), int(one[2])) for one in spans)
    for span in found:
        if span.end_ns < span.start_ns:
            raise ValueError(f"the span {span.phase} ends {-span.duration_ns} ns before it starts")
    return found


def durations(spans: Iterable[Span]) -> dict[str, int]:
    """Return ``{"<phase>_ns": total duration}`` of engine phases."""
    total: dict[str, int] = {}
    for span in spans:
        if span.phase in ENGINE_PHASES:
            total[f"{span.phase}_ns"] = total.get(f"{span.phase}_ns", 0) + span.duration_ns
    return total


def moments(spans: Iterable[Span], zero_ns: int) -> dict[str, int]:
    """Return ``{"<moment>_ns": when, counted from zero_ns}`` of pod moments; of several the first counts."""
    first: dict[str, int] = {}
    for span in spans:
        if span.phase in POD_MOMENTS:
            when = span.end_ns - zero_ns
            key = f"{span.phase}_ns"
            first[key] = min(when, first.get(key, when))
    return first


def waterfall(when: dict[str, int | float | None]) -> list[Stage]:
    """Return the successive stages of one pod.

    Parameters
    ----------
    when : dict
        ``{"<moment>_ns": nanoseconds since the API write began}``, as in a row of results; missing or NaN moments are
        left out and their time belongs to the next stage.

    Returns
    -------
    list of Stage
        In causal order, without gaps: each stage begins where the one before it ended.

    Notes
    -----
    Moments are noted by different processes, and news travel: the node may start a pod before the client's watch has
    told of the binding, and the client may see Succeeded before the node's own write has returned. What was noted late
    is known to have happened before what follows from it, so such a stage is joined with the next one.
    """
    known = []
    for moment in POD_MOMENTS:
        value = when.get(f"{moment}_ns")
        if value is not None and value == value:  # NaN is not equal to itself
            known.append((moment, int(value)))
    stages: list[Stage] = []
    labels: list[str] = []
    at = 0
    for position, (moment, end) in enumerate(known):
        labels.append(LABELS[moment])
        if any(later < end for _, later in known[position + 1 :]):
            continue
        stages.append(Stage(moment, ", ".join(labels), at, end))
        labels, at = [], end
    return stages


def engine_waterfall(took: dict[str, int | float | None]) -> list[Stage]:
    """Return the successive engine phases of a local run, from their durations, in the order they happen."""
    order = ("import", "compile", "spawn", "read", "load", "instantiate", "run", "teardown")
    stages: list[Stage] = []
    at = 0
    for phase in order:
        value = took.get(f"{phase}_ns")
        if value is not None and value == value:
            stages.append(Stage(phase, LABELS[phase], at, at + int(value)))
            at += int(value)
    return stages
