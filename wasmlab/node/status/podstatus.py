"""Build the v1.PodStatus of what happened: pure, and the only place that does.

Records go in (one per container, kept by the worker), a dict in the form of the API comes out. Two dialects:

kubernetes
    phase, conditions and container states as the kubelet computes them.
krustlet
    what Krustlet wrote for a pod that ran to completion: reason and message ``Completed`` on the pod, a ``terminated``
    with no reason (so that ``kubectl get pod`` prints ``ExitCode:0``) and the message ``Module run completed``.
    ``restartPolicy`` is not looked at. Unlike Krustlet's, the exit code of a failure is the module's own.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`` (``getPhase``, ``convertToAPIContainerStatuses``),
``k8s.io/kubernetes/pkg/kubelet/status/generate.go`` (conditions).
"""

from __future__ import annotations

from collections.abc import Sequence

from wasmlab.node.api.times import rfc3339
from wasmlab.node.status.records import ContainerRecord, Ended, Json, PodFacts
from wasmlab.node.status.states import CONTAINER_CREATING, POD_INITIALIZING

# References: k8s.io/kubernetes/pkg/kubelet/container/runtime.go (``MaxPodTerminationMessageLogLength``).
_MESSAGES_BYTES = 12 * 1024
_KINDS = (  # where the API has them, init, ephemeral
    ("containerStatuses", False, False),
    ("initContainerStatuses", True, False),
    ("ephemeralContainerStatuses", False, True),
)


def container_status(
    record: ContainerRecord, *, krustlet: bool = False, message_bytes: int = _MESSAGES_BYTES
) -> Json:
    """v1.ContainerStatus of one record.

    Parameters
    ----------
    message_bytes : int
        What it may say about its end; all containers of a pod share 12 KiB.
    """
    status: Json = {
        "name": record.name,
        "image": record.image,
        "imageID": record.image_id,
        "restartCount": record.restarts,
        "started": record.is_started,
        "ready": record.is_ready,
    }
    ended = record.terminated
    if record.running:
        status["state"] = {"running": {"startedAt": rfc3339(record.started_at or 0)}}
    elif ended is not None:
        status["state"] = {"terminated": _terminated(ended, krustlet, message_bytes)}
        if record.init and not record.sidecar:
            status["ready"] = ended.exit_code == 0
    else:
        waiting = {"reason": record.reason}
        if record.message:
            waiting["message"] = record.message
        status["state"] = {"waiting": waiting}
    last = record.last
    if ended is None and not record.running and record.ended is not None:
        last = record.ended  # waiting for its restart: the end just past is the last state
    if last is not None:
        status["lastState"] = {"terminated": _terminated(last, krustlet, message_bytes)}
    if record.run_id:
        status["containerID"] = f"wasmlab://{record.run_id}"
    return status


def _terminated(ended: Ended, krustlet: bool, message_bytes: int) -> Json:
    terminated: Json = {
        "exitCode": ended.exit_code,
        "startedAt": rfc3339(ended.started_at),
        "finishedAt": rfc3339(ended.finished_at),
    }
    if krustlet:
        terminated["message"] = "Module run completed" if ended.exit_code == 0 else ended.message
        return terminated
    terminated["reason"] = ended.reason
    terminated["containerID"] = f"wasmlab://{ended.run_id}"
    if ended.message:
        terminated["message"] = ended.message.encode()[:message_bytes].decode(errors="ignore")
    return terminated


def phase(records: Sequence[ContainerRecord], restart_policy: str | None, facts: PodFacts) -> str:
    """The pod's phase, as ``getPhase`` has it."""
    if facts.verdict is not None:
        return facts.verdict.phase
    if facts.krustlet:
        restart_policy = "Never"
    pending_init = pending_sidecar = False
    running = waiting = stopped = succeeded = stopped_for_good = 0
    for record in records:
        if not record.init:
            continue
        ended = record.terminated
        if record.sidecar:
            # How one ends, and what it is restarting from, is of no account for the phase.
            if record.running:
                running += 1
                pending_sidecar |= not record.started
            elif not record.has_run:
                waiting += 1
                pending_sidecar = True
        elif ended is None:
            pending_init = True
        elif ended.exit_code != 0:
            if facts.terminal or not record.restarts_after(ended.exit_code, restart_policy):
                return "Failed"
            pending_init = True
    for record in records:
        if not record.main:
            continue
        ended = record.terminated
        if record.running:
            running += 1
        elif ended is not None or record.ended is not None:
            ended = ended or record.ended
            assert ended is not None
            stopped += 1
            # An end counts as a success also while it waits for its restart; `stopped_for_good` decides the phase.
            succeeded += ended.exit_code == 0
            stopped_for_good += not record.restarts_after(ended.exit_code, restart_policy)
        else:
            waiting += 1
    if facts.terminal and running == 0:
        # Nothing will start any more: what never started is no success.
        return (
            "Succeeded" if stopped and stopped == succeeded and not waiting and not pending_init else "Failed"
        )
    if pending_init or waiting or (pending_sidecar and not _initialized(records)):
        return "Pending"
    if running:
        return "Running"
    if stopped != stopped_for_good:
        return "Running"
    return "Succeeded" if stopped == succeeded else "Failed"


