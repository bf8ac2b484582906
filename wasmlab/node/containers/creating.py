"""From a module to a run: CREATING, and CONFIG_ERROR for as long as something is missing.

The start is the one step that is never cancelled: between asking the sandbox and knowing its answer nobody may lose the
run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.errors import InvalidModule, LinkError, Unsupported, WasmlabError
from wasmlab.node import log
from wasmlab.node.api import events
from wasmlab.node.containers import limits, runspec, stdin
from wasmlab.node.inputs import listening
from wasmlab.node.inputs.notmounted import NotMounted
from wasmlab.node.runtime.runs import NotRecorded, RunId
from wasmlab.node.spec import env, podspec
from wasmlab.node.status import outcomes, states, termmessage
from wasmlab.node.status.records import Ended
from wasmlab.node.status.states import State
from wasmlab.node.status.statuswriter import Urgency

if TYPE_CHECKING:
    from wasmlab.node.containers.container import ContainerTask
    from wasmlab.oci.store import StoredModule
    from wasmlab.sandbox import Run, RunSpec


@dataclass(frozen=True)
class Started:
    """A run that has begun."""

    run: Run
    run_id: RunId


async def start(task: ContainerTask, module: StoredModule) -> Started | Ended | None:
    """Start the next attempt of a container.

    Returns
    -------
    Started, Ended or None
        The end of one that cannot be started at all; None if the container was given another image meanwhile.
    """
    task.record.move(State.CREATING)
    run_id = RunId(task.pod.uid, task.record.name, task.record.restarts)
    while True:
        try:
            spec = await runspec.run_spec(
                task.services, task.pod.pod, task.spec, task.engine, module, task.pod.directory
            )
            artifact = await task.services.runtime.prepare(task.engine, spec)
            listening.refuse_taken(spec.listen)
            break
        except (InvalidModule, LinkError) as error:
            return await _not_started(task, error, run_id)
        except NotMounted as error:
            await _not_mounted(task, error.message)
        except (podspec.Refused, env.ConfigError, Unsupported) as error:
            await _config_error(task, states.CONFIG_ERROR, _message(error))
        except (WasmlabError, OSError) as error:
            await _config_error(task, states.CREATE_ERROR, _message(error))
        if task.outdated:
            return None
        task.record.move(State.CREATING)
    task.pod.spans.mark("compiled")
    task.message_directory = None
    if termmessage.opens_files(spec.module, spec.digest):
        spec = _with_message(task, spec)
    task.event(events.NORMAL, "Created", "Container created")
    try:
        run = await _start(task, run_id, spec, artifact)
    except WasmlabError as error:
        log.error("cannot start a module", pod=podspec.key(task.pod.pod), run=run_id, error=_message(error))
        return await _not_started(task, error, run_id)
    task.runs[run_id] = task.engine
    task.event(events.NORMAL, "Started", "Container started")
    return Started(run, run_id)


async def _start(task: ContainerTask, run_id: RunId, spec: RunSpec, artifact: Path) -> Run:
    path = task.log_path(run_id.attempt)
    while True:
        task.interruptible = False  # from here on the run is on record
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(task.pod.directory, 0o700)
            limited = limits.applied(task.services, spec, task.pod.pod, task.spec, run_id)
            with stdin.given(task.spec, task.pod.directory) as fds:
                return await task.services.runtime.start(
                    task.engine, run_id, limited, artifact, path, stdin=fds
                )
        except (NotRecorded, OSError) as error:  # a full disk, say: it never began, and may begin later
            task.interruptible = True
            await _config_error(task, states.CREATE_ERROR, _message(error))
        task.record.move(State.CREATING)


def _with_message(task: ContainerTask, spec: RunSpec) -> RunSpec:
    from wasmlab import engines

    try:
        placed = termmessage.with_place(spec, task.spec, task.message_path(task.record.restarts))
        engines.get(task.engine).check(placed)
        spec = placed
    except (OSError, Unsupported) as error:  # it can run without
        log.warning("no termination message", pod=podspec.key(task.pod.pod), error=_message(error))
    task.message_directory = termmessage.host_directory(spec, task.spec)
    return spec


async def _config_error(task: ContainerTask, reason: str, message: str) -> None:
    task.record.move(State.CONFIG_ERROR, reason, message)
    task.pod.changed(Urgency.NOW)
    if task.is_news(message):
        log.info("cannot create a container", pod=podspec.key(task.pod.pod), error=message)
        task.event(events.WARNING, "Failed", f"Error: {message}")
    if not task.outdated:
        task.retry.clear()
    # A fixed period and not a doubled one, as the kubelet's: a ConfigMap may appear at any moment.
    await task.pause(task.services.config.intervals.backoff_base_s)


async def _not_mounted(task: ContainerTask, message: str) -> None:
    """A volume is not ready: the container goes on being created, as under the kubelet, and an event says why."""
    fresh = (states.CONTAINER_CREATING, states.POD_INITIALIZING)
    reason = task.record.reason if task.record.reason in fresh else states.CONTAINER_CREATING
    task.record.move(State.CREATING, reason, message)
    task.pod.changed(Urgency.NOW)
    if task.is_news(message):
        log.info("cannot mount", pod=podspec.key(task.pod.pod), error=message)
    task.services.recorder.pod(task.pod.pod, events.WARNING, "FailedMount", message)
    await asyncio.sleep(task.mounting.failed())


async def _not_started(task: ContainerTask, error: BaseException, run_id: RunId) -> Ended:
    task.event(events.WARNING, "Failed", f"Error: {_message(error)}")
    end = outcomes.start_error(_message(error), time.time(), str(run_id))
    return await limits.settled(task.services, task.spec, run_id, end, None)


def _message(error: BaseException) -> str:
    return str(getattr(error, "message", None) or error)
