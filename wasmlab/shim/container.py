"""A container in the shim: its cgroup, its root file system, its first process and those that exec added."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.sandbox.protocol import receive
from wasmlab.sandbox.verdict import judge
from wasmlab.shim import cgroups, mounts
from wasmlab.shim.pb import task_pb2
from wasmlab.shim.rpc import FAILED_PRECONDITION, NOT_FOUND, Call, RpcError
from wasmlab.shim.verdict import End, read

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop
    from wasmlab.sandbox.spec import Outcome
    from wasmlab.shim.bundle import Bundle
    from wasmlab.shim.spans import Spans
    from wasmlab.shim.stdio import Console, Streams
    from wasmlab.shim.worker import Pause, Worker

CREATED, RUNNING, STOPPED, PAUSED = (
    task_pb2.CREATED,
    task_pb2.RUNNING,
    task_pb2.STOPPED,
    task_pb2.PAUSED,
)


class Task:
    """A process of a container (containerd says: the init process, or an exec)."""

    def __init__(self, container: Container, exec_id: str, request: Any) -> None:
        self.container = container
        self.exec_id = exec_id
        self.stdin, self.stdout, self.stderr = request.stdin, request.stdout, request.stderr
        self.terminal = request.terminal
        self.state = CREATED
        self.worker: Worker | Pause | None = None
        self.streams: Streams | Console | None = None
        self.run: dict[str, Any] = {}
        """What the worker gets: kept for execs, which get their worker when they are started."""
        self.result: dict[str, Any] | None = None
        self.dying = False
        """Whether the guest has ended and its process has not yet."""
        self.waiters: list[Call] = []
        self.on_ready: Callable[[str | None], None] | None = None
        """Called once when the worker has entered the container (or failed to: with the reason)."""
        self.ready: bool | str = False
        self.asked_signal: int | None = None
        self.told = False
        """Whether the end has been told: a process has STOPPED before its client has read all that it printed."""
        self.started_at = 0.0
        self.started_ns = 0
        self.oom_before = 0
        self.exit_status = 0
        self.exited_at_ns = 0
        self.reaped_ns = 0
        self.outcome: Outcome | None = None
        self.last_pid = 0

    @property
    def pid(self) -> int:
        """The worker's process id; the last one after the end."""
        return self.worker.pid if self.worker is not None else self.last_pid

    def attach(self, loop: Loop, worker: Worker | Pause, ended: Callable[[Task, End], None]) -> None:
        """Take charge of `worker`: hear what it says, reap it."""
        self.worker = worker
        worker.sock.setblocking(False)
        loop.watch(worker.sock.fileno(), lambda _: self._hear(loop, worker, ended))
        loop.watch(worker.pidfd, lambda _: self._reap(loop, worker, ended))

    def _hear(self, loop: Loop, worker: Worker | Pause, ended: Callable[[Task, End], None] | None) -> None:
        try:
            message, _ = receive(worker.sock)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            loop.unwatch(worker.sock.fileno())
        elif "ready" in message:
            self._became(True)
        elif "error" in message:
            self._became(str(message["error"]))
        else:
            self.result = message
            if ended is not None:
                self.dying = True
                self._over(worker, 0, 0, ended)

    def _became(self, ready: bool | str) -> None:
        self.ready = ready
        if ready is True and not self.exec_id:
            self.container.spans.add("worker_ready", self.container.begun_ns)
        callback, self.on_ready = self.on_ready, None
        if callback is not None:
            callback(None if ready is True else str(ready))

    def _reap(self, loop: Loop, worker: Worker | Pause, ended: Callable[[Task, End], None]) -> None:
        _, status, usage = os.wait4(worker.pid, 0)
        while loop.watches(worker.sock.fileno()):
            self._hear(loop, worker, None)  # what it said last
        loop.unwatch(worker.pidfd)
        worker.close()
        if self.ready is False:
            self._became(f"the worker ended before it was ready ({_describe(status)})")
        if self.dying:
            self.dying = False
        else:
            self._over(worker, status, usage.ru_maxrss * 1024, ended)

    def _over(
        self, worker: Worker | Pause, status: int, max_rss_bytes: int, ended: Callable[[Task, End], None]
    ) -> None:
        """The guest has ended: judge how. `status` counts only if the worker did not say it."""
        self.reaped_ns, self.exited_at_ns = time.monotonic_ns(), time.time_ns()
        # At once: a containerd that comes back now must find it stopped, even if its output is still to be read.
        self.last_pid, self.worker, self.state = worker.pid, None, STOPPED
        limit = self.container.bundle.memory_limit_bytes
        self.outcome = judge(
            status=status,
            result=self.result,
            asked_signal=self.asked_signal,
            memory_bytes=limit,
            started_at=self.started_at,
            finished_at=self.exited_at_ns / 1e9,
            max_rss_bytes=max_rss_bytes,
        )
        if self.container.bundle.is_sandbox and os.WIFEXITED(status):
            end = End(os.WEXITSTATUS(status), False, "")
        else:
            oom = os.WIFSIGNALED(status) and self.container.cgroup.oom_kills() > self.oom_before
            end = read(self.outcome, status, oom_killed=oom, memory_limit_bytes=limit)
        self.exit_status = end.status
        if end.message and self.result is None and self.streams is not None and self.started_at:
            self.streams.say(f"wasmlab: {end.message}")
        if self.streams is not None:
            self.streams.finish(lambda: ended(self, end))
        else:
            ended(self, end)

    def kill(self, number: int) -> None:
        """Send a signal.

        Raises
        ------
        RpcError
            NOT_FOUND if it has ended (containerd takes that as done).
        """
        if self.state == STOPPED:
            raise RpcError(NOT_FOUND, "process already finished: not found")
        if self.worker is None:
            raise RpcError(FAILED_PRECONDITION, "the process has not been started")
        self.asked_signal = number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.worker.pid, number)

    def close(self) -> None:
        """Let go of the streams."""
        if self.streams is not None:
            self.streams.close()


