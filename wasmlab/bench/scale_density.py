"""Density: how much memory a live Pod takes, and whether the next Pod starts later when many are alive.

A ramp of sleeping Pods. At each level (so many are alive) the private and proportional memory of the node (its agent,
its zygotes, and the worker of every Pod) and of the control plane is read, then a few more Pods are started one after
the other and timed: one row each, ``load`` is how many were alive before it, ``total_ns`` the time from its API write
to a watch that sees it Running. Those Pods stay, and count for the next level. A ramp has an order, so the machine's
drift is in it: the native processes that are started at every level tell.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from wasmlab.bench import cpu, hosts, memory
from wasmlab.bench.flood import flood
from wasmlab.bench.scale_rows import Lab, said
from wasmlab.errors import NotReady, WasmlabError

ARGUMENTS = ("3600",)
_SETTLE_S = 0.5
_RUNNING_S = 60.0
# A live Pod took 4 MB; a machine that swaps measures its disk.
_BYTES_PER_POD = 8 << 20
_SPARE_BYTES = 512 << 20


def density(lab: Lab, engine: str, levels: Sequence[int], probes: int, block: int) -> None:
    """Carry out one ramp and take it down again.

    Parameters
    ----------
    levels : sequence of int
        How many Pods are alive when memory is read; rising.
    probes : int
        How many starts are timed at each level.
    """
    from wasmlab.modules.files import fixture

    image = lab.pods.image(fixture("sleep"), "sleep")
    free = available_bytes() if lab.node else None
    room = hosts.room(lab.cluster) if lab.node is None else None
    live = 0
    try:
        for level in sorted(levels):
            what = f"density from {level:,} Pods up on {engine}, block {block}"
            if free is not None and level * _BYTES_PER_POD + _SPARE_BYTES > free:
                lab.budget.left_out.append(f"{what}: the machine has {free >> 20:,} MiB to spare")
                break
            if room is not None and level + probes > room:
                lab.budget.left_out.append(f"{what}: the cluster's WASM nodes take {room:,} Pods")
                break
            if not lab.budget.allows(what, 0.05 * (level - live) + probes * 0.1):
                break
            try:
                _fill(lab, image, engine, level - live)
            except NotReady as error:
                # The level is a failed row, and nothing above it is tried.
                lab.rows.add(
                    "density", live, block, ("node", engine, "sleep"), level=level, error=said(error)
                )
                break
            live = max(live, level)
            time.sleep(_SETTLE_S)
            lab.controls("density", level, block)
            columns = _memory(lab)
            for _ in range(probes):
                row = _probe(lab, image, engine)
                lab.rows.add("density", live, block, ("node", engine, "sleep"), level=level, **row, **columns)
                columns = {}  # read once: at the level, before the first of them
                live += row["error"] is None
    finally:
        lab.clear()


def _fill(lab: Lab, image: str, engine: str, count: int) -> None:
    if count <= 0:
        return
    watch = lab.pods.watch
    pods = [lab.body(image, engine, ARGUMENTS) for _ in range(count)]
    flooded = flood(lab.pods.api, watch, lab.pods.namespace, pods, timeout_s=_RUNNING_S)
    names = flooded.written

    def running() -> bool:
        return all("running" in watch.seen.get(name, {}) for name in names)

    if len(names) < count or not watch.wait(running, _RUNNING_S + 0.2 * count):
        up = sum("running" in watch.seen.get(name, {}) for name in names)
        raise NotReady(
            f"of {count} more sleeping Pods {up} are Running: {'; '.join(flooded.errors[:1])}", events=[]
        )


def _probe(lab: Lab, image: str, engine: str) -> dict:
    from wasmlab import engines

    row: dict = {"engine_version": engines.get(engine).version, "error": None}
    name, manifest = lab.pods.pod(image, engine, ARGUMENTS)
    watch = lab.pods.watch
    try:
        began, answered, _ = lab.pods.create(manifest)
        row["api_write_ns"] = answered - began
        if not watch.wait(lambda: "running" in watch.seen.get(name, {}), _RUNNING_S):
            raise NotReady(f"not Running within {_RUNNING_S:g} s", events=[])
        if "done" in watch.seen[name]:
            raise NotReady("it ended although it was to sleep", events=[])
    except WasmlabError as error:
        return row | {"error": said(error)}
    seen = watch.seen[name]
    return row | {"scheduled_ns": seen["scheduled"] - began, "total_ns": seen["running"] - began}


def _memory(lab: Lab) -> dict[str, int]:
    from wasmlab.cluster import processes

    if lab.node is None:
        return {}

    agent = lab.node.process
    # Idle workers are left out: how many there are tells what the node did in the last half minute, not how many
    # Pods live.
    own = set(cpu.roots(one.pid for one in processes.sandboxes_under(lab.node.dir)))
    own |= set(memory.running_workers(lab.node.dir)) | ({agent.pid} if agent else set())
    plane = lab.cluster.plane.pid if lab.cluster.plane is not None else None
    node, control = memory.total(own), memory.total([plane] if plane else [])
    return {
        "node_uss_bytes": node.uss_bytes,
        "node_pss_bytes": node.pss_bytes,
        "plane_uss_bytes": control.uss_bytes,
        "plane_pss_bytes": control.pss_bytes,
    }


def available_bytes() -> int | None:
    """Return how much memory can be had without swapping; None if the kernel does not say."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
