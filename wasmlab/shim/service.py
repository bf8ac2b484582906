"""containerd's Task service.

References
----------
containerd ``api/runtime/task/v2/shim.proto`` and ``v3``; the meaning of the methods is that of containerd-shim-runc-v2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.any_pb2 import Any as AnyMessage

from wasmlab import __version__, engines
from wasmlab.engines import CompileCache
from wasmlab.engines.spec import Preopen, RunSpec
from wasmlab.errors import WasmlabError
from wasmlab.shim import bundle as bundles
from wasmlab.shim import layer as layers
from wasmlab.shim import mounts
from wasmlab.shim.bundle import BundleError, Process
from wasmlab.shim.container import CREATED, PAUSED, RUNNING, STOPPED, Container, Task
from wasmlab.shim.events import timestamp
from wasmlab.shim.pb import events_pb2, task_pb2
from wasmlab.shim.prepare import Preparer
from wasmlab.shim.rpc import (
    ALREADY_EXISTS,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNIMPLEMENTED,
    UNKNOWN,
    Call,
    RpcError,
)
from wasmlab.shim.stdio import Console, Streams
from wasmlab.shim.worker import UNAVAILABLE, Pause, Worker, enters_root

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop
    from wasmlab.shim.events import Publisher
    from wasmlab.shim.spans import Spans
    from wasmlab.shim.verdict import End

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
# What a worker needs besides the guest's memory: inside the cgroup's limit, so taken off the guest's.
_WORKER_BYTES = 8 << 20
_TERMINATION_MESSAGE_LIMIT = 4096
_PATIENCE_ROUNDS = 500
_EMPTY = task_pb2.Empty()


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
        self.spare = spare
        self.new_spans = spans
        self.on_shutdown = on_shutdown
        self.containers: dict[str, Container] = {}
        self.leaving = 0
        """How many deleted containers still have a cgroup."""
        self.preparer = Preparer(loop, cache)
        if spare is not None:
            # It announces nothing before it gets its request; if it dies, nobody may wait for it.
            loop.watch(spare.pidfd, lambda _: self._spare_died())

    def methods(self) -> dict[tuple[str, str], tuple[Any, Callable[[Call, Any], None]]]:
        """Return the table that `rpc.Server` wants."""
        pb = task_pb2
        table = {
            "State": (pb.StateRequest, self.state),
            "Create": (pb.CreateTaskRequest, self.create),
            "Start": (pb.StartRequest, self.start),
            "Delete": (pb.DeleteRequest, self.delete),
            "Pids": (pb.PidsRequest, self.pids),
            "Pause": (pb.PauseRequest, self.pause),
            "Resume": (pb.ResumeRequest, self.resume),
            "Checkpoint": (pb.Empty, self.checkpoint),
            "Kill": (pb.KillRequest, self.kill),
            "Exec": (pb.ExecProcessRequest, self.exec),
            "ResizePty": (pb.ResizePtyRequest, self.resize),
            "CloseIO": (pb.CloseIORequest, self.close_io),
            "Update": (pb.UpdateTaskRequest, self.update),
            "Wait": (pb.WaitRequest, self.wait),
            "Stats": (pb.StatsRequest, self.stats),
            "Connect": (pb.ConnectRequest, self.connect),
            "Shutdown": (pb.ShutdownRequest, self.shutdown),
        }
        return {(service, name): entry for service in SERVICES for name, entry in table.items()}

    # -- life ---------------------------------------------------------------------------------------------------------

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
                container.cgroup.create(bundle.resources)
                task.attach(self.loop, Pause(self._surroundings(container, bundle.process)), self._ended)
                self._created(call, request, container, task)
                return
            container.engine = bundle.engine(self.default_engine)
            engine = engines.get(container.engine)
            if container.engine in UNAVAILABLE:
                raise BundleError(UNAVAILABLE[container.engine])
            path, wasm = self._module(container, request)
            spec = self._spec(container, bundle.process, path, bundle.process.args)
            task.streams = self._streams(task)
            container.cgroup.create(bundle.resources)
            self.preparer.artifact(
                engine, wasm, spec, functools.partial(self._prepared, call, request, container, task)
            )
        except (BundleError, WasmlabError, OSError) as error:
            self._undo(container)
            raise RpcError(FAILED_PRECONDITION, _text(error)) from None
        except Exception:
            self._undo(container)
            raise

    def _module(self, container: Container, request: Any) -> tuple[str, bytes]:
        bundle = container.bundle
        try:
            return bundles.read_module(bundle, bundle.process)
        except BundleError:
            found = layers.find(
                [text for one in request.rootfs for text in (one.source, *one.options)],
                self.publisher.containerd,
                self.publisher.namespace,
                request.id,
                bundle.annotations.get(layers.IMAGE_NAME),
            )
            if found is None:
                raise
            container.bundle = dataclasses.replace(bundle, layer=found)
            return bundles.read_module(container.bundle, bundle.process)

    def _prepared(
        self, call: Call, request: Any, container: Container, task: Task, spec: RunSpec, found: Path | str
    ) -> None:
        if isinstance(found, str):
            self._undo(container)
            call.fail(FAILED_PRECONDITION, found)
            return
        try:
            self._put_to_work(container, task, container.bundle.process, spec, found)
        except OSError as error:
            self._undo(container)
            call.fail(UNKNOWN, _text(error))
            return
        self._created(call, request, container, task)

    def _created(self, call: Call, request: Any, container: Container, task: Task) -> None:
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

    def _streams(self, task: Task) -> Streams | Console:
        if task.terminal:
            return Console(self.loop, task.stdin, task.stdout)
        return Streams(self.loop, task.stdin, task.stdout, task.stderr)

    def _spec(self, container: Container, process: Process, path: str, argv: tuple[str, ...]) -> RunSpec:
        bundle = container.bundle
        limit = bundle.memory_limit_bytes
        return RunSpec(
            module=path,
            digest="",
            argv=argv,
            env=process.env,
            preopens=_preopens(bundle, container.engine, path),
            memory_bytes=None if limit is None else max(limit - _WORKER_BYTES, limit // 2),
        )

    def _surroundings(self, container: Container, process: Process) -> dict[str, Any]:
        bundle = container.bundle
        return {
            "cgroup": container.cgroup.join_paths(),
            "network": bundle.network,
            "rootfs": "" if bundle.is_sandbox else bundle.rootfs,
            "mounts": list(bundle.mounts),
            "read_only": bundle.read_only,
            "oom_score_adj": process.oom_score_adj,
            "user": {
                "uid": process.uid,
                "gid": process.gid,
                "groups": list(process.groups),
                "capabilities": process.capabilities,
            },
        }

    def _put_to_work(
        self,
        container: Container,
        task: Task,
        process: Process,
        spec: RunSpec,
        artifact: Path,
        mounts_of: int = 0,
    ) -> None:
        spare, self.spare = self.spare, None
        if spare is not None:
            self.loop.unwatch(spare.pidfd)
            if spare.engine != container.engine:
                self._dismiss(spare)
                spare = None
        worker = spare or Worker(container.engine, ahead=False)
        request = {
            **self._surroundings(container, process),
            "spec": spec.to_json(),
            "artifact": str(artifact),
            "terminal": task.terminal,
            "pivot": enters_root(engines.get(container.engine)),
        }
        if mounts_of:
            request["mount_ns_of"] = mounts_of
            # A new network namespace was the init process's; this one joins it.
            if request["network"] == "":
                request["network"] = f"/proc/{mounts_of}/ns/net"
        assert task.streams is not None
        task.oom_before = container.cgroup.oom_kills()
        task.attach(self.loop, worker, self._ended)
        worker.send(request, task.streams.guest)
        task.streams.handed_over()

    def start(self, call: Call, request: Any) -> None:
        """Let the worker go."""
        container = self._container(request.id)
        task = container.find(request.exec_id)
        if not request.exec_id:
            container.begun_ns = time.monotonic_ns()
            container.spans.add("start_wait", container.spans.last_ns, container.begun_ns)
        if task.state == STOPPED and not task.started_at:
            reason = task.ready if isinstance(task.ready, str) else "it ended before it was started"
            raise RpcError(FAILED_PRECONDITION, reason)
        if task.state != CREATED:
            raise RpcError(FAILED_PRECONDITION, "the process has been started already")
        if request.exec_id:
            self._start_exec(call, container, task)
        elif task.ready is False:
            task.on_ready = functools.partial(self._go, call, task)
        else:
            self._go(call, task, None if task.ready is True else task.ready)

    def _go(self, call: Call, task: Task, problem: str | None) -> None:
        container = task.container
        if problem is not None:
            call.fail(FAILED_PRECONDITION, problem)
            return
        task.started_at = time.time()
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

    def _ended(self, task: Task, end: End) -> None:
        container = task.container
        task.state = STOPPED
        container_id = container.bundle.id
        if end.out_of_memory:
            self.publisher.publish(events_pb2.TaskOOM(container_id=container_id))
        if not task.exec_id:
            container.spans.extend(task.result["spans"] if task.result is not None else ())
            container.spans.add("reaped", container.spans.last_ns, task.reaped_ns)
            container.kill_execs()
            if end.message:
                _leave_message(container.bundle.termination_log(), end.message)
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
        task = self._container(request.id).find(request.exec_id)
        if task.state == STOPPED:
            call.answer(
                task_pb2.WaitResponse(exit_status=task.exit_status, exited_at=timestamp(task.exited_at_ns))
            )
        else:
            task.waiters.append(call)

    def kill(self, call: Call, request: Any) -> None:
        """Send a signal to one process, or to all of the container."""
        container = self._container(request.id)
        task = container.find(request.exec_id)
        if request.all and not request.exec_id:
            for one in container.execs.values():
                if one.worker is not None:
                    one.kill(request.signal)
        task.kill(request.signal)
        if container.init is not None and container.init.state == PAUSED and request.signal == signal.SIGKILL:
            # A frozen process does not even die.
            container.cgroup.freeze(False)
        call.answer(_EMPTY)

    def delete(self, call: Call, request: Any) -> None:
        """Forget a process that has ended; with the init process goes the container."""
        container = self._container(request.id)
        task = container.find(request.exec_id)
        if task.state == CREATED and task.worker is not None:
            # Never started: end it here, and answer when it has gone.
            task.waiters.append(_Then(lambda: self._deleted(call, container, task)))  # type: ignore[arg-type]
            task.kill(signal.SIGKILL)
            return
        if task.state in (RUNNING, PAUSED):
            raise RpcError(FAILED_PRECONDITION, "process must be stopped before it can be deleted")
        if not task.exec_id:
            for one in container.execs.values():
                if one.worker is not None:
                    one.waiters.append(_Then(lambda: self.delete(call, request)))  # type: ignore[arg-type]
                    return
        self._deleted(call, container, task)

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

    # -- exec ---------------------------------------------------------------------------------------------------------

    def exec(self, call: Call, request: Any) -> None:
        """Add a process: another module of the container if ``args[0]`` names one, else the container's own module with
        these arguments."""
        container = self._container(request.id)
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
        self.publisher.publish(
            events_pb2.TaskExecAdded(container_id=container.bundle.id, exec_id=request.exec_id)
        )
        call.answer(_EMPTY)

    def _start_exec(self, call: Call, container: Container, task: Task) -> None:
        init = container.init
        if init is None or init.state != RUNNING or init.worker is None:
            raise RpcError(FAILED_PRECONDITION, "the container is not running")
        process: Process = task.run["process"]
        own = container.bundle.process
        try:
            if process.args and bundles.names_module(container.bundle, process):
                argv, source = process.args, process
            else:
                argv, source = (*own.args[:1], *process.args), own
            path, wasm = bundles.read_module(container.bundle, source)
            spec = self._spec(container, process, path, argv)
            task.streams = self._streams(task)
            engine = engines.get(container.engine)
            self.preparer.artifact(engine, wasm, spec, functools.partial(self._exec_prepared, call, task))
        except (BundleError, WasmlabError, OSError) as error:
            self._exec_failed(task)
            raise RpcError(FAILED_PRECONDITION, _text(error)) from None

    def _exec_prepared(self, call: Call, task: Task, spec: RunSpec, found: Path | str) -> None:
        container = task.container
        init = container.init
        problem = found if isinstance(found, str) else ""
        if not problem and (init is None or init.worker is None):
            problem = "the container has ended"
        if problem:
            self._exec_failed(task)
            call.fail(FAILED_PRECONDITION, problem)
            return
        assert init is not None
        assert init.worker is not None
        assert isinstance(found, Path)
        try:
            self._put_to_work(container, task, task.run["process"], spec, found, mounts_of=init.worker.pid)
        except OSError as error:
            self._exec_failed(task)
            call.fail(UNKNOWN, _text(error))
            return
        task.on_ready = functools.partial(self._go, call, task)

    @staticmethod
    def _exec_failed(task: Task) -> None:
        task.close()
        task.streams = None
        task.state = STOPPED
        task.exit_status = 128
        task.exited_at_ns = time.time_ns()

    # -- the rest -----------------------------------------------------------------------------------------------------

    def state(self, call: Call, request: Any) -> None:
        """Say how a process is."""
        container = self._container(request.id)
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
        tasks = self._container(request.id).tasks()
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
        call.answer(_EMPTY)

    def resume(self, call: Call, request: Any) -> None:
        """Let a frozen container go on."""
        init = self._running(request.id, PAUSED)
        init.container.cgroup.freeze(False)
        init.state = RUNNING
        self.publisher.publish(events_pb2.TaskResumed(container_id=request.id))
        call.answer(_EMPTY)

    def _running(self, container_id: str, wanted: int) -> Task:
        init = self._container(container_id).find("")
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
        task = self._container(request.id).find(request.exec_id)
        if task.streams is not None and task.state != STOPPED:
            task.streams.resize(request.width, request.height)
        call.answer(_EMPTY)

    def close_io(self, call: Call, request: Any) -> None:
        """Let the guest see the end of its input."""
        task = self._container(request.id).find(request.exec_id)
        if request.stdin and task.streams is not None:
            task.streams.close_stdin()
        call.answer(_EMPTY)

    def update(self, call: Call, request: Any) -> None:
        """Change limits."""
        container = self._container(request.id)
        try:
            container.cgroup.update(json.loads(request.resources.value))
        except (ValueError, TypeError, AttributeError) as error:
            raise RpcError(INVALID_ARGUMENT, f"cannot read the resources: {error}") from None
        call.answer(_EMPTY)

    def stats(self, call: Call, request: Any) -> None:
        """Report the cgroup's figures."""
        metrics = self._container(request.id).cgroup.metrics()
        packed = AnyMessage(type_url=metrics.DESCRIPTOR.full_name, value=metrics.SerializeToString())
        call.answer(task_pb2.StatsResponse(stats=packed))

    def connect(self, call: Call, request: Any) -> None:
        """Say who is here."""
        container = self.containers.get(request.id)
        pid = container.init.pid if container is not None and container.init is not None else 0
        call.answer(task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=pid, version=__version__))

    def shutdown(self, call: Call, request: Any) -> None:
        """End, unless containers are left: then this was one of several of the pod."""
        call.answer(_EMPTY)
        if not self.containers or request.now:
            self.on_shutdown()

    def close(self) -> None:
        """Kill what runs, unmount, remove: before the shim ends."""
        if self.spare is not None:
            os.kill(self.spare.pid, signal.SIGKILL)
            os.waitpid(self.spare.pid, 0)
        for container in list(self.containers.values()):
            for task in container.tasks():
                if task.worker is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(task.worker.pid, signal.SIGKILL)
                    os.waitpid(task.worker.pid, 0)
            self._undo(container)

    def _remove_cgroup(self, container: Container, tasks: list[Task], rounds: int) -> None:
        """Remove the cgroup when the last process has left it; nobody waits for that."""
        if rounds and any(task.dying for task in tasks):
            self.loop.after(0.002, lambda: self._remove_cgroup(container, tasks, rounds - 1))
            return
        self.leaving -= 1
        with contextlib.suppress(FileNotFoundError):
            container.cgroup.remove()

    def _container(self, container_id: str) -> Container:
        container = self.containers.get(container_id)
        if container is None:
            raise RpcError(NOT_FOUND, f"container {container_id} does not exist: not found")
        return container

    def _spare_died(self) -> None:
        spare, self.spare = self.spare, None
        if spare is not None:
            self.loop.unwatch(spare.pidfd)
            os.waitpid(spare.pid, 0)
            spare.close()

    def _dismiss(self, spare: Worker) -> None:
        """End a worker of the other engine; it is reaped when it has gone, nobody waits for it."""

        def reap(_: int) -> None:
            self.loop.unwatch(spare.pidfd)
            os.waitpid(spare.pid, 0)
            spare.close()

        os.kill(spare.pid, signal.SIGKILL)
        self.loop.watch(spare.pidfd, reap)


