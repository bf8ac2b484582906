"""Runs on disk, so that whoever comes back finds every outcome.

``runs/<id>`` is a file that is made before the run starts (making it is the claim: an id is never run twice) and only
ever grows, by JSON objects on lines of their own: what is to run, then which process runs it, then how it ended. A file
without an outcome whose zygote is gone is a run that was lost, and is said to be. A line that a full disk cut short is
no JSON and counts as not written.

One file and not a directory of them: making a file costs more than all that is written into it, on some file systems
(ext4 without a journal looks through all inodes that were freed in the last seconds) more than running a small guest.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from wasmlab.engines.spec import Outcome, dumps


def read(path: Path | str) -> dict[str, Any]:
    """Return what a run's record holds.

    Returns
    -------
    dict
        ``engine`` and ``spec``; ``pid``, ``zygote`` and ``started_at`` (unix seconds) once it was started; ``outcome``
        once it has ended.

    Raises
    ------
    OSError
        There is no such record.
    """
    with open(path, "rb") as file:
        raw = file.read()
    found: dict[str, Any] = {}
    for line in raw.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.update(json.loads(line))
    return found


class Records:
    """The records of one engine's runs below a zygote's directory."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.root = directory / "runs"
        self.engine = engine
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._root = str(self.root)

    def claim(self, run_id: str, spec: dict[str, Any]) -> None:
        """Begin the record of a new run.

        Raises
        ------
        FileExistsError
            If the id was used before.
        OSError
            If it cannot be written; nothing is left behind then.
        """
        # Strings, not Paths, in what every run goes through: half the time, and fewer pages that a fork shares.
        path = f"{self._root}/{run_id}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, {"engine": self.engine, "spec": spec})
        except OSError:
            os.unlink(path)
            raise

    def started(self, run_id: str, pid: int, started_at: float) -> None:
        """Note which process runs it. Only for people and tools: a failure to write it is no failure of the run."""
        with contextlib.suppress(OSError):
            self._append(run_id, {"pid": pid, "zygote": os.getpid(), "started_at": started_at})

    def ended(self, run_id: str, outcome: Outcome) -> None:
        """Write how it ended, whole or not at all.

        Raises
        ------
        FileNotFoundError
            If somebody removed the record.
        OSError
            If the disk does not take it; try again later.
        """
        self._append(run_id, {"outcome": outcome.to_json()})

    def outcome(self, run_id: str) -> Outcome | None:
        """Return how a run ended; None if it has not, or is unknown."""
        try:
            return Outcome.from_json(read(f"{self._root}/{run_id}")["outcome"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def ids(self) -> list[str]:
        """Return the ids of all runs of this engine, running or ended."""
        found = []
        for entry in sorted(os.listdir(self._root)):
            with contextlib.suppress(OSError):
                if read(f"{self._root}/{entry}").get("engine") == self.engine:
                    found.append(entry)
        return found

    def bury_lost(self) -> list[str]:
        """Give every run that has no outcome one that says it is lost; only right when a new zygote starts.

        Workers die with their zygote, so a run that an earlier zygote left without an outcome does not run any more.
        """
        lost = []
        for run_id in self.ids():
            record = read(f"{self._root}/{run_id}")
            if "outcome" in record:
                continue
            started = float(record.get("started_at") or 0.0)
            message = (
                "the zygote ended without an outcome, and the worker with it"
                if started
                else ("the zygote ended before it noted that this run had started")
            )
            with contextlib.suppress(OSError):
                self.ended(
                    run_id,
                    Outcome(None, "lost", message, started_at=started, finished_at=time.time()),
                )
                lost.append(run_id)
        return lost

    def forget(self, run_id: str) -> None:
        """Remove a run from disk."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._root}/{run_id}")

    def _append(self, run_id: str, value: dict[str, Any]) -> None:
        _write(os.open(f"{self._root}/{run_id}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), value)


def _write(fd: int, value: dict[str, Any]) -> None:
    """Write one line, and close the file."""
    # Not synced: the guests do not survive a power cut either, and a sync takes longer than a run. The line break
    # before it ends what an earlier try may have left unfinished.
    try:
        view = memoryview(b"\n" + dumps(value) + b"\n")
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
