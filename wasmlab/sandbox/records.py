"""Runs on disk, so that whoever comes back finds every outcome.

``runs/<id>/`` is made before the run starts (making it is the claim: an id is never run twice) and holds ``spec.json``,
then ``state.json`` (which process), then ``outcome.json``. A directory without an outcome whose zygote is gone is a run
that was lost, and is said to be.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from wasmlab.engines.spec import Outcome, dumps


class Records:
    """The run directories of one engine below a zygote's directory."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.root = directory / "runs"
        self.engine = engine
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._root = str(self.root)

    def claim(self, run_id: str, spec: dict[str, Any]) -> None:
        """Make the directory of a new run.

        Raises
        ------
        FileExistsError
            If the id was used before.
        OSError
            If it cannot be written; nothing is left behind then.
        """
        # Strings, not Paths, in what every run goes through: half the time, and fewer pages that a fork shares.
        path = f"{self._root}/{run_id}"
        os.mkdir(path, 0o700)
        try:
            self._put(f"{path}/spec.json", {"engine": self.engine, "spec": spec})
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def started(self, run_id: str, pid: int, started_at: float) -> None:
        """Note which process runs it. Only for people and tools: a failure to write it is no failure of the run."""
        with contextlib.suppress(OSError):
            self._put(
                f"{self._root}/{run_id}/state.json",
                {"state": "running", "pid": pid, "zygote": os.getpid(), "started_at": started_at},
            )

    def ended(self, run_id: str, outcome: Outcome) -> None:
        """Write how it ended, whole or not at all.

        Raises
        ------
        OSError
            If the disk does not take it; try again later.
        """
        path = f"{self._root}/{run_id}/outcome.json"
        aside = f"{self._root}/{run_id}/.outcome.new"
        try:
            self._put(aside, outcome.to_json())
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def outcome(self, run_id: str) -> Outcome | None:
        """Return how a run ended; None if it has not, or is unknown."""
        try:
            return Outcome.from_json(json.loads((self.root / run_id / "outcome.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def ids(self) -> list[str]:
        """Return the ids of all runs of this engine, running or ended."""
        found = []
        for entry in sorted(os.listdir(self.root)):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if json.loads((self.root / entry / "spec.json").read_bytes())["engine"] == self.engine:
                    found.append(entry)
        return found

    def bury_lost(self) -> list[str]:
        """Give every run that has no outcome one that says it is lost; only right when a new zygote starts.

        Workers die with their zygote, so a run that an earlier zygote left without an outcome does not run any more.
        """
        lost = []
        for run_id in self.ids():
            if self.outcome(run_id) is not None:
                continue
            started = 0.0
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                started = float(json.loads((self.root / run_id / "state.json").read_bytes())["started_at"])
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
        shutil.rmtree(self.root / run_id, ignore_errors=True)

    @staticmethod
    def _put(path: str, value: Any) -> None:
        # Not synced: the guests do not survive a power cut either, and a sync takes longer than a run.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(dumps(value))
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
