"""Processes that are added to a container that runs (``exec``)."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.shim.bundle import Process
from wasmlab.shim.container import RUNNING, STOPPED, Containers, Task
from wasmlab.shim.controls import EMPTY
from wasmlab.shim.launcher import TROUBLE, Launcher, reason
from wasmlab.shim.pb import events_pb2
from wasmlab.shim.rpc import ALREADY_EXISTS, FAILED_PRECONDITION, INVALID_ARGUMENT, Call, RpcError
from wasmlab.shim.verdict import START_ERROR

if TYPE_CHECKING:
    from wasmlab.shim.events import Publisher


class Execs:
    """Exec adds a process, Start runs it.

    Parameters
    ----------
    go : callable
        Lets a worker that has entered the container run its guest: (call, task, problem or None).
    """

    def __init__(
        self,
        containers: Containers,
        publisher: Publisher,
        launcher: Launcher,
        go: Callable[[Call, Task, str | None], None],
    ) -> None:
        self._containers = containers
        self._publisher = publisher
        self._launcher = launcher
        self._go = go

    def add(self, call: Call, request: Any) -> None:
        """Add a process: another module of the container if ``args[0]`` names one, else the container's own module with
        these arguments."""
        container = self._containers.find(request.id)
        if container.bundle.is_sandbox:
            raise RpcError(FAILED_PRECONDITION, "nothing can be run in a pod's sandbox container")
        if request.exec_id in container.execs:
            raise RpcError(ALREADY_EXISTS, f"exec {request.exec_id} exists already")
        try:
            process = Process.from_spec(json.loads(request.spec.value))
        except (ValueError, TypeError, AttributeError) as error:
            raise RpcError(INVALID_ARGUMENT, f"cannot read the process to run: {error}") from None
        task = Task(container, request.exec_id, request)
        task.run["process"] = process
        container.execs[request.exec_id] = task
        self._publisher.publish(
            events_pb2.TaskExecAdded(container_id=container.bundle.id, exec_id=request.exec_id)
        )
        call.answer(EMPTY)

    def start(self, call: Call, task: Task) -> None:
        """Run it; answered when the worker has entered the container."""
        init = task.container.init
        if init is None or init.state != RUNNING or init.worker is None:
            raise RpcError(FAILED_PRECONDITION, "the container is not running")

        def launched(problem: tuple[int, str] | None) -> None:
            if problem is None:
                task.on_ready = functools.partial(self._go, call, task)
            else:
                _failed(task)
                call.fail(*problem)

        try:
            self._launcher.exec(task, task.run["process"], launched)
        except TROUBLE as error:
            _failed(task)
            raise RpcError(FAILED_PRECONDITION, reason(error)) from None


def _failed(task: Task) -> None:
    task.close()
    task.streams = None
    task.state, task.told = STOPPED, True  # Start's answer tells it
    task.exit_status = START_ERROR
    task.exited_at_ns = time.time_ns()
