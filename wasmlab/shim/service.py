"""containerd's Task service: how a container and its first process begin; the other methods are `Controls`, `Execs` and
`Endings`.

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
from wasmlab.shim.container import CREATED, RUNNING, STOPPED, Container, Containers, Task
from wasmlab.shim.controls import EMPTY, Controls
from wasmlab.shim.endings import Endings
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

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop
    from wasmlab.shim.events import Publisher
    from wasmlab.shim.spans import Spans
    from wasmlab.shim.worker import Worker

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")


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
        self._spare = Spare(loop, spare)
        self._endings = Endings(loop, publisher, self.containers)
        self._launcher = Launcher(loop, publisher, cache, self._spare, self._endings.ended)
        self._controls = Controls(self.containers, publisher)
        self._execs = Execs(self.containers, publisher, self._launcher, self._go)

    @property
    def leaving(self) -> int:
        """How many deleted containers still have a cgroup."""
        return self._endings.leaving

    def methods(self) -> dict[tuple[str, str], tuple[Any, Callable[[Call, Any], None]]]:
        """Return the table that `rpc.Server` wants."""
        pb = task_pb2
        table = {
            **self._controls.table(),
            **self._endings.table(),
            "Create": (pb.CreateTaskRequest, self.create),
            "Start": (pb.StartRequest, self.start),
            "Exec": (pb.ExecProcessRequest, self._execs.add),
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