class _Then:
    """Stands in the list of waiters to go on when a process has ended."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def answer(self, message: Any) -> None:
        self._action()


def _preopens(bundle: bundles.Bundle, engine: str, module_path: str) -> tuple[Preopen, ...]:
    if enters_root(engines.get(engine)):
        # The worker's root is the container's root by then, mounts included.
        return (Preopen("/", "/", bundle.read_only),)
    return _copied(bundle, module_path)


def _copied(bundle: bundles.Bundle, module_path: str) -> tuple[Preopen, ...]:
    """For an engine that copies directories in: those of the container, without the kernel's."""
    for one in bundle.mounts:
        options = set(one.get("options") or ())
        writable = bool({"bind", "rbind"} & options) and "ro" not in options
        if (
            writable
            and os.path.isdir(one.get("source", ""))
            and one["destination"] not in ("/dev/shm", "/run")
        ):
            raise BundleError(
                f"wasmer cannot give the module {one['destination']} for writing; mount it read-only, or set the "
                f"annotation {bundles.ENGINE_ANNOTATION}: wasmtime"
            )
    kernel_made = {"dev", "proc", "sys"}
    names = set()
    with contextlib.suppress(OSError):
        names = {entry.name for entry in os.scandir(bundle.rootfs) if entry.is_dir(follow_symlinks=False)}
    names |= {one["destination"].split("/")[1] for one in bundle.mounts if one["destination"].count("/") >= 1}
    return tuple(
        Preopen(os.path.join(bundle.rootfs, name), "/" + name, True)
        for name in sorted(names - kernel_made)
        if name
    )


def _leave_message(path: str | None, message: str) -> None:
    """Write the reason to the termination log, unless the guest wrote one itself."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size == 0:
                os.write(fd, message.encode()[:_TERMINATION_MESSAGE_LIMIT])
        finally:
            os.close(fd)


def _text(error: Exception) -> str:
    if isinstance(error, WasmlabError):
        return error.message + (f" (try: {error.remedy})" if error.remedy else "")
    if isinstance(error, OSError):
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return str(error)