class Container:
    """What Create made."""

    def __init__(self, bundle: Bundle, spans: Spans) -> None:
        self.bundle = bundle
        self.spans = spans
        self.begun_ns = 0
        self.cgroup = cgroups.find(bundle.cgroup)
        self.init: Task | None = None
        self.execs: dict[str, Task] = {}
        self.engine = ""
        self.mounted = False

    def find(self, exec_id: str) -> Task:
        """Return the process called `exec_id` (the init process for "").

        Raises
        ------
        RpcError
            NOT_FOUND.
        """
        task = self.execs.get(exec_id) if exec_id else self.init
        if task is None:
            raise RpcError(NOT_FOUND, f"process {exec_id or self.bundle.id} does not exist")
        return task

    def tasks(self) -> list[Task]:
        """All processes, the init process first."""
        return [*([self.init] if self.init else []), *self.execs.values()]

    def kill_execs(self) -> None:
        """End what exec started: it does not outlive the init process."""
        for task in self.execs.values():
            # One that was just asked to end keeps the code of that signal.
            if task.worker is not None and task.asked_signal not in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(RpcError):
                    task.kill(signal.SIGKILL)

    def release(self) -> None:
        """Unmount the root file system; the cgroup goes later, it is in nobody's way."""
        for task in self.tasks():
            task.close()
        if self.mounted:
            mounts.unmount_all(self.bundle.rootfs)
            self.mounted = False


class Containers(dict[str, Container]):
    """The containers of a shim by their ids."""

    def find(self, container_id: str) -> Container:
        """Return the container called `container_id`.

        Raises
        ------
        RpcError
            NOT_FOUND.
        """
        container = self.get(container_id)
        if container is None:
            raise RpcError(NOT_FOUND, f"container {container_id} does not exist: not found")
        return container


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"
