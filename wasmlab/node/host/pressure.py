"""When the node is short of memory, disk or processes: thresholds over measured signals. Pure.

The thresholds are the kubelet's, one exception apart: a percentage of a file system stands for 10 GiB at most, because
a disk of many TiB does not need a tenth of itself free. A condition stays for a while after its cause (as the
kubelet's, so that it does not flap), and while it lasts the node takes no pods that may not stay (`admission`). Pods
that run are put out only while the cause lasts (`evictor`).

References
----------
``k8s.io/kubernetes/pkg/kubelet/eviction/helpers.go`` (``ParseThresholdConfig``), ``defaults_linux.go``,
``pkg/kubelet/nodestatus/setters.go`` (reasons and messages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wasmlab.node.api import quantity

DEFAULT = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%"
MEMORY, DISK, PID = "MemoryPressure", "DiskPressure", "PIDPressure"
_CONDITIONS = {
    "memory.available": MEMORY,
    "nodefs.available": DISK,
    "nodefs.inodesFree": DISK,
    "imagefs.available": DISK,
    "imagefs.inodesFree": DISK,
    "pid.available": PID,
}
_MOST_BYTES = 10 << 30
# Condition -> (reason, message) when it holds, and when it does not.
WORDS = {
    MEMORY: (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    DISK: (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    PID: (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}


@dataclass(frozen=True)
class Level:
    """How much there is of something, and how much of it is available."""

    available: int
    capacity: int


Signals = Mapping[str, Level]


@dataclass(frozen=True)
class Shortage:
    """A signal below its threshold.

    Attributes
    ----------
    threshold : str
        The least that should be available, as a quantity.
    """

    signal: str
    available: int
    threshold: str

    @property
    def said(self) -> str:
        """For people."""
        return f"{self.signal} is {quantity.text(self.available)}, below {self.threshold}"


def parse(text: str) -> dict[str, str]:
    """Read thresholds as the kubelet's ``--eviction-hard`` has them: signal -> quantity or percentage.

    Raises
    ------
    ValueError
        With what is not understood.
    """
    result = {}
    for one in text.split(","):
        if not one.strip():
            continue
        signal, sign, value = one.strip().partition("<")
        if not sign or signal not in _CONDITIONS:
            raise ValueError(
                f"{one!r} is no threshold: one of {', '.join(_CONDITIONS)}, then < and an amount"
            )
        try:
            quantity.exact(value.removesuffix("%"))
        except ValueError:
            raise ValueError(f"{value!r} is neither a quantity nor a percentage") from None
        result[signal] = value
    return result


def line(signal: str, value: str, capacity: int) -> int:
    """What a threshold means for a capacity."""
    if not value.endswith("%"):
        return quantity.parse(value)
    share = int(quantity.exact(value[:-1]) * capacity / 100)
    # All of it can only be meant so (a node that is to take nothing).
    return min(share, _MOST_BYTES) if signal.endswith("fs.available") and share < capacity else share


def shortages(thresholds: Mapping[str, str], signals: Signals) -> list[Shortage]:
    """What there is too little of.

    Parameters
    ----------
    thresholds : mapping
        As `parse` gives them.
    """
    found = []
    for signal, value in thresholds.items():
        level = signals.get(signal)
        if level is None:
            continue
        least = line(signal, value, level.capacity)
        if level.available < least:
            written = quantity.text(least) if value.endswith("%") else value
            found.append(Shortage(signal, level.available, written))
    return found


@dataclass
class Pressure:
    """Which conditions hold.

    Parameters
    ----------
    thresholds : mapping
        As `parse` gives them.
    hold_s : float
        How long a condition stays after its cause.
    """

    thresholds: Mapping[str, str]
    hold_s: float = 300.0
    _seen: dict[str, float] = field(default_factory=dict)

    def observe(self, signals: Signals, now: float) -> dict[str, str]:
        """Take note of a measurement at `now` (CLOCK_MONOTONIC, seconds); return condition -> what it is due to."""
        why = {}
        for one in shortages(self.thresholds, signals):
            condition = _CONDITIONS[one.signal]
            self._seen[condition] = now
            why[condition] = one.said
        for condition, at in list(self._seen.items()):
            if now - at >= self.hold_s:
                del self._seen[condition]
            else:
                why.setdefault(condition, f"less than {self.hold_s:g} s ago there was too little")
        return why
