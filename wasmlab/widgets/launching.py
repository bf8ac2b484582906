"""Carry out a launch: pods one after the other (a measurement) or all at once (a burst), and cancel it.

One after the other is the bench itself (`wasmlab.bench.runner`): interleaved in random order, with the controls, every
failure a row. All at once writes the pods of all engines in random order as fast as they are taken. Either way
everything is in a namespace of its own, which is removed at the end, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from wasmlab.bench.plan import Plan, cross
from wasmlab.bench.store import Results
from wasmlab.cluster import Cluster
from wasmlab.errors import BenchmarkError, ClusterError
from wasmlab.modules import workloads
from wasmlab.widgets.records import Ending, PodRecord, of_row

if TYPE_CHECKING:
    from wasmlab.bench.flood import Flood
    from wasmlab.containerd import ContainerdNode

# What an ordinary Pod of a running node costs; through containerd every Pod gets a shim of its own.
MODES = {"node": "warm", "containerd": "cached"}
_LOOK_EVERY_S = 0.1
# The node writes its spans after it wrote the status.
_SPANS_LATE_NS = 1_500_000_000
_REMOVE_S = 90.0


class Choice(NamedTuple):
    """What is to be launched: `pods` pods of `workload` on each of `engines`."""

    workload: str
    path: str
    engines: tuple[str, ...]
    pods: int
    at_once: bool = False


class Launch:
    """One launch.

    Parameters
    ----------
    cluster : Cluster
        With a Ready node for that path, on this machine.
    choice : Choice
        What to launch.
    container_node : ContainerdNode, optional
        For the path containerd.
    on_change : callable
        Called from the thread that runs it, whenever there is something new to see.

    Attributes
    ----------
    total : int
        How many pods it has, without controls.
    container_node : ContainerdNode or None
        As given, or as set before it runs.
    results : Results or None
        The rows; None for a burst, which measures no single pod.
    doing : str
        What goes on, for people.
    """

    def __init__(
        self,
        cluster: Cluster,
        choice: Choice,
        container_node: ContainerdNode | None = None,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.choice = choice
        self.total = choice.pods * len(choice.engines)
        self.results: Results | None = None
        self.doing = "preparing: the node pulls and compiles the module"
        self._cluster = cluster
        self.container_node = container_node
        self._on_change = on_change
        self._records: list[PodRecord] = []
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self._executor: Any = None
        # Of a burst: the pods without a record, and when the first one was written.
        self._waiting: dict[str, str] = {}
        self._zero_ns = 0

    def records(self) -> list[PodRecord]:
        """Return the pods that have ended until now."""
        with self._lock:
            return list(self._records)

    def cancel(self) -> None:
        """Start no more pods, and remove those that run; `run` returns soon after."""
        if self._cancelled.is_set() or self._over.is_set():
            return
        self.doing = "cancelling: the pods are removed"
        self._cancelled.set()
        threading.Thread(target=self._unblock, daemon=True, name="wasmlab-cancel").start()
        self._on_change()

    def abandon(self) -> None:
        """Ask once for the removal of everything, and do not wait for it: this process is about to end."""
        self._cancelled.set()
        executor = self._executor
        if executor is not None and not self._over.is_set():
            # In a cluster that is not ours the namespace is not ours either, only the pods with our label are.
            selector = _selector(executor)
            below = f"/pods?labelSelector={quote(selector)}" if selector else ""
            with contextlib.suppress(ClusterError):
                executor.api.request("DELETE", f"/api/v1/namespaces/{executor.namespace}{below}")

    def run(self) -> Ending:
        """Carry it out, and return how it ended.

        Raises
        ------
        WasmlabError
            If it cannot be carried out. A pod that fails is no error but a record.
        """
        from wasmlab.bench import runner
        from wasmlab.bench.control import ControlExecutor

        path = self.choice.path
        try:
            with runner.stack_of({path: self._make_executor(), "control": ControlExecutor()}) as executors:
                self._executor = executors[path]
                ending = self._all_at_once() if self.choice.at_once else self._one_by_one(executors)
                if self._cancelled.is_set():
                    ending = ending._replace(cancelled=True, is_clean=_remove(self._executor, _REMOVE_S))
                return ending
        finally:
            self._over.set()

    # ---------------------------------------------------------------- one after the other

    def _one_by_one(self, executors: dict[str, Any]) -> Ending:
        from wasmlab.bench import environment, runner

        choice = self.choice
        arms = cross((choice.path,), choice.engines, (MODES[choice.path],), (workloads.get(choice.workload),))
        plan = Plan(arms, choice.pods)
        if choice.path == "containerd" and not self._cancelled.is_set():
            executors["containerd"].prepare([arm for arm in plan.arms if arm.path == "containerd"])

        def on_row(row: dict[str, Any]) -> None:
            stopped = self._cancelled.is_set()
            # What fails while it is cancelled was removed, and is counted as such.
            if row["path"] == choice.path and row["engine"] in choice.engines and (row["ok"] or not stopped):
                with self._lock:
                    self._records.append(of_row(row))
            if stopped:
                raise KeyboardInterrupt  # what carry_out understands: it keeps the rows and says so
            self.doing = f"{len(self._records)} of {self.total} pods have ended"
            self._on_change()

        began = time.monotonic()
        done = runner.carry_out(plan, executors, environment.fingerprint(), quiet=True, on_row=on_row)
        seconds = time.monotonic() - began
        stopped = 0
        if self._cancelled.is_set() and done.rows and not done.rows[-1]["ok"]:
            stopped = int(done.rows.pop()["path"] == choice.path)
        with self._lock:
            # Now the warm-up is marked.
            own = [row for row in done.rows if row["path"] == choice.path and row["engine"] in choice.engines]
            self._records = [of_row(row) for row in own]
        self.results = done
        return self._ending(stopped, seconds)

    # ---------------------------------------------------------------- all at once

    def _all_at_once(self) -> Ending:
        from wasmlab.bench.flood import Flood, flood

        executor, work = self._executor, workloads.get(self.choice.workload)
        pods: list[tuple[str, bytes]] = []
        for engine in self.choice.engines:
            for _ in range(self.choice.pods):
                if self._cancelled.is_set():
                    return self._ending(0, 0.0)
                name, manifest = executor.ready_pod(engine, work)
                pods.append((name, json.dumps(manifest).encode()))
                self._waiting[name] = engine
        random.Random(len(pods)).shuffle(pods)
        # Through containerd a pod takes a second or two, and 110 fit on the node at a time.
        timeout_s = 60.0 + len(pods) * (4.0 if self.choice.path == "containerd" else 0.5)
        written, stop = Flood(), threading.Event()
        # With hundreds of errors each says the same; a writer that stops says it once.
        writer = threading.Thread(
            target=flood,
            args=(executor.api, executor.watch, executor.namespace, pods),
            kwargs={"timeout_s": timeout_s, "stop": stop, "into": written},
            daemon=True,
            name="wasmlab-burst",
        )
        began = time.monotonic()
        writer.start()
        try:
            self._follow(written, writer, began + timeout_s)
        finally:
            stop.set()
            writer.join()
        # Those that have ended meanwhile, whether or not their spans have come.
        self._collect(written, patient=False)
        seconds = time.monotonic() - began
        if self._cancelled.is_set():
            return self._ending(len(written.written) - len(self._records), seconds)
        self._note_losses(written, timeout_s)
        return self._ending(0, seconds)

    def _follow(self, written: Flood, writer: threading.Thread, deadline: float) -> None:
        """Make a record of every pod that ends, until all have, it is cancelled, or it takes too long."""
        while not self._cancelled.is_set() and time.monotonic() < deadline:
            all_written = not writer.is_alive()
            if self._collect(written):
                self.doing = f"{len(self._records)} of {self.total} pods have ended"
                self._on_change()
            if all_written and not any(name in written.written for name in self._waiting):
                return
            self._cancelled.wait(_LOOK_EVERY_S)

    def _collect(self, written: Flood, *, patient: bool = True) -> int:
        """Make records of the pods that have ended; with `patient` of those whose spans have come or do not come."""
        from wasmlab.bench.phases import Span, moments

        watch, spans_of = self._executor.watch, getattr(self._executor, "spans_of", None)
        found = []
        now = time.monotonic_ns()
        if not self._zero_ns and written.written:
            self._zero_ns = min(one.began_ns for one in list(written.written.values()))
        for name, engine in list(self._waiting.items()):
            entry, seen = written.written.get(name), watch.seen.get(name, {})
            if name in watch.gone and not self._cancelled.is_set():
                found.append(PodRecord(engine, {}, ok=False, error="somebody deleted it before it ended"))
                del self._waiting[name]
            if entry is None or "done" not in seen:
                continue
            inside = spans_of(entry.uid) if spans_of else ()
            if patient and spans_of and not inside and now - seen["done"] < _SPANS_LATE_NS:
                continue
            # Looked at after the pod: what has failed before it was cancelled has failed by itself.
            ok, error = _how_it_ended(watch.last[name])
            if not ok and self._cancelled.is_set():
                continue
            spans = [
                Span("api_write", entry.began_ns, entry.answered_ns),
                Span("scheduled", entry.began_ns, seen.get("scheduled", seen["done"])),
                Span("status_observed", entry.began_ns, seen["done"]),
                *inside,
            ]
            when = moments(spans, entry.began_ns)
            found.append(PodRecord(engine, when, max(0, entry.began_ns - self._zero_ns), ok, error))
            del self._waiting[name]
        with self._lock:
            self._records += found
        return len(found)

    def _note_losses(self, written: Flood, timeout_s: float) -> None:
        with self._lock:
            for name, engine in self._waiting.items():
                error = f"it did not end within {timeout_s:.0f} s"
                if name not in written.written:
                    error = written.errors[0] if written.errors else "it was not written in time"
                self._records.append(PodRecord(engine, {}, ok=False, error=error))

    # ---------------------------------------------------------------- both

    def _ending(self, stopped: int, seconds: float) -> Ending:
        ended = len(self._records)
        failed = sum(not one.ok for one in self._records)
        return Ending(self.total, ended, failed, stopped, self.choice.at_once, seconds)

    def _unblock(self) -> None:
        """Remove the pods that `run` waits for, as long as it waits."""
        while not self._over.is_set():
            if self._executor is not None:
                _remove(self._executor, 10.0)
            self._over.wait(0.3)
        if self._executor is not None:
            self._executor.api.close()  # this thread's connection

    def _make_executor(self) -> Any:
        if self.choice.path == "containerd":
            from wasmlab.bench.containerd_pods import ContainerdPodExecutor

            if self.container_node is None:
                raise BenchmarkError(
                    "path 2 needs a container node", remedy="give one: ContainerdNode(cluster)"
                )
            return ContainerdPodExecutor(self._cluster, self.container_node)
        from wasmlab.bench.pods import PodExecutor

        if not self._cluster.nodes:
            raise BenchmarkError(
                "this cluster has no WASM node on this machine",
                remedy="start one: cluster.add_node('wasm-node')",
            )
        return PodExecutor(self._cluster, next(iter(self._cluster.nodes.values())).dir)


def _selector(executor: Any) -> str:
    selector: str = getattr(executor, "selector", "")
    return selector


def _remove(executor: Any, timeout_s: float) -> bool:
    """Remove the pods of an executor, and no others; return whether they are gone."""
    from wasmlab.bench import flood

    return flood.remove(executor.api, executor.namespace, _selector(executor), grace_s=1, timeout_s=timeout_s)


def _how_it_ended(pod: dict[str, Any]) -> tuple[bool, str]:
    status = pod.get("status", {})
    if status.get("phase") == "Succeeded":
        return True, ""
    state = (status.get("containerStatuses") or [{}])[0].get("state", {}).get("terminated", {})
    said = [str(one) for one in (state.get("reason"), state.get("message"), status.get("message")) if one]
    return False, ": ".join(dict.fromkeys(said)) or f"phase {status.get('phase')}"
