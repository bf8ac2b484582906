"""Processes that outlive the command that started them: recorded, recognised again, and ended.

A record names a process by pid and start time. Only a process that matches both is ever signalled, so that a record
left by a crash can never end a stranger that was given the same pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmlab.process import start_time_ticks


@dataclass(frozen=True)
class Recorded:
    """A process by pid and start time (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return start_time_ticks(self.pid) == self.start_ticks

    def signal(self, number: int) -> None:
        """Send a signal, if it still is that process."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def recorded(record: dict[str, Any]) -> Recorded | None:
    """Return the process that a state file names (``pid``, ``start_ticks``), or None if it names none."""
    pid, ticks = record.get("pid"), record.get("start_ticks")
    return Recorded(pid, ticks) if pid and ticks else None


def identify(pid: int) -> Recorded | None:
    """Return `pid` as a `Recorded`, or None if there is no such process."""
    ticks = start_time_ticks(pid)
    return None if ticks is None else Recorded(pid, ticks)


def read_record(path: Path) -> dict[str, Any]:
    """Return a state file's content; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def to_json(record: dict[str, Any]) -> str:
    """Return a state file's text."""
    return json.dumps(record, indent=2) + "\n"


def end(processes: Iterable[Recorded], grace_s: float) -> list[Recorded]:
    """End processes together: SIGTERM, and SIGKILL for what still runs after `grace_s`.

    Returns
    -------
    list of Recorded
        Those that had to be killed.
    """
    running = [process for process in processes if process.alive]
    for process in running:
        process.signal(signal.SIGTERM)
    left = _wait(running, grace_s)
    for process in left:
        process.signal(signal.SIGKILL)
    _wait(left, 5.0)
    return left


def _wait(processes: list[Recorded], timeout_s: float) -> list[Recorded]:
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if process.alive]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def sandboxes_under(root: Path) -> list[Recorded]:
    """Return the sandbox zygotes that work in directories below `root`.

    They are found by their command line (``-m wasmlab.sandbox.zygote ... --dir DIR``): they outlive the agent that
    started them on purpose, and so no record of ours is sure to name them.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if "wasmlab.sandbox.zygote" in words and any(_below(word, root) for word in words):
            process = identify(int(entry.name))
            if process is not None:
                found.append(process)
    return found


def _below(word: str, root: Path) -> bool:
    path = word.rpartition("=")[2]  # "--dir=X" and "--dir", "X"
    return path.startswith("/") and Path(path).is_relative_to(root)
