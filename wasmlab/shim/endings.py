"""The end of processes and containers: who hears of it and when, and what goes away."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.shim.container import CREATED, PAUSED, RUNNING, STOPPED, Container, Containers, Task
from wasmlab.shim.controls import EMPTY
from wasmlab.shim.events import timestamp
from wasmlab.shim.pb import events_pb2, task_pb2
from wasmlab.shim.rpc import FAILED_PRECONDITION, Call, RpcError
from wasmlab.shim.termination import leave_message

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop
    from wasmlab.shim.events import Publisher
    from wasmlab.shim.verdict import End

_PATIENCE_ROUNDS = 500
# containerd enters a container into its books within milliseconds of asking for its end.
_RECOVERY_S = 1.0


class Endings:
    """Wait, Kill and Delete, and what a process leaves behind.

    Attributes
    ----------
    leaving : int
        How many deleted containers still have a cgroup.
    """

    def __init__(self, loop: Loop, publisher: Publisher, containers: Containers) -> None:
        self._loop = loop
        self._publisher = publisher
        self._containers = containers
        self.leaving = 0

    def table(self) -> dict[str, tuple[Any, Callable[[Call, Any], None]]]:
        """Return method name -> (type of the request, method)."""
        pb = task_pb2
        return {
            "Wait": (pb.WaitRequest, self.wait),
            "Kill": (pb.KillRequest, self.kill),
            "Delete": (pb.DeleteRequest, self.delete),
        }

    def ended(self, task: Task, end: End) -> None:
        """Tell everybody who waits that a process has ended and its output has been read."""
        container = task.container
        task.told = True
        container_id = container.bundle.id
        if end.out_of_memory:
            self._publisher.publish(events_pb2.TaskOOM(container_id=container_id))
        if not task.exec_id:
            container.spans.extend(task.result["spans"] if task.result is not None else ())
            container.spans.add("reaped", container.spans.last_ns, task.reaped_ns)
            container.kill_execs()
            if end.message:
                leave_message(container.bundle.termination_log(), end.message)
        exited_at = timestamp(task.exited_at_ns)
        if task.started_at:
            self._publisher.publish(
                events_pb2.TaskExit(
                    container_id=container_id,
                    id=task.exec_id or container_id,
                    pid=task.pid,
                    exit_status=task.exit_status,
                    exited_at=exited_at,
                )
            )
        for waiter in task.waiters:
            waiter.answer(task_pb2.WaitResponse(exit_status=task.exit_status, exited_at=exited_at))
        task.waiters.clear()

    def wait(self, call: Call, request: Any) -> None:
        """Answer when the process has ended."""
        task = self._containers.find(request.id).find(request.exec_id)
        waiter: Any = call
        if task.started_ns and call.connected_ns > task.started_ns:
            # This client was not here when the process started: containerd after its own restart. It asks before it
            # has the container in its books, and forgets an answer that comes too early: the pod would run for ever.
            asked_or_ended_ns = task.reaped_ns or time.monotonic_ns()
            waiter = _NotBefore(self._loop, asked_or_ended_ns / 1e9 + _RECOVERY_S, call)
        if task.told:
            waiter.answer(
                task_pb2.WaitResponse(exit_status=task.exit_status, exited_at=timestamp(task.exited_at_ns))
            )
        else:
            task.waiters.append(waiter)

    def kill(self, call: Call, request: Any) -> None:
        """Send a signal to one process, or to all of the container."""
        container = self._containers.find(request.id)
        task = container.find(request.exec_id)
        if request.all and not request.exec_id:
            for one in container.execs.values():
                if one.worker is not None:
                    one.kill(request.signal)
        task.kill(request.signal)
        if container.init is not None and container.init.state == PAUSED and request.signal == signal.SIGKILL:
            # A frozen process does not even die.
            container.cgroup.freeze(False)
        call.answer(EMPTY)

    def delete(self, call: Call, request: Any) -> None:
        """Forget a process that has ended; with the init process goes the container."""
        container = self._containers.find(request.id)
        task = container.find(request.exec_id)
        if task.state == CREATED and task.worker is not None:
            # Never started: end it here, and answer when it has gone.
            task.waiters.append(_Then(lambda: self._deleted(call, container, task)))  # type: ignore[arg-type]
            task.kill(signal.SIGKILL)
            return
        if task.state in (RUNNING, PAUSED):
            raise RpcError(FAILED_PRECONDITION, "process must be stopped before it can be deleted")
        if task.state == STOPPED and not task.told:
            task.waiters.append(_Then(lambda: self._delete_again(call, request)))  # type: ignore[arg-type]
            return
        if not task.exec_id:
            for one in container.execs.values():
                if one.worker is not None:
                    one.waiters.append(_Then(lambda: self._delete_again(call, request)))  # type: ignore[arg-type]
                    return
        self._deleted(call, container, task)

    def _delete_again(self, call: Call, request: Any) -> None:
        try:
            self.delete(call, request)
        except RpcError as error:  # somebody else was faster
            call.fail(error.code, error.message)

    def _deleted(self, call: Call, container: Container, task: Task) -> None:
        container_id = container.bundle.id
        task.close()
        if task.exec_id:
            container.execs.pop(task.exec_id, None)
        else:
            container.release()
            container.spans.add("deleted", container.spans.last_ns)
            container.spans.write(container.bundle, container.engine, task.exit_status)
            self._containers.pop(container_id, None)
            self.leaving += 1
            self._remove_cgroup(container, container.tasks(), _PATIENCE_ROUNDS)
        exited_at = timestamp(task.exited_at_ns)
        event = events_pb2.TaskDelete(
            container_id=container_id, pid=task.pid, exit_status=task.exit_status, exited_at=exited_at
        )
        if not task.exec_id:
            self._publisher.publish(event)
        call.answer(task_pb2.DeleteResponse(pid=task.pid, exit_status=task.exit_status, exited_at=exited_at))

    def _remove_cgroup(self, container: Container, tasks: list[Task], rounds: int) -> None:
        """Remove the cgroup when the last process has left it; nobody waits for that."""
        if rounds and any(task.dying for task in tasks):
            self._loop.after(0.002, lambda: self._remove_cgroup(container, tasks, rounds - 1))
            return
        self.leaving -= 1
        with contextlib.suppress(FileNotFoundError):
            container.cgroup.remove()


class _NotBefore:
    """A waiter that is answered no sooner than at a time (seconds on CLOCK_MONOTONIC)."""

    def __init__(self, loop: Loop, at_s: float, call: Call) -> None:
        self._loop, self._at_s, self._call = loop, at_s, call

    def answer(self, message: Any) -> None:
        left_s = self._at_s - time.monotonic()
        if left_s > 0:
            self._loop.after(left_s, lambda: self._call.answer(message))
        else:
            self._call.answer(message)


class _Then:
    """Stands in the list of waiters to go on when a process has ended."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def answer(self, message: Any) -> None:
        self._action()
