"""containerd's Task service: the life of a process, from Create to Delete.

References
----------
containerd ``api/runtime/task/v2/shim.proto`` and ``v3``; the meaning of the methods is that of containerd-shim-runc-v2.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.engines import CompileCache
from wasmlab.shim import bundle as bundles
from wasmlab.shim import mounts
from wasmlab.shim.bundle import BundleError
from wasmlab.shim.container import CREATED, PAUSED, RUNNING, STOPPED, Container, Containers, Task
from wasmlab.shim.controls import EMPTY, Controls
from wasmlab.shim.events import timestamp
from wasmlab.shim.execs import Execs
from wasmlab.shim.launcher import TROUBLE, Launcher, reason
from wasmlab.shim.pb import events_pb2, task_pb2
from wasmlab.shim.rpc import (
    ALREADY_EXISTS,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    UNIMPLEMENTED,
    Call,
    RpcError,
)
from wasmlab.shim.spare import Spare
from wasmlab.shim.termination import leave_message

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop
    from wasmlab.shim.events import Publisher
    from wasmlab.shim.spans import Spans
    from wasmlab.shim.verdict import End
    from wasmlab.shim.worker import Worker

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
_PATIENCE_ROUNDS = 500
# containerd enters a container into its books within milliseconds of asking for its end.
_RECOVERY_S = 1.0


class TaskService:
    """The methods, and the containers they are about.

    Parameters
    ----------
    spare : Worker, optional
        A worker of the default engine that was forked ahead.
    on_shutdown : callable
        Called when containerd wants the shim to end and nothing is left to do.
    """

    def __init__(
        self,
        loop: Loop,
        publisher: Publisher,
        cache: CompileCache,
        *,
        default_engine: str,
        spare: Worker | None,
        spans: Callable[[], Spans],
        on_shutdown: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.publisher = publisher
        self.default_engine = default_engine
        self.new_spans = spans
        self.on_shutdown = on_shutdown
        self.containers = Containers()
        self.leaving = 0
        """How many deleted containers still have a cgroup."""
        self._spare = Spare(loop, spare)
        self._launcher = Launcher(loop, publisher, cache, self._spare, self._ended)
        self._controls = Controls(self.containers, publisher)
        self._execs = Execs(self.containers, publisher, self._launcher, self._go)

    def methods(self) -> dict[tuple[str, str], tuple[Any, Callable[[Call, Any], None]]]:
        """Return the table that `rpc.Server` wants."""
        pb = task_pb2
        table = {
            **self._controls.table(),
            "Create": (pb.CreateTaskRequest, self.create),
            "Start": (pb.StartRequest, self.start),
            "Delete": (pb.DeleteRequest, self.delete),
            "Kill": (pb.KillRequest, self.kill),
            "Exec": (pb.ExecProcessRequest, self._execs.add),
            "Wait": (pb.WaitRequest, self.wait),
            "Shutdown": (pb.ShutdownRequest, self.shutdown),
        }
        return {(service, name): entry for service in SERVICES for name, entry in table.items()}

    # -- create and start ---------------------------------------------------------------------------------------------

    def create(self, call: Call, request: Any) -> None:
        """Mount, find, compile if need be, and put a worker into the container; it waits there for Start."""
        begun_ns = time.monotonic_ns()
        if request.id in self.containers:
            raise RpcError(ALREADY_EXISTS, f"container {request.id} exists already")
        if request.checkpoint:
            raise RpcError(UNIMPLEMENTED, "a module cannot be restored from a checkpoint")
        try:
            bundle = bundles.load(request.bundle, request.id)
        except BundleError as error:
            raise RpcError(INVALID_ARGUMENT, str(error)) from None
        container = Container(bundle, self.new_spans())
        if container.spans.last_ns:
            container.spans.add("shim_wait", container.spans.last_ns, begun_ns)
        container.begun_ns = begun_ns
        self.containers[request.id] = container
        try:
            if request.rootfs:
                os.makedirs(bundle.rootfs, mode=0o711, exist_ok=True)
                listed = [(one.type, one.source, one.target, list(one.options)) for one in request.rootfs]
                mounts.mount_rootfs(listed, bundle.rootfs)
                container.mounted = True
            task = Task(container, "", request)
            if bundle.is_sandbox:
                self._launcher.pause(task)
                self._created(call, request, task, None)
                return
            container.engine = bundle.engine(self.default_engine)
            self._launcher.init(task, request, functools.partial(self._created, call, request, task))
        except TROUBLE as error:
            self._undo(container)
            raise RpcError(FAILED_PRECONDITION, reason(error)) from None
        except Exception:
            self._undo(container)
            raise

    def _created(self, call: Call, request: Any, task: Task, problem: tuple[int, str] | None) -> None:
        container = task.container
        if problem is not None:
            self._undo(container)
            call.fail(*problem)
            return
        container.init = task
        self.publisher.publish(
            events_pb2.TaskCreate(
                container_id=request.id,
                bundle=request.bundle,
                rootfs=[
                    events_pb2.EventMount(type=m.type, source=m.source, target=m.target, options=m.options)
                    for m in request.rootfs
                ],
                io=events_pb2.TaskIO(
                    stdin=request.stdin,
                    stdout=request.stdout,
                    stderr=request.stderr,
                    terminal=request.terminal,
                ),
                pid=task.pid,
            )
        )
        call.answer(task_pb2.CreateTaskResponse(pid=task.pid))
        container.spans.add("create", container.begun_ns)

    def _undo(self, container: Container) -> None:
        container.release()
        with contextlib.suppress(OSError):
            container.cgroup.remove()
        self.containers.pop(container.bundle.id, None)

    def start(self, call: Call, request: Any) -> None:
        """Let the worker go."""
        container = self.containers.find(request.id)
        task = container.find(request.exec_id)
        if not request.exec_id:
            container.begun_ns = time.monotonic_ns()
            container.spans.add("start_wait", container.spans.last_ns, container.begun_ns)
        if task.state == STOPPED and not task.started_at:
            why = task.ready if isinstance(task.ready, str) else "it ended before it was started"
            raise RpcError(FAILED_PRECONDITION, why)
        if task.state != CREATED:
            raise RpcError(FAILED_PRECONDITION, "the process has been started already")
        if request.exec_id:
            self._execs.start(call, task)
        elif task.ready is False:
            task.on_ready = functools.partial(self._go, call, task)
        else:
            self._go(call, task, None if task.ready is True else task.ready)

    def _go(self, call: Call, task: Task, problem: str | None) -> None:
        container = task.container
        if problem is not None:
            call.fail(FAILED_PRECONDITION, problem)
            return
        task.started_at, task.started_ns = time.time(), time.monotonic_ns()
        task.state = RUNNING
        if task.worker is not None:
            task.worker.send({"t0": time.monotonic_ns()})
        event: Any
        if task.exec_id:
            event = events_pb2.TaskExecStarted(
                container_id=container.bundle.id, exec_id=task.exec_id, pid=task.pid
            )
        else:
            event = events_pb2.TaskStart(container_id=container.bundle.id, pid=task.pid)
        self.publisher.publish(event)
        call.answer(task_pb2.StartResponse(pid=task.pid))
        if not task.exec_id:
            container.spans.add("start", container.begun_ns)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _ended(self, task: Task, end: End) -> None:
        container = task.container
        task.told = True
        container_id = container.bundle.id
        if end.out_of_memory:
            self.publisher.publish(events_pb2.TaskOOM(container_id=container_id))
        if not task.exec_id:
            container.spans.extend(task.result["spans"] if task.result is not None else ())
            container.spans.add("reaped", container.spans.last_ns, task.reaped_ns)
            container.kill_execs()
            if end.message:
                leave_message(container.bundle.termination_log(), end.message)
        exited_at = timestamp(task.exited_at_ns)
        if task.started_at:
            self.publisher.publish(
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
        task = self.containers.find(request.id).find(request.exec_id)
        waiter: Any = call
        if task.started_ns and call.connected_ns > task.started_ns:
            # This client was not here when the process started: containerd after its own restart. It asks before it
            # has the container in its books, and forgets an answer that comes too early: the pod would run for ever.
            asked_or_ended_ns = task.reaped_ns or time.monotonic_ns()
            waiter = _NotBefore(self.loop, asked_or_ended_ns / 1e9 + _RECOVERY_S, call)
        if task.told:
            waiter.answer(
                task_pb2.WaitResponse(exit_status=task.exit_status, exited_at=timestamp(task.exited_at_ns))
            )
        else:
            task.waiters.append(waiter)

    def kill(self, call: Call, request: Any) -> None:
        """Send a signal to one process, or to all of the container."""
        container = self.containers.find(request.id)
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
        container = self.containers.find(request.id)
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
            self.containers.pop(container_id, None)
            self.leaving += 1
            self._remove_cgroup(container, container.tasks(), _PATIENCE_ROUNDS)
        exited_at = timestamp(task.exited_at_ns)
        event = events_pb2.TaskDelete(
            container_id=container_id, pid=task.pid, exit_status=task.exit_status, exited_at=exited_at
        )
        if not task.exec_id:
            self.publisher.publish(event)
        call.answer(task_pb2.DeleteResponse(pid=task.pid, exit_status=task.exit_status, exited_at=exited_at))

    def _remove_cgroup(self, container: Container, tasks: list[Task], rounds: int) -> None:
        """Remove the cgroup when the last process has left it; nobody waits for that."""
        if rounds and any(task.dying for task in tasks):
            self.loop.after(0.002, lambda: self._remove_cgroup(container, tasks, rounds - 1))
            return
        self.leaving -= 1
        with contextlib.suppress(FileNotFoundError):
            container.cgroup.remove()

    # -- the shim itself ----------------------------------------------------------------------------------------------

    def shutdown(self, call: Call, request: Any) -> None:
        """End, unless containers are left: then this was one of several of the pod."""
        call.answer(EMPTY)
        if not self.containers or request.now:
            self.on_shutdown()

    def close(self) -> None:
        """Kill what runs, unmount, remove: before the shim ends."""
        self._spare.close()
        for container in list(self.containers.values()):
            for task in container.tasks():
                if task.worker is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(task.worker.pid, signal.SIGKILL)
                    os.waitpid(task.worker.pid, 0)
            self._undo(container)


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
