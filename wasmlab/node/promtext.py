"""The Prometheus text format, written: pure.

References
----------
Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Sample:
    """One value.

    Parameters
    ----------
    time : float, optional
        When it was measured, unix seconds; now if None.
    suffix : str
        For histograms: ``_bucket``, ``_sum``, ``_count``.
    """

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    time: float | None = None
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """A metric with all its values."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


class Histogram:
    """Counts values by size, for each combination of labels.

    Parameters
    ----------
    name, help : str
        Of the family.
    edges : sequence of float
        Upper ends of the buckets; a last one without end is added.
    """

    def __init__(self, name: str, help: str, edges: Sequence[float]) -> None:
        self._name, self._help, self._edges = name, help, tuple(edges)
        self._found: dict[tuple[tuple[str, str], ...], tuple[list[int], list[float]]] = {}

    def add(self, value: float, **labels: str) -> None:
        """Count a value."""
        counts, total = self._found.setdefault(tuple(labels.items()), ([0] * (len(self._edges) + 1), [0.0]))
        counts[bisect.bisect_left(self._edges, value)] += 1
        total[0] += value

    def family(self) -> Family:
        """What was counted: buckets that include the smaller ones, sum and count."""
        samples = []
        for key, (counts, total) in sorted(self._found.items()):
            labels, reached = dict(key), 0
            for edge, count in zip((*map("{:g}".format, self._edges), "+Inf"), counts, strict=True):
                reached += count
                samples.append(Sample(reached, {**labels, "le": edge}, suffix="_bucket"))
            samples.append(Sample(total[0], labels, suffix="_sum"))
            samples.append(Sample(reached, labels, suffix="_count"))
        return Family(self._name, "histogram", self._help, samples)


def text(families: Iterable[Family]) -> str:
    """Write them down; a family without values is left out."""
    lines = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(_line(family.name, sample) for sample in family.samples)
    return "\n".join(lines) + "\n" if lines else ""


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escaped(value, quoted=True)}"' for key, value in sample.labels.items())
    line = f"{name}{sample.suffix}{{{labels}}}" if labels else f"{name}{sample.suffix}"
    line += f" {_number(sample.value)}"
    return line if sample.time is None else f"{line} {int(sample.time * 1000)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(value: str, *, quoted: bool = False) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return value.replace('"', '\\"') if quoted else value
