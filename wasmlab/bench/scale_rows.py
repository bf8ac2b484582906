"""What the scale experiments share: the laboratory they work in, the rows they leave, and when they must stop."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wasmlab.bench import memory
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.environment import now_utc
from wasmlab.bench.flood import remove
from wasmlab.bench.plan import Arm
from wasmlab.bench.store import new_session
from wasmlab.errors import NotReady, WasmlabError

if TYPE_CHECKING:
    from wasmlab.bench.pods import PodExecutor
    from wasmlab.cluster import Cluster, NodeHandle

_CONTROLS = 3


class Rows:
    """Collects rows and adds what all of them have: run, session, block, experiment, size, fingerprint.

    Parameters
    ----------
    fingerprint : str
        Id of the environment.
    """

    def __init__(self, fingerprint: str) -> None:
        self.session = new_session()
        self.rows: list[dict[str, Any]] = []
        self._fingerprint = fingerprint
        self._number = itertools.count()
        self._started: dict[tuple[str, int, int], str] = {}

    def add(
        self, experiment: str, load: int, block: int, arm: tuple[str, str, str], **measured: Any
    ) -> dict[str, Any]:
        """Add one run.

        Parameters
        ----------
        experiment : str
            ``burst``, ``density`` or ``concurrency``.
        load : int
            N: Pods of the burst, live Pods, or runs in flight.
        block : int
            Which block.
        arm : tuple of str
            Path, engine, workload. The mode is made of the experiment and of N (for density of the level, ``level``).
        **measured
            Columns; without ``ok`` it is whether there is no ``error``.
        """
        path, engine, workload = arm
        level = measured.pop("level", load)
        # One time for all runs of a level: thousands of different ones would be half of the file.
        started = self._started.setdefault((experiment, level, block), now_utc())
        row = {
            "run_id": f"{self.session}-{next(self._number):05d}",
            "session": self.session,
            "block": block,
            "path": path,
            "engine": engine,
            "mode": f"{experiment}-{level}",
            "workload": workload,
            "experiment": experiment,
            "load": load,
            "error": None,
            "started_at": started,
            "fingerprint": self._fingerprint,
            **measured,
        }
        row.setdefault("ok", row["error"] is None)
        self.rows.append(row)
        return row


@dataclass
class Budget:
    """How long a measurement may take, and what was left out because of it.

    Attributes
    ----------
    seconds : float or None
        None: as long as it takes.
    left_out : list of str
        In words.
    """

    seconds: float | None = None
    left_out: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self.clock()

    def allows(self, what: str, expected_s: float = 0.0) -> bool:
        """Return whether there is time for something that will take about `expected_s`; remember it if not."""
        if self.seconds is None or self.clock() - self._began + expected_s <= self.seconds:
            return True
        self.left_out.append(what)
        return False


@dataclass
class Lab:
    """Where it is measured: a cluster, its WASM node if that is on this machine, a namespace with a watch on it.

    ``pod_s`` is how long a Pod of the last burst took, all in all; until one was measured, a guess. It is only there to
    keep to a budget.
    """

    cluster: Cluster
    node: NodeHandle | None
    pods: PodExecutor
    rows: Rows
    budget: Budget
    control: ControlExecutor = field(default_factory=ControlExecutor)
    pod_s: float = 0.02

    def __post_init__(self) -> None:
        # What ran on the node before is not ours to wait for.
        self._others = self._workers()

    def body(self, image: str, engine: str, args: tuple[str, ...] = ()) -> tuple[str, bytes]:
        """Return the name and the manifest of a fresh Pod, as bytes to send."""
        name, manifest = self.pods.pod(image, engine, args)
        return name, json.dumps(manifest).encode()

    def controls(self, experiment: str, load: int, block: int) -> None:
        """Start a few native processes one after the other: what the machine is like just now."""
        for _ in range(_CONTROLS):
            row = self.control.run(Arm("control", "native", "exec", "true"))
            self.rows.add(experiment, load, block, ("control", "native", "true"), **row)

    def clear(self, timeout_s: float = 300.0) -> None:
        """Remove all Pods and wait until nothing of them runs: the next size starts from the same state.

        Raises
        ------
        NotReady
            If they do not go.
        """
        deadline = time.monotonic() + timeout_s
        gone = remove(self.pods.api, self.pods.namespace, self.pods.selector, timeout_s=timeout_s)
        while gone and self._running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not gone or self._running():
            raise NotReady(f"the Pods of the measurement did not go within {timeout_s:g} s", events=[])

    def _running(self) -> set[int]:
        return self._workers() - self._others

    def _workers(self) -> set[int]:
        # A node elsewhere has ended a Pod when the Pod is gone from the API.
        return set(memory.running_workers(self.node.dir)) if self.node else set()


def said(error: Exception) -> str:
    """Return an error as it goes into a row."""
    text = error.message if isinstance(error, WasmlabError) else str(error)
    return f"{type(error).__name__}: {text}"[:500]
