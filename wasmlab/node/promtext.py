"""The Prometheus text format, written: pure.

References
----------
Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

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
