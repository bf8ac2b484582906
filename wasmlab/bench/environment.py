"""Where and under what load something was measured. No host name, no user name, no path goes in.

`fingerprint` holds what does not change while measuring; its hash, the fingerprint id, is in every row, and rows of
different ids are not pooled. `Conditions` holds what does change: load, steal, pressure.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmlab.errors import WasmlabError

# These make two machines (or two states of one) incomparable. What is not here may differ between pooled runs.
_STABLE = (
    "cpu_model",
    "cores",
    "memory_gib",
    "kernel",
    "cgroup",
    "python",
    "engines",
    "kubernetes",
    "wasmlab",
)


def fingerprint(*, kubernetes: str | None = None, root: Path = Path("/")) -> dict[str, Any]:
    """Describe this machine and what is installed.

    Parameters
    ----------
    kubernetes : str, optional
        Version of the cluster that is measured, None on the local path.
    root : Path
        Where to read ``/proc`` and ``/sys``; tests give a copy.

    Returns
    -------
    dict
        ``cpu_model, cores, memory_gib, kernel, cgroup, python, engines, kubernetes, wasmlab, virtualization, id``.
    """
    from wasmlab import __version__

    facts: dict[str, Any] = {
        "cpu_model": _cpu_model(root),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(_memory_bytes(root) / 2**30),
        # The number only: what a provider appends names its images, and says nothing about speed.
        "kernel": re.split(r"[^0-9.]", platform.release())[0],
        "cgroup": _cgroup(root),
        "python": platform.python_version(),
        "engines": _engines(),
        "kubernetes": kubernetes,
        "wasmlab": __version__,
        "virtualization": "virtual machine" if "hypervisor" in _cpu_flags(root) else "unknown",
    }
    facts["id"] = fingerprint_id(facts)
    return facts


def fingerprint_id(facts: Mapping[str, Any]) -> str:
    """Return 12 hex digits that are equal for comparable environments."""
    stable = {key: facts.get(key) for key in _STABLE}
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12]


def describe(facts: Mapping[str, Any]) -> str:
    """Return the machine in one line, for figures: ``"2 cores of AMD EPYC, 24 GiB, Linux 6.1"``."""
    model = re.sub(
        r"\s*(\(R\)|\(TM\)|CPU|Processor|\d+-Core|@.*$)", "", str(facts.get("cpu_model") or "unknown CPU")
    )
    model = " ".join(model.split())
    kernel = ".".join(str(facts.get("kernel") or "").split(".")[:2])
    return f"{facts.get('cores')} cores of {model}, {facts.get('memory_gib')} GiB, Linux {kernel}"


def now_utc() -> str:
    """Return the time as ISO 8601 in UTC, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Conditions:
    """A reading of what else the machine is doing; two of them make a report.

    What the kernel does not say (pressure, steal, frequency) is None; so is all of it where there is no ``/proc/stat``.
    """

    at: str
    load_1min: float | None
    cpu_ticks: tuple[int, ...]
    cpu_pressure_us: int | None
    context_switches: int | None = None
    mhz: float | None = None
    at_s: float = 0.0

    @classmethod
    def read(cls, root: Path = Path("/")) -> Conditions:
        """Read ``/proc`` and ``/sys`` now."""
        stat = _text(root / "proc/stat")
        load = _text(root / "proc/loadavg").split()
        stalled = re.search(r"^some .*total=(\d+)", _text(root / "proc/pressure/cpu"), re.MULTILINE)
        switched = re.search(r"^ctxt (\d+)", stat, re.MULTILINE)
        return cls(
            now_utc(),
            float(load[0]) if load else None,
            tuple(int(word) for word in stat.split("\n", 1)[0].split()[1:]),
            int(stalled[1]) if stalled else None,
            int(switched[1]) if switched else None,
            _mhz(root),
            time.monotonic(),
        )

    def until(self, later: Conditions) -> dict[str, Any]:
        """Return what happened between two readings.

        Returns
        -------
        dict
            ``started_at, ended_at, load_1min_before, load_1min_after, busy_share, steal_share, cpu_stalled_s,
            context_switches_per_s, mhz``; shares are of all CPU time of the machine, ``cpu_stalled_s`` is how long some
            process waited for a CPU, ``mhz`` is the mean of the two readings. None where the kernel does not say.
        """
        spent = [b - a for a, b in zip(self.cpu_ticks, later.cpu_ticks, strict=False)]
        # user nice system idle iowait irq softirq steal (guest time is already in user).
        total = sum(spent[:8])
        known = total > 0 and len(spent) >= 8
        stalled = _less(later.cpu_pressure_us, self.cpu_pressure_us)
        switches = _less(later.context_switches, self.context_switches)
        elapsed_s = later.at_s - self.at_s
        clocks = [one.mhz for one in (self, later) if one.mhz is not None]
        return {
            "started_at": self.at,
            "ended_at": later.at,
            "load_1min_before": self.load_1min,
            "load_1min_after": later.load_1min,
            "busy_share": round(1 - (spent[3] + spent[4]) / total, 4) if known else None,
            "steal_share": round(spent[7] / total, 4) if known else None,
            "cpu_stalled_s": None if stalled is None else round(stalled / 1e6, 3),
            "context_switches_per_s": None
            if switches is None or elapsed_s <= 0
            else round(switches / elapsed_s),
            "mhz": round(sum(clocks) / len(clocks)) if clocks else None,
        }


def _less(later: int | None, before: int | None) -> int | None:
    return None if later is None or before is None else later - before


def _text(path: Path) -> str:
    # Opening works and reading fails where pressure is compiled in and switched off.
    try:
        return path.read_text()
    except OSError:
        return ""


def _mhz(root: Path) -> float | None:
    """Return the mean clock of the CPUs: as the governor sets it, else as the processor's table tells it."""
    governed = [
        int(text) / 1000
        for path in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        if (text := _text(path).strip()).isdigit()
    ]
    told = [float(text) for text in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _cpuinfo(root), re.MULTILINE)]
    clocks = governed or told
    return sum(clocks) / len(clocks) if clocks else None


def busy_share(sample_s: float = 1.0, root: Path = Path("/")) -> float | None:
    """Look for `sample_s` seconds how much of the machine others use; None if the kernel does not say.

    The load average remembers the last minutes; this does not.
    """
    before = Conditions.read(root)
    time.sleep(sample_s)
    share: float | None = before.until(Conditions.read(root))["busy_share"]
    return share


def _engines() -> dict[str, str]:
    """Return the engines' versions as their adapters tell them: two bindings of one engine are two environments."""
    from wasmlab import engines

    found = {}
    for name in engines.names():
        with contextlib.suppress(WasmlabError):
            found[name] = engines.get(name).version
    return found


def _cpu_model(root: Path) -> str:
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def _cpu_flags(root: Path) -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    return match.group(1).split() if match else []


def _cpuinfo(root: Path) -> str:
    return _text(root / "proc/cpuinfo")


def _memory_bytes(root: Path) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def _cgroup(root: Path) -> str:
    base = root / "sys/fs/cgroup"
    if (base / "cgroup.controllers").exists():
        return "v2"
    if (base / "unified" / "cgroup.controllers").exists():
        return "v1 hybrid"
    return "v1" if base.is_dir() and any(base.iterdir()) else "none"
