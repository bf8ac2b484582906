"""CPU time of processes. Unlike elapsed time it hardly changes when others use the machine too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended and were waited for; 0 if it is gone."""
    fields = _stat(pid)
    # utime, stime, cutime, cstime: fields 14-17 of proc(5), counted from the state (field 3).
    return sum(int(word) for word in fields[11:15]) * _TICK_S if fields else 0.0


def roots(pids: Iterable[int]) -> set[int]:
    """Return those of `pids` whose parent is not among them: of a zygote and its workers, the zygote."""
    known = set(pids)
    return {pid for pid in known if (fields := _stat(pid)) and int(fields[1]) not in known}


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The command name may hold spaces and parentheses; fields are counted after the last ")".
    return text.rpartition(")")[2].split()
