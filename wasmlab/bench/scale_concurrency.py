"""Concurrency: N runs in flight at any time, each replaced when it has ended. What throughput, at what latency?

Three kinds of arms, in the same blocks: modules in the sandbox without a cluster (path ``local``, N threads that ask
one zygote), modules as Pods (path ``node``), and native processes as the control. One row per run: ``begun_ns`` since
the first one of its level was asked for, ``total_ns`` until its end was known. The client is part of what is measured,
and shares the cores; it writes Pods over four connections at most.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from wasmlab.bench.flood import flood, together
from wasmlab.bench.plan import Arm
from wasmlab.bench.scale_burst import keep
from wasmlab.bench.scale_rows import Lab, said
from wasmlab.modules import workloads

# A level is short if few runs at a time are many rounds, and steady if it has enough rounds at all.
ROUNDS = 6
# In the sandbox; it is only there to keep to a budget.
_EXPECTED_S = 0.005


def concurrency(
    lab: Lab, engines: Sequence[str], levels: Sequence[int], runs: int, block: int, dice: random.Random
) -> None:
    """Carry out one block: every level once for every engine on both paths, and for the control.

    Parameters
    ----------
    levels : sequence of int
        Runs in flight.
    runs : int
        Runs of a level; more where so many are in flight that these would be fewer than `ROUNDS` rounds.
    """
    from wasmlab.sandbox import Sandbox

    work = workloads.get("hello")
    arms = [("control", "native", "true")]
    # Beside Pods on other machines, runs on this one would say something about the machines.
    paths = ("local", "node") if lab.node else ("node",)
    arms += [(path, engine, work.name) for path in paths for engine in engines]
    order = [(arm, level) for arm in arms for level in levels]
    dice.shuffle(order)
    images = {engine: lab.pods.prepare(engine, work) for engine in engines}
    sandboxes = {engine: Sandbox(engine) for engine in engines} if lab.node else {}
    try:
        for engine, sandbox in sandboxes.items():
            _in_sandbox(sandbox, engine, work)()  # compiled, and running, before anything is timed
        for (path, engine, name), level in order:
            count = max(runs, ROUNDS * level)
            what = f"concurrency of {level} on {path} {engine}, block {block}"
            if not lab.budget.allows(what, count * (lab.pod_s if path == "node" else _EXPECTED_S)):
                continue
            if path == "node":
                _pods(lab, images[engine], engine, work, level, count, block)
                continue
            run = (
                _in_sandbox(sandboxes[engine], engine, work)
                if path == "local"
                else lambda: lab.control.run(Arm("control", "native", "exec", "true"))
            )
            closed_loop(run, level, level)  # the pool of workers grows to what is asked of it
            for row in closed_loop(run, level, count):
                lab.rows.add("concurrency", level, block, (path, engine, name), **row)
    finally:
        for sandbox in sandboxes.values():
            sandbox.close()


def _pods(
    lab: Lab, image: str, engine: str, work: workloads.Workload, level: int, count: int, block: int
) -> None:
    pods = [lab.body(image, engine) for _ in range(count)]
    timeout_s = 60 + 0.2 * count
    api, watch, namespace = lab.pods.api, lab.pods.watch, lab.pods.namespace
    flooded = flood(api, watch, namespace, pods, in_flight=level, timeout_s=timeout_s)
    keep(lab, "concurrency", level, block, engine, work, pods, flooded, timeout_s)
    lab.clear()


def _in_sandbox(sandbox: Any, engine: str, work: workloads.Workload) -> Callable[[], dict[str, Any]]:
    from wasmlab.sandbox import RunSpec

    spec = RunSpec(str(work.path), work.digest, work.argv, deadline_s=60.0)
    known = {"engine_version": sandbox.engine.version, "module_digest": work.digest}

    def run() -> dict[str, Any]:
        asked = time.monotonic_ns()
        outcome = sandbox.run(spec)
        total = time.monotonic_ns() - asked
        first = next((span.end_ns for span in outcome.spans if span.phase == "first_byte"), None)
        error = f"{outcome.trap}: {outcome.message}" if outcome.trap else None
        return {
            **known,
            "total_ns": total,
            "first_byte_ns": None if first is None else first - asked,
            "exit_code": outcome.exit_code,
            "error": error or work.check(outcome.stdout, outcome.exit_code),
        }

    return run


def closed_loop(run: Callable[[], dict[str, Any]], in_flight: int, count: int) -> list[dict[str, Any]]:
    """Call `run` `count` times from `in_flight` threads, and return the rows with ``begun_ns``.

    A run that raises is a failed row; Ctrl-C ends the loop after the runs under way.
    """
    rows: list[dict[str, Any]] = []
    numbers = iter(range(count))
    lock = threading.Lock()
    stop = threading.Event()
    zero = time.monotonic_ns()

    def work() -> None:
        while not stop.is_set():
            with lock:
                if next(numbers, None) is None:
                    return
            begun = time.monotonic_ns() - zero
            try:
                row = run()
            except Exception as error:  # one broken run must not cost the others
                row = {"error": said(error)}
            rows.append({**row, "begun_ns": begun})

    together(work, in_flight, stop)
    return rows
