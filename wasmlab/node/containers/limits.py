"""A container's limits from start to end: set up before its module starts, judged and taken down when it has ended.

A guest that asks for more than its limit sees its allocation fail (``memory.grow`` returns -1) and may go on with what
it has; one that gives up over it is OOMKilled with exit code 137, and so is one that the kernel killed because the
whole of it (the engine's side, files in memory) went over the limit of its control group.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from wasmlab.node.api import events
from wasmlab.node.api.kubeapi import Json
from wasmlab.node.containers.services import Services
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import resources
from wasmlab.node.status.records import Ended

if TYPE_CHECKING:
    from wasmlab.sandbox import Outcome, RunSpec

OOM_KILLED = "OOMKilled"


def applied(services: Services, spec: RunSpec, pod: Json, container: Json, run_id: RunId) -> RunSpec:
    """Return `spec` with what holds the container's limits: its control group, else a limit of the worker's data.

    Raises
    ------
    OSError
        The group cannot be made.
    """
    limits = resources.limits(container)
    if not limits.cgroup:
        return spec
    groups = services.groups
    if groups.available:
        # Here and not in a thread: it takes 0.3 ms, and on a busy machine a thread's turn takes several.
        return replace(spec, cgroups=groups.create(run_id, limits.cgroup))
    said = []
    if limits.memory_bytes is not None:
        spec = replace(spec, data_bytes=limits.memory_bytes + resources.SLACK_BYTES)
        said.append("its memory limit is held by the engine and RLIMIT_DATA")
    if "quota" in limits.cgroup.get("cpu", {}):
        said.append("its cpu limit is not held")
    if said:
        text = f"{', '.join(said)}: no control groups here ({groups.why_not})"
        services.recorder.pod(pod, events.WARNING, "LimitsWithoutCgroup", text, container["name"])
    return spec


async def settled(
    services: Services, container: Json, run_id: RunId, end: Ended, outcome: Outcome | None
) -> Ended:
    """Return how a run ended, with what its control group knows of it, which is then removed."""
    limits = resources.limits(container)
    if not limits.cgroup:
        return end
    if not services.groups.available:
        return _without_group(end, outcome, limits.memory_bytes)
    oom = await asyncio.to_thread(_take_down, services, run_id)
    # The kernel may have taken an instance beside the module (kubectl exec); that is not the module's end.
    if oom and outcome is not None and outcome.trap == "killed":
        limit = limits.memory_bytes or 0
        return _oom(end, f"the kernel killed it: its control group's limit of {limit} bytes was reached")
    return end


def _take_down(services: Services, run_id: RunId) -> bool:
    oom = services.groups.oom_killed(run_id)
    services.groups.remove(run_id)
    return oom


def _without_group(end: Ended, outcome: Outcome | None, limit_bytes: int | None) -> Ended:
    crashed = outcome is not None and outcome.trap == "crash" and outcome.max_rss_bytes >= (limit_bytes or 0)
    if crashed and limit_bytes is not None:
        return _oom(end, f"{end.message}: the data limit above {limit_bytes} bytes was reached")
    return end


def _oom(end: Ended, message: str) -> Ended:
    return replace(end, exit_code=128 + signal.SIGKILL, reason=OOM_KILLED, message=message)
