"""From an image to a module: PULLING, and PULL_BACKOFF for as long as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.containers.backoff import Backoff
from wasmlab.node.inputs.images import PullFailed
from wasmlab.node.spec import podspec
from wasmlab.node.status import states
from wasmlab.node.status.states import State
from wasmlab.node.status.statuswriter import Urgency

if TYPE_CHECKING:
    from wasmlab.node.containers.container import ContainerTask
    from wasmlab.oci.store import StoredModule


async def pull(task: ContainerTask) -> StoredModule:
    """Get the module of a container's image; return when it is there."""
    intervals = task.services.config.intervals
    backoff = Backoff(intervals.backoff_base_s, intervals.backoff_cap_s)
    task.interruptible = True
    while True:
        task.record.move(State.PULLING)
        if task.outdated:
            task.record.image = task.spec["image"]
            backoff.reset()
        task.retry.clear()
        try:
            module = await task.services.images.ensure(task.pod.pod, task.spec, task.event)
            if not task.outdated:
                break
        except PullFailed as failure:
            await _failed(task, failure, backoff)
    task.pod.spans.mark("pulled")
    task.record.image_id = _image_id(task.spec["image"], module)
    return module


async def _failed(task: ContainerTask, failure: PullFailed, backoff: Backoff) -> None:
    image = task.spec["image"]
    wait_s = backoff.to_cap() if failure.hopeless else backoff.failed()
    task.record.move(State.PULL_BACKOFF, failure.reason, failure.message)
    task.pod.changed(Urgency.NOW)
    if task.is_news(failure.message):
        log.info("pull failed", pod=podspec.key(task.pod.pod), image=image, error=failure.message)
        if failure.reason == states.ERR_IMAGE_PULL:
            task.event(events.WARNING, "Failed", f'Failed to pull image "{image}": {failure.message}')
        task.event(events.WARNING, "Failed", f"Error: {failure.reason}")
    first_s = min(1.0, wait_s / 2)
    await task.pause(first_s)
    if failure.reason == states.ERR_IMAGE_PULL and not task.retry.is_set():
        waiting = f'Back-off pulling image "{image}"'
        task.record.move(
            State.PULL_BACKOFF,
            states.IMAGE_PULL_BACKOFF,
            f"{waiting}: {failure.reason}: {failure.message}",
        )
        task.pod.changed(Urgency.NOW)
        if not failure.hopeless:  # the refusal was told once; nobody needs to hear it again
            task.event(events.NORMAL, "BackOff", waiting)
    await task.pause(wait_s - first_s)


def _image_id(image: str, module: StoredModule) -> str:
    """Repository and manifest digest, as the kubelet shows an image."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}@{module.manifest_digest}"
