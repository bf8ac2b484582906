"""What the phases of a start are, for every engine and for Pods: their names, their meaning, tables made of them. Pure.

All spans are on CLOCK_MONOTONIC of one host, in nanoseconds, so that those of the client, the node agent and the
sandbox fit together. There are two families, each declared once, here; columns, figures and the picture in notebook
02 (`wasmlab.plots.phase_map`) are made of these tables.

engine phases
    Durations inside the sandbox: where the time of a start goes. They mean the same on every engine, touch but do not
    overlap, and each belongs to one process::

        zygote    process, import, bind
        compiler                        child, read, validate, compile, serialize, keep
        worker                                                                 spawn, load, instantiate, run, teardown

    process      start the engine's process: an interpreter, our code, a worker forked from it
    import       import the engine's Python binding, which maps the engine's library
    bind         make the engine, and its WASI where workers can share it, through the binding
    child        start the process that compiles, with an import and a bind of its own
    read         read the module from disk
    validate     check the module, and nothing else
    compile      make native code of it; engines check the module in this step once more
    serialize    turn the native code into what the cache keeps
    keep         write it to the disk, and be sure of it; the compiling process ends
    spawn        hand the request to a worker: send it, receive it, decode it
    load         get native code out of the cache into the worker
    confine      give up the host's files and privileges (only in containers)
    instantiate  make the instance: its memory, its tables, its imports
    run          from the guest's first instruction to its end
    teardown     from the guest's end until its process, and so its memory, is gone

    `LOCAL` says which of them a run of `wasmlab.bench.local` has in each mode, `WORKER` those of a single run in a
    sandbox, where a cold one compiles in the worker itself. What an engine's binding hides is not guessed: the phase
    is missing, and `Capabilities.hidden_phases` of the adapter (`HIDDEN_IN_COMPONENTS` here) gives the reason.

pod moments
    What happened to a pod. Each span starts when the API write begins and ends at the moment, so that a waterfall
    is drawn from successive ends::

        client      api_write                                                                status_observed
        scheduler             scheduled
        node                            seen, pulled, compiled, started       status_written
        worker                                                  first_byte, exited

    On the path through containerd ``sandboxed`` comes before ``pulled``, ``contained`` and ``created`` after
    ``compiled``, and ``noticed`` after ``exited``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Phase(NamedTuple):
    """One phase or moment.

    Attributes
    ----------
    name : str
        What it is called in spans and, with ``_ns``, in columns.
    place : str
        The process that it belongs to.
    label : str
        What happens in it, said for a reader of a waterfall.
    meaning : str
        What exactly it is; empty where the label says all.
    """

    name: str
    place: str
    label: str
    meaning: str = ""


# In the order in which they follow each other when everything is done once.
ENGINE = (
    Phase(
        "process",
        "zygote",
        "start the engine's process",
        "start the engine's process: an interpreter, our code, a worker forked from it",
    ),
    Phase(
        "import",
        "zygote",
        "import the binding",
        "import the engine's Python binding, which maps the engine's library",
    ),
    Phase(
        "bind",
        "zygote",
        "make the engine through it",
        "make the engine, and its WASI where workers can share it, through the binding",
    ),
    Phase(
        "child",
        "compiler",
        "start a process that compiles",
        "start the process that compiles, with an import and a bind of its own",
    ),
    Phase("read", "compiler", "read the module", "read the module from disk"),
    Phase("validate", "compiler", "validate it", "check the module, and nothing else"),
    Phase(
        "compile",
        "compiler",
        "compile it",
        "make native code of it; engines check the module in this step once more",
    ),
    Phase("serialize", "compiler", "serialize the code", "turn the native code into what the cache keeps"),
    Phase(
        "keep",
        "compiler",
        "keep it in the cache",
        "write it to the disk, and be sure of it; the compiling process ends",
    ),
    Phase(
        "spawn",
        "worker",
        "hand over to a worker",
        "hand the request to a worker: send it, receive it, decode it",
    ),
    Phase("load", "worker", "load compiled code", "get native code out of the cache into the worker"),
    Phase(
        "confine",
        "worker",
        "give up files and privileges",
        "give up the host's files and privileges (only in containers)",
    ),
    Phase("instantiate", "worker", "instantiate", "make the instance: its memory, its tables, its imports"),
    Phase("run", "worker", "run", "from the guest's first instruction to its end"),
    Phase(
        "teardown",
        "worker",
        "tear down",
        "from the guest's end until its process, and so its memory, is gone",
    ),
)
POD = (
    Phase("api_write", "client", "API server stores the Pod"),
    Phase("scheduled", "scheduler", "scheduler binds it"),
    Phase("seen", "node", "node hears of it"),
    Phase("sandboxed", "node", "pod sandbox: network, pause"),
    Phase("pulled", "node", "module pulled"),
    Phase("compiled", "node", "module compiled"),
    Phase("contained", "node", "root file system prepared"),
    Phase("created", "node", "task created by the shim"),
    Phase("started", "node", "worker has it"),
    Phase("first_byte", "worker", "first byte of output"),
    Phase("exited", "worker", "module has ended"),
    Phase("noticed", "node", "kubelet notices the end"),
    Phase("status_written", "node", "node writes the status"),
    Phase("status_observed", "client", "client sees Succeeded"),
)
ENGINE_PHASES = tuple(phase.name for phase in ENGINE)
POD_MOMENTS = tuple(phase.name for phase in POD)
LABELS = {phase.name: phase.label for phase in (*ENGINE, *POD)}

_STARTING = ("process", "import", "bind")
_COMPILING = ("read", "validate", "compile", "serialize")
_RUNNING = ("load", "instantiate", "run", "teardown")
#: Mode -> the phases of a run on the path local, in order.
LOCAL = {
    "cold": (*_STARTING, "child", *_COMPILING, "keep", "spawn", *_RUNNING),
    "cached": (*_STARTING, "spawn", *_RUNNING),
    "warm": ("spawn", *_RUNNING),
}
#: Mode -> the phases of one run in a sandbox that runs already, in order.
WORKER = {"cold": ("spawn", *_COMPILING, *_RUNNING), "cached": ("spawn", *_RUNNING)}
#: What no engine tells apart when it runs a component, and why.
HIDDEN_IN_COMPONENTS = {
    "validate": "part of `compile`: the bindings have no function that only validates a component"
}
#: Moments that only a Pod on the path through containerd has.
CONTAINERD_ONLY = ("sandboxed", "contained", "created", "noticed")


def declared(mode: str, hidden: Collection[str] = (), *, within: str = "local") -> tuple[str, ...]:
    """Return the phases that a run has, in order.

    Parameters
    ----------
    mode : {"cold", "cached", "warm"}
        How it starts.
    hidden : collection of str
        What the engine's binding does not tell apart: the keys of ``Capabilities.hidden_phases``.
    within : {"local", "worker"}
        A run with all that comes before it, or a single run in a sandbox. Compiling ahead is a step of its own in the
        first, whatever the binding hides when it compiles in order to run.
    """
    if within == "worker":
        return tuple(name for name in WORKER[mode] if name not in hidden)
    return tuple(name for name in LOCAL[mode] if name not in hidden or name == "compile")


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
    stages: list[Stage] = []
    at = 0
    for phase in ENGINE_PHASES:
        value = took.get(f"{phase}_ns")
        if value is not None and value == value:
            stages.append(Stage(phase, LABELS[phase], at, at + int(value)))
            at += int(value)
    return stages
