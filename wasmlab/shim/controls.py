"""The methods of the Task service that look at, or steer, what is there already."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.any_pb2 import Any as AnyMessage

from wasmlab import __version__
from wasmlab.shim.container import PAUSED, RUNNING, STOPPED, Containers, Task
from wasmlab.shim.events import timestamp
from wasmlab.shim.pb import events_pb2, task_pb2
from wasmlab.shim.rpc import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, Call, RpcError

if TYPE_CHECKING:
    from wasmlab.shim.events import Publisher

EMPTY = task_pb2.Empty()


class Controls:
    """State, freezing, terminals, limits and figures of the containers."""

    def __init__(self, containers: Containers, publisher: Publisher) -> None:
        self.containers = containers
        self.publisher = publisher

    def table(self) -> dict[str, tuple[Any, Callable[[Call, Any], None]]]:
        """Return method name -> (type of the request, method)."""
        pb = task_pb2
        return {
            "State": (pb.StateRequest, self.state),
            "Pids": (pb.PidsRequest, self.pids),
            "Pause": (pb.PauseRequest, self.pause),
            "Resume": (pb.ResumeRequest, self.resume),
            "Checkpoint": (pb.Empty, self.checkpoint),
            "ResizePty": (pb.ResizePtyRequest, self.resize),
            "CloseIO": (pb.CloseIORequest, self.close_io),
            "Update": (pb.UpdateTaskRequest, self.update),
            "Stats": (pb.StatsRequest, self.stats),
            "Connect": (pb.ConnectRequest, self.connect),
        }

    def state(self, call: Call, request: Any) -> None:
        """Say how a process is."""
        container = self.containers.find(request.id)
        task = container.find(request.exec_id)
        call.answer(
            task_pb2.StateResponse(
                id=request.id,
                bundle=container.bundle.path,
                pid=task.pid,
                status=task.state,
                stdin=task.stdin,
                stdout=task.stdout,
                stderr=task.stderr,
                terminal=task.terminal,
                exit_status=task.exit_status,
                exited_at=timestamp(task.exited_at_ns) if task.state == STOPPED else None,
                exec_id=task.exec_id,
            )
        )

    def pids(self, call: Call, request: Any) -> None:
        """List the processes of a container."""
        tasks = self.containers.find(request.id).tasks()
        # The init process is listed until it is deleted: containerd 2 asks this after its own restart, and throws a
        # task without processes away, exit code and all.
        listed = [one for one in tasks if one.worker is not None or not one.exec_id]
        call.answer(task_pb2.PidsResponse(processes=[task_pb2.ProcessInfo(pid=one.pid) for one in listed]))

    def pause(self, call: Call, request: Any) -> None:
        """Freeze the container."""
        init = self._running(request.id, RUNNING)
        init.container.cgroup.freeze(True)
        init.state = PAUSED
        self.publisher.publish(events_pb2.TaskPaused(container_id=request.id))
        call.answer(EMPTY)

    def resume(self, call: Call, request: Any) -> None:
        """Let a frozen container go on."""
        init = self._running(request.id, PAUSED)
        init.container.cgroup.freeze(False)
        init.state = RUNNING
        self.publisher.publish(events_pb2.TaskResumed(container_id=request.id))
        call.answer(EMPTY)

    def _running(self, container_id: str, wanted: int) -> Task:
        init = self.containers.find(container_id).find("")
        if init.state != wanted or init.worker is None:
            raise RpcError(
                FAILED_PRECONDITION, "the container is not " + ("running" if wanted == RUNNING else "paused")
            )
        return init

    def checkpoint(self, call: Call, request: Any) -> None:
        """Refuse."""
        raise RpcError(
            UNIMPLEMENTED, "checkpoint is not supported: no engine can save a running WASM instance"
        )

    def resize(self, call: Call, request: Any) -> None:
        """Set the size of the terminal."""
        task = self.containers.find(request.id).find(request.exec_id)
        if task.streams is not None and task.state != STOPPED:
            task.streams.resize(request.width, request.height)
        call.answer(EMPTY)

    def close_io(self, call: Call, request: Any) -> None:
        """Let the guest see the end of its input."""
        task = self.containers.find(request.id).find(request.exec_id)
        if request.stdin and task.streams is not None:
            task.streams.close_stdin()
        call.answer(EMPTY)

    def update(self, call: Call, request: Any) -> None:
        """Change limits."""
        container = self.containers.find(request.id)
        try:
            container.cgroup.update(json.loads(request.resources.value))
        except (ValueError, TypeError, AttributeError) as error:
            raise RpcError(INVALID_ARGUMENT, f"cannot read the resources: {error}") from None
        call.answer(EMPTY)

    def stats(self, call: Call, request: Any) -> None:
        """Report the cgroup's figures."""
        metrics = self.containers.find(request.id).cgroup.metrics()
        packed = AnyMessage(type_url=metrics.DESCRIPTOR.full_name, value=metrics.SerializeToString())
        call.answer(task_pb2.StatsResponse(stats=packed))

    def connect(self, call: Call, request: Any) -> None:
        """Say who is here."""
        container = self.containers.get(request.id)
        pid = container.init.pid if container is not None and container.init is not None else 0
        call.answer(task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=pid, version=__version__))
