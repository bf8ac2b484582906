"""When what happened to a pod, on CLOCK_MONOTONIC: one JSON line per pod in ``spans.jsonl``.

Every span begins when this node first saw the pod; its end is the moment of the phase. Whoever knows when the API write
began (the bench) puts that in place of the start: the clock is the same on one host. What the sandbox told of the run
itself (spawn, load, ...) stands beside them as it is, under ``engine_spans``.
"""

from __future__ import annotations

import time
from pathlib import Path

import orjson

from wasmlab.engines.spec import Span
from wasmlab.node.promtext import Histogram

PHASES = ("seen", "pulled", "compiled", "started", "first_byte", "exited", "status_written")
# Of what the sandbox tells, these are no phases: they overlap with the run, and are marked as moments.
_MOMENTS = ("first_byte", "reaped")
_ROTATE_BYTES = 64 << 20
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class PodSpans:
    """The moments of one pod, and the phases of its first run."""

    __slots__ = ("ends", "run", "seen_ns")

    def __init__(self) -> None:
        self.seen_ns = time.monotonic_ns()
        self.ends: dict[str, int] = {"seen": self.seen_ns}
        self.run: tuple[Span, ...] = ()

    def mark(self, phase: str, end_ns: int | None = None) -> None:
        """Note a phase; only the first time counts (a restarted container is another story)."""
        moment = time.monotonic_ns() if end_ns is None else end_ns
        # A run taken up from an earlier agent began before this one saw the pod.
        self.ends.setdefault(phase, max(self.seen_ns, moment))

    def ran(self, spans: tuple[Span, ...]) -> None:
        """Keep the phases of a run; only the first run counts."""
        self.run = self.run or tuple(span for span in spans if span.phase not in _MOMENTS)


class SpanLog:
    """Appends to the file; a line is one write, so readers never see half of one.

    Attributes
    ----------
    dropped : int
        Lines that the disk did not take.
    phases : Histogram
        How long the phases of all pods took, for ``/metrics``.
    """

    def __init__(self, path: Path) -> None:
        self.dropped = 0
        self.phases = Histogram(
            "wasmlab_pod_phase_seconds",
            "From the node's first sight of a pod to the end of a phase",
            _BUCKETS_S,
        )
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, *, uid: str, namespace: str, name: str, engine: str, spans: PodSpans) -> None:
        """Append one pod."""
        for phase, end_ns in spans.ends.items():
            if phase != "seen":
                self.phases.add((end_ns - spans.seen_ns) / 1e9, engine=engine, phase=phase)
        line = {
            "uid": uid,
            "namespace": namespace,
            "name": name,
            "engine": engine,
            "spans": [[p, spans.seen_ns, spans.ends[p]] for p in PHASES if p in spans.ends],
            "engine_spans": [list(span) for span in spans.run],
        }
        try:
            self._file.write(orjson.dumps(line) + b"\n")
            if self._file.tell() > _ROTATE_BYTES:
                self._path.replace(self._path.with_suffix(".1.jsonl"))
                fresh = self._path.open("ab", buffering=0)
                self._file.close()
                self._file = fresh
        except OSError:
            # A full disk. Spans are for measurements; nothing that a pod waits for may hang on them.
            self.dropped += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()
