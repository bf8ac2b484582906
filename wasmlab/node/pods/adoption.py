"""What is known of a pod's containers when an agent first sees it: by the sandbox's records, and by the API.

The sandbox's word comes first: it wrote a run down before it began. Where its records are gone (its directory was
removed), the API's status is believed as far as it goes: an end that was reported has happened, and what was reported
running is lost. In no case is an attempt begun that may have begun before.
"""

from __future__ import annotations

from wasmlab.node.api.kubeapi import Json
from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.containers.pod import Pod
from wasmlab.node.containers.services import Services
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.spec import podspec
from wasmlab.node.status.podstatus import initial_reason
from wasmlab.node.status.records import ContainerRecord, ended_of

KINDS = {
    "initContainers": "initContainerStatuses",
    "containers": "containerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}


def containers(
    services: Services, pod: Pod, runs: dict[RunId, str], *, krustlet: bool
) -> list[ContainerTask]:
    """Make a task for every container, in the order of the spec, init containers first.

    Parameters
    ----------
    runs : dict of RunId to engine
        Runs of this pod that an earlier agent left on record.
    krustlet : bool
        Whether restart policies are not read.
    """
    spec = pod.pod["spec"]
    return [
        container(services, pod, runs, one, kind, krustlet=krustlet)
        for kind in KINDS
        for one in spec.get(kind) or ()
    ]


def container(
    services: Services, pod: Pod, runs: dict[RunId, str], spec: Json, kind: str, *, krustlet: bool
) -> ContainerTask:
    """Make a task for one container.

    Parameters
    ----------
    spec : dict
        v1.Container, or v1.EphemeralContainer.
    kind : str
        Where it is in the pod's spec.
    """
    name = spec["name"]
    reported = (pod.pod.get("status") or {}).get(KINDS[kind]) or ()
    before: Json = next((one for one in reported if one["name"] == name), {})
    record = _record(spec, before, kind, has_inits=bool(pod.pod["spec"].get("initContainers")))
    if krustlet:
        record.policy, record.rules = None, ()
    mine = {r: e for r, e in sorted(runs.items(), key=lambda i: i[0].attempt) if r.container == name}
    engine = podspec.engine_of(pod.pod, name, services.config.engine)
    task = ContainerTask(services, pod, spec, record, engine, mine)
    _take_note(task, before, pod.uid)
    return task


def _record(spec: Json, before: Json, kind: str, *, has_inits: bool) -> ContainerRecord:
    init = kind == "initContainers"
    sidecar = init and spec.get("restartPolicy") == "Always"
    last = (before.get("lastState") or {}).get("terminated")
    return ContainerRecord(
        name=spec["name"],
        image=spec["image"],
        init=init,
        sidecar=sidecar,
        ephemeral=kind == "ephemeralContainers",
        policy=None if sidecar else spec.get("restartPolicy"),
        rules=spec.get("restartPolicyRules") or (),
        reason=initial_reason(has_inits, init or kind == "ephemeralContainers"),
        restarts=int(before.get("restartCount") or 0),
        image_id=before.get("imageID") or "",
        last=ended_of(last) if last else None,
    )


def _take_note(task: ContainerTask, before: Json, uid: str) -> None:
    record = task.record
    state = before.get("state") or {}
    this = RunId(uid, record.name, record.restarts)
    if task.runs:
        record.image = before.get("image") or record.image  # as it was when that one was started
        task.adopt = list(task.runs)[-1]
        task.engine = task.runs[task.adopt]
        record.restarts = max(record.restarts, task.adopt.attempt)
        record.run_id = str(task.adopt)
    elif "terminated" in state:
        task.reported = ended_of(state["terminated"])
    elif "running" in state:
        # Taking up what is not there reports the run as lost, and restartPolicy decides.
        task.adopt = this
    elif record.last is not None and record.last.run_id == str(this):
        # It waited for its restart; so it does again.
        task.reported, record.last = record.last, None
    task.had_proved = (before.get("started") is True, before.get("ready") is True)
    task.crash.resume(record.restarts)
