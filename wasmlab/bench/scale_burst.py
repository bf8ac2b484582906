"""Burst: N Pods written as fast as the API server takes them. How many per second, and does that depend on N?

One row per Pod: ``begun_ns`` since the first write of its burst, ``total_ns`` from its own write to Succeeded seen. The
sizes of a block come in random order; between two bursts all Pods are removed, and a few native processes are started
as the control.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from wasmlab.bench.flood import Flood, flood
from wasmlab.bench.scale_rows import Lab
from wasmlab.modules import workloads


def burst(lab: Lab, engine: str, sizes: Sequence[int], block: int, dice: random.Random) -> None:
    """Carry out one block: every size once."""
    work = workloads.get("hello")
    image = lab.pods.prepare(engine, work)
    order = list(sizes)
    dice.shuffle(order)
    for size in order:
        if lab.budget.allows(f"burst of {size:,} on {engine}, block {block}", size * lab.pod_s):
            began = time.monotonic()
            pods = [lab.body(image, engine) for _ in range(size)]
            lab.controls("burst", size, block)
            timeout_s = 60 + 0.2 * size
            flooded = flood(lab.pods.api, lab.pods.watch, lab.pods.namespace, pods, timeout_s=timeout_s)
            keep(lab, "burst", size, block, engine, work, pods, flooded, timeout_s)
            lab.clear()
            lab.pod_s = (time.monotonic() - began) / size


def keep(
    lab: Lab,
    experiment: str,
    load: int,
    block: int,
    engine: str,
    work: workloads.Workload,
    pods: Sequence[tuple[str, bytes]],
    flooded: Flood,
    timeout_s: float,
) -> None:
    """Wait until all Pods that were written have ended, and add a row for every one that was to be."""
    from wasmlab import engines

    watch = lab.pods.watch
    known = flooded.written
    watch.wait(lambda: all("done" in watch.seen.get(name, {}) for name in known), timeout_s)
    zero = min((one.began_ns for one in known.values()), default=0)
    refusals = iter(flooded.errors)
    version = engines.get(engine).version
    for name, _ in pods:
        row: dict = {"engine_version": version, "module_digest": work.digest}
        if name in known:
            one, seen = known[name], watch.seen.get(name, {})
            row |= {"begun_ns": one.began_ns - zero, "api_write_ns": one.answered_ns - one.began_ns}
            for moment, column in (("scheduled", "scheduled_ns"), ("done", "total_ns")):
                if moment in seen:
                    row[column] = seen[moment] - one.began_ns
            row |= _verdict(watch.last.get(name, {}), "done" in seen, timeout_s)
        else:
            row["error"] = next(refusals, f"not written within {timeout_s:g} s")
        lab.rows.add(experiment, load, block, ("node", engine, work.name), **row)


def _verdict(pod: dict, ended: bool, timeout_s: float) -> dict:
    status = pod.get("status", {})
    state = ((status.get("containerStatuses") or [{}])[0].get("state") or {}).get("terminated") or {}
    code = state.get("exitCode")
    if not ended:
        return {"error": f"not ended within {timeout_s:g} s: phase {status.get('phase', 'unknown')}"}
    if status.get("phase") != "Succeeded":
        said = f"{state.get('reason')}: {state.get('message')}"
        return {"error": f"phase {status.get('phase')}; {said}"[:500], "exit_code": code}
    return {"exit_code": code}