def _initialized(records: Sequence[ContainerRecord]) -> bool:
    """Whether a container that is none of the init containers has ever started: what they were for is done."""
    return any(r.main and r.has_run for r in records)


def _conditions(records: Sequence[ContainerRecord], pod_phase: str, facts: PodFacts) -> list[Json]:
    unready = [r.name for r in records if (r.sidecar or r.main) and not r.is_ready]
    uninitialized = [r.name for r in records if r.init and not _has_initialized(r)]
    terminal_reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(pod_phase)

    initialized: Json = {"type": "Initialized", "status": "True"}
    if pod_phase == "Succeeded":
        initialized["reason"] = "PodCompleted"
    elif uninitialized and not _initialized(records):
        initialized |= {
            "status": "False",
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(uninitialized)}]",
        }
    ready: Json = {"status": "True"}
    if terminal_reason:
        ready = {"status": "False", "reason": terminal_reason}
    elif unready:
        ready = {
            "status": "False",
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(unready)}]",
        }
    pod_ready = dict(ready)
    if ready["status"] == "True" and facts.closed_gates:
        pod_ready = {
            "status": "False",
            "reason": "ReadinessGatesNotReady",
            "message": f"corresponding conditions of readiness gates are not True: {', '.join(facts.closed_gates)}",
        }
    # PodReadyToStartContainers: there is no pod sandbox or network to wait for, so it is what the kubelet says of a
    # pod whose sandbox is up, until the pod is over.
    sandbox: Json = {"type": "PodReadyToStartContainers", "status": "False" if terminal_reason else "True"}
    wanted = [
        sandbox,
        initialized,
        {"type": "Ready", **pod_ready},
        {"type": "ContainersReady", **ready},
        # The scheduler wrote it before the pod came here; a pod bound by hand never had one.
        {"type": "PodScheduled", "status": "True"},
    ]
    if facts.verdict is not None and facts.verdict.disruption:
        told = {"reason": "TerminationByKubelet", "message": facts.verdict.message}
        wanted.append({"type": "DisruptionTarget", "status": "True", **told})
    before = {c["type"]: c for c in facts.previous}
    for condition in wanted:
        old = before.get(condition["type"])
        unchanged = old is not None and old.get("status") == condition["status"]
        condition["lastTransitionTime"] = (
            old["lastTransitionTime"]
            if unchanged and old and old.get("lastTransitionTime")
            else rfc3339(facts.now)
        )
        condition.setdefault("reason", None)  # null deletes what an earlier patch set
        condition.setdefault("message", None)
        if facts.generation is not None:
            condition["observedGeneration"] = facts.generation
    return wanted


def _has_initialized(record: ContainerRecord) -> bool:
    if record.sidecar:
        return record.is_started
    return record.terminated is not None and record.terminated.exit_code == 0


def build(records: Sequence[ContainerRecord], restart_policy: str | None, facts: PodFacts) -> Json:
    """The status to write, as the body of a strategic merge patch (null removes a field).

    Parameters
    ----------
    records : sequence of ContainerRecord
        Init containers and containers, in the order of the spec.
    restart_policy : str or None
        ``spec.restartPolicy``.
    facts : PodFacts
        Everything else.

    Returns
    -------
    dict
        v1.PodStatus.
    """
    pod_phase = phase(records, restart_policy, facts)
    reason = message = None
    if facts.verdict is not None:
        reason, message = facts.verdict.reason, facts.verdict.message
    elif facts.krustlet and pod_phase == "Succeeded":
        reason = message = "Completed"
    elif facts.krustlet and pod_phase == "Failed":
        reason, message = "Error", _first_failure(records)
    status: Json = {
        "phase": pod_phase,
        "reason": reason,
        "message": message,
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        # No CNI: a module uses the host's network or none, so the pod's address is the node's, as under hostNetwork.
        "podIP": facts.pod_ip or facts.host_ip,
        "podIPs": [{"ip": facts.pod_ip or facts.host_ip}],
        "startTime": rfc3339(facts.start_time),
        "conditions": _conditions(records, pod_phase, facts),
    }
    if facts.generation is not None:
        status["observedGeneration"] = facts.generation
    share = _MESSAGES_BYTES // len(records)
    for kind, init, ephemeral in _KINDS:
        statuses = [
            container_status(r, krustlet=facts.krustlet, message_bytes=share)
            for r in records
            if r.init is init and r.ephemeral is ephemeral
        ]
        if statuses or kind == "containerStatuses":
            status[kind] = statuses
    return status


def _first_failure(records: Sequence[ContainerRecord]) -> str:
    for record in records:
        ended = record.terminated
        if ended is not None and ended.exit_code != 0:
            return f"container {record.name}: {ended.message or f'exit code {ended.exit_code}'}"
    return "Error"


def initial_reason(has_init: bool, init: bool) -> str:
    """The waiting reason of a container that nothing has happened to yet."""
    return POD_INITIALIZING if has_init and not init else CONTAINER_CREATING
