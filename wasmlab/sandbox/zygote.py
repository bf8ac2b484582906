"""The zygote: one single-threaded process per engine that forks workers ahead, feeds them and reaps them.

``python -m wasmlab.sandbox.zygote --engine E --dir D [--workers N] [--linger S] [--cache ROOT]``

It imports the engine's bindings once, never compiles and never runs a guest. It outlives its clients: recorded runs go
on without them (`records`), other runs end with their client. With no client and no run it ends by itself after
``--linger`` seconds.

Everything happens in one epoll loop. Latency rules its order: a request goes to a worker before it is answered or
written down; workers are forked again only when nothing else is to do, a moment after the request was served.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import heapq
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wasmlab import engines
from wasmlab.engines.cache import CompileCache
from wasmlab.errors import WasmlabError
from wasmlab.sandbox import limits, worker
from wasmlab.sandbox.logs import LogPump
from wasmlab.sandbox.protocol import (
    PROTOCOL,
    close_all,
    pack,
    receive,
    send,
    short_path,
    socket_name,
    valid_id,
)
from wasmlab.sandbox.records import Records
from wasmlab.sandbox.spec import Outcome, Span
from wasmlab.sandbox.verdict import judge

# After a request the fork of the next worker waits so long: the guest's first output comes first.
_REFILL_DELAY_S = 0.003
_REHEARSE_DELAY_S = 0.001
_MAX_IDLE = 16
_SHRINK_EVERY_S = 2.0
_DISK_RETRY_S = 0.5
# How long an ended run waits for a full disk to take the rest of its log before it is given up, and said so.
_LOG_PATIENCE_S = 3.0
_PARTIAL_LINE_S = 0.2
_FORK_FAILURES = 5
_OUTBOX_LIMIT = 10_000

_LOCK_PATIENCE_S = 6.0
# Reference counting frees nearly everything; the collector, off for the workers' sake, is run now and then.
_COLLECT_EVERY_S = 60.0

_EXIT_BUSY = 3


class _Worker:
    """A forked process: idle, then with a run."""

    __slots__ = ("pid", "pidfd", "ready", "run", "sock")

    def __init__(self, pid: int, pidfd: int, sock: socket.socket) -> None:
        self.pid, self.pidfd, self.sock = pid, pidfd, sock
        self.ready = False
        self.run: _Run | None = None


class _Run:
    """A run from its request to its outcome."""

    def __init__(self, request: dict[str, Any], fds: list[int], peer: _Peer | None) -> None:
        self.id: str = request["id"]
        self.request = request
        self.fds = fds
        self.record = bool(request.get("record"))
        self.watchers = {peer} if peer is not None else set()
        self.owner: _Peer | None = None if self.record else peer
        self.t0 = int(request["t0"])
        self.worker: _Worker | None = None
        self.pump: LogPump | None = None
        self.seq = request.get("seq")
        self.peer: _Peer | None = peer
        self.started_at = 0.0
        self.result: dict[str, Any] | None = None
        self.asked_signal: int | None = None
        self.deadline_passed = False
        self.status: int | None = None
        self.max_rss = 0
        self.finished_at = 0.0
        self.reaped_ns = 0
        self.give_up_at = 0.0
        self.partial_timer = False
        self.outcome: Outcome | None = None


class _Peer:
    """A client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.outbox: collections.deque[bytes] = collections.deque()


class Zygote:
    """The loop. `run_forever` returns when it is time to end."""

    def __init__(
        self, engine_name: str, directory: Path, workers: int, linger_s: float, cache_root: Path
    ) -> None:
        self.engine = engines.get(engine_name)
        self.directory = directory
        self.base_idle = workers
        self.target_idle = workers
        self.linger_s = linger_s
        self.records = Records(directory, engine_name)
        self.idle: collections.deque[_Worker] = collections.deque()
        self.queue: collections.deque[_Run] = collections.deque()
        self.runs: dict[str, _Run] = {}
        self.unwritten: dict[str, Outcome] = {}
        self.peers: set[_Peer] = set()
        self.started_total = 0
        self.fork_failures = 0
        self.fork_not_before = 0.0
        self.refill_at = 0.0
        self.idle_since = time.monotonic()
        self.ending = False
        self.rehearsed = False
        self.stage = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.cache_root = cache_root
        self.lost = self.records.bury_lost()
        self.pid = os.getpid()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Open the socket (an old file of that name is a dead zygote's: we hold the lock)."""
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        name = socket_name(self.engine.name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.directory / name)
        with short_path(self.directory, name) as path:
            self.listener.bind(path)
        os.chmod(self.directory / name, 0o600)
        self.listener.listen(128)
        self.listener.setblocking(False)
        self._watch(self.listener.fileno(), self._accept)
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_end)
        self._watch(wake_read, lambda _: self._drain_wakeups(wake_read))

    def run_forever(self) -> None:
        """Serve until asked to end, or until nobody has needed us for the linger time."""
        self._after(_SHRINK_EVERY_S, self._shrink)
        self._after(_COLLECT_EVERY_S, self._collect)
        while not self.ending:
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()
            if self.ending:
                break
            wanted = self._forks_wanted()
            timeout = self.timers[0][0] - now if self.timers else 3600.0
            if not self.rehearsed:
                timeout = min(timeout, _REHEARSE_DELAY_S)
            if wanted:
                may_fork_at = (
                    self.fork_not_before if self.queue else max(self.refill_at, self.fork_not_before)
                )
                timeout = min(timeout, may_fork_at - now)
            events = self.epoll.poll(max(0.0, timeout))
            for fd, event in events:
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler(event)
            # Forking waits until everything that is known has been dealt with; one at a time, then look again.
            if not events or self.queue:
                now = time.monotonic()
                ready = now >= (
                    self.fork_not_before if self.queue else max(self.refill_at, self.fork_not_before)
                )
                if ready and self._forks_wanted():
                    self._fork()
                    self.rehearsed = False
                elif not events and not self.rehearsed:
                    self._rehearse()
            self._end_if_unneeded()

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self.handlers[fd] = handler
        self.epoll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (time.monotonic() + delay_s, next(self._count), action))

    def _asked_to_end(self, number: int, frame: Any) -> None:
        self.ending = True

    @staticmethod
    def _drain_wakeups(fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)

    def _end_if_unneeded(self) -> None:
        if self.peers or self.runs or self.queue or self.unwritten:
            self.idle_since = time.monotonic()
            return
        passed = time.monotonic() - self.idle_since
        if passed >= self.linger_s:
            self.ending = True

    def _shrink(self) -> None:
        # The pool grew for a burst; let it come back slowly. This timer also wakes the loop for the linger check.
        if self.target_idle > self.base_idle:
            self.target_idle -= 1
        while len(self.idle) > self.target_idle:
            self._discard(self.idle.pop())
        self._after(min(_SHRINK_EVERY_S, max(0.05, self.linger_s)), self._shrink)

    def _collect(self) -> None:
        gc.collect()
        self._after(_COLLECT_EVERY_S, self._collect)

    def close(self) -> None:
        """Kill every worker, write what is known of their runs, and remove the socket."""
        for run in list(self.runs.values()):
            if run.worker is not None:
                run.asked_signal = run.asked_signal or signal.SIGKILL
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5.0
        while any(run.worker is not None for run in self.runs.values()) and time.monotonic() < deadline:
            for fd, event in self.epoll.poll(0.2):
                handler = self.handlers.get(fd)
                if handler is not None and fd != self.listener.fileno():
                    handler(event)
        for one in self.idle:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        for run_id, outcome in self.unwritten.items():
            with contextlib.suppress(OSError):
                self.records.ended(run_id, outcome)
        with contextlib.suppress(OSError):
            os.unlink(self.directory / socket_name(self.engine.name))

    # -- workers ----------------------------------------------------------------------------------------------------

    def _forks_wanted(self) -> bool:
        return len(self.idle) < self.target_idle or bool(self.queue)

    def _fork(self) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._fork_failed(f"cannot make a worker's socket: {error.strerror}")
            return
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._fork_failed(f"cannot fork a worker: {error.strerror}")
            return
        if pid == 0:
            worker.serve(self.engine, theirs, self.pid, rehearse=not self.queue)
        theirs.close()
        ours.setblocking(False)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            ours.close()  # the worker ends when it finds that
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._fork_failed(f"cannot watch a worker: {error.strerror}")
            return
        one = _Worker(pid, pidfd, ours)
        self._watch(one.pidfd, lambda _: self._reap(one))
        self._watch(ours.fileno(), lambda _: self._worker_says(one))
        if self.queue:
            self._dispatch(self.queue.popleft(), one)
        else:
            self.idle.append(one)

    def _rehearse(self) -> None:
        """Go through a whole run without a worker.

        A fork makes every page of this process copy-on-write, and Python writes to nearly every page it looks at (it
        counts references): 0.3 ms of page faults that the next request need not wait for.
        """
        self.rehearsed = True
        here, there = self.stage
        spec = {"deadline_s": None, "memory_bytes": None, "argv": ["noop"], "env": [], "preopens": []}
        request = {"op": "run", "seq": 1, "id": "-", "spec": spec, "artifact": "-", "t0": 0, "cold": False}
        send(here, pack(request), (self.null, self.null, self.null))
        message, fds = receive(there)
        assert message is not None
        run = self.runs["-"] = _Run(message, fds, None)
        before = self.started_total, self.refill_at
        self._dispatch(run, _Worker(0, -1, there))
        self.started_total, self.refill_at = before
        _, fds = receive(here)
        close_all(fds)
        result = {"exit_code": 0, "trap": None, "message": "", "spans": [["spawn", 0, 0]]}
        send(here, pack(result))
        run.result, _ = receive(there)
        run.worker, run.status = None, 0
        self._settle(run)

    def _fork_failed(self, reason: str) -> None:
        self.fork_failures += 1
        self.fork_not_before = time.monotonic() + 0.1 * self.fork_failures
        say(reason)
        if self.fork_failures >= _FORK_FAILURES:
            # Whoever waits is told; the next request is a new chance.
            self.fork_failures = 0
            while self.queue:
                run = self.queue.popleft()
                self._finish(
                    run, Outcome(None, "failed", reason, started_at=time.time(), finished_at=time.time())
                )

    def _discard(self, one: _Worker) -> None:
        # Reaped like any other when the kernel tells.
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            self.idle.remove(one)

    def _take_idle(self) -> _Worker | None:
        for _ in range(len(self.idle)):
            if self.idle[0].ready:
                return self.idle.popleft()
            self.idle.rotate(-1)
        return self.idle.popleft() if self.idle else None

    def _dispatch(self, run: _Run, one: _Worker) -> None:
        """Hand a run to a worker: nothing here that the guest could do without."""
        request = {"spec": run.request["spec"], "artifact": run.request["artifact"], "t0": run.t0}
        if run.request.get("cold"):
            request["cold"] = True
        fds = run.fds
        if run.pump is not None:
            request["framed"] = True
            fds = [self.null, run.pump.guest_end]
        run.started_at = time.time()
        run.worker, one.run = one, run
        try:
            send(one.sock, pack(request), fds)
        except OSError:
            pass  # the worker died while idle: reaping it will tell
        close_all(run.fds)
        run.fds = []
        if run.pump is not None:
            run.pump.close_guest_end()
            self._watch(run.pump.pipe, lambda _: self._pump(run))
        deadline = run.request["spec"]["deadline_s"]
        if deadline is not None:
            self._after(deadline, lambda: self._deadline(run))
        self._reply(run.peer, {"op": "started", "seq": run.seq, "id": run.id, "pid": one.pid})
        if run.record:
            self.records.started(run.id, one.pid, run.started_at)
        self.started_total += 1
        if not self.queue:
            self.refill_at = time.monotonic() + _REFILL_DELAY_S

    def _worker_says(self, one: _Worker) -> None:
        try:
            message, fds = receive(one.sock)
        except BlockingIOError:
            return
        close_all(fds)
        if message is None:
            self._unwatch(one.sock.fileno())  # it ended; its pidfd tells the rest
        elif "ready" in message:
            one.ready = True
            self.fork_failures = 0
        elif one.run is not None:
            one.run.result = message

    def _reap(self, one: _Worker) -> None:
        _, status, usage = os.wait4(one.pid, 0)
        reaped_ns = time.monotonic_ns()
        # What it said last may still be in the socket.
        if one.sock.fileno() in self.handlers:
            self._worker_says(one)
            self._unwatch(one.sock.fileno())
        self._unwatch(one.pidfd)
        os.close(one.pidfd)
        one.sock.close()
        run = one.run
        if run is None:
            with contextlib.suppress(ValueError):
                self.idle.remove(one)
                self._fork_failed(f"an idle worker ended by itself ({_describe(status)}); see above")
            return
        run.worker, run.status = None, status
        run.max_rss = usage.ru_maxrss * 1024
        run.finished_at, run.reaped_ns = time.time(), reaped_ns
        run.give_up_at = time.monotonic() + _LOG_PATIENCE_S
        self._settle(run)

    def _deadline(self, run: _Run) -> None:
        if run.worker is not None:
            run.deadline_passed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.worker.pid, signal.SIGKILL)

    # -- output and ends --------------------------------------------------------------------------------------------

    def _pump(self, run: _Run) -> None:
        pump = run.pump
        assert pump is not None
        pump.pump()  # one portion: other runs get their turn
        if pump.ended:
            self._unwatch(pump.pipe)
            self._settle(run)
        elif pump.blocked:
            say(f"run {run.id}: the disk does not take its log {pump.path}; trying again")
            self._unwatch(pump.pipe)
            self._after(_DISK_RETRY_S, lambda: self._unblock(run))
        elif pump.pending and not run.partial_timer:
            run.partial_timer = True
            self._after(_PARTIAL_LINE_S, lambda: self._flush_partial(run))

    def _unblock(self, run: _Run) -> None:
        pump = run.pump
        if pump is None or self.runs.get(run.id) is not run:
            return
        if pump.retry():
            self._watch(pump.pipe, lambda _: self._pump(run))
        elif run.status is not None and time.monotonic() >= run.give_up_at:
            self._settle(run, give_up=True)
        else:
            self._after(_DISK_RETRY_S, lambda: self._unblock(run))

    def _flush_partial(self, run: _Run) -> None:
        run.partial_timer = False
        if run.pump is not None and self.runs.get(run.id) is run and not run.pump.ended:
            run.pump.flush()

    def _settle(self, run: _Run, *, give_up: bool = False) -> None:
        """Finish a run once its worker is reaped and its output is written."""
        if run.status is None:
            return
        pump = run.pump
        spans = [Span("reaped", run.t0, run.reaped_ns)]
        lost = 0
        if pump is not None:
            while not pump.ended and not pump.blocked and pump.pump():
                pass
            if not give_up and (pump.blocked or not pump.ended):
                return  # the retry timer, or the end of the pipe, comes back here
            self._unwatch(pump.pipe)
            if pump.first_byte_ns is not None:
                spans.append(Span("first_byte", run.t0, pump.first_byte_ns))
            pump.close()
            lost = pump.lost_bytes
            run.pump = None
        spec = run.request["spec"]
        outcome = judge(
            status=run.status,
            result=run.result,
            asked_signal=run.asked_signal,
            deadline_s=spec["deadline_s"],
            deadline_passed=run.deadline_passed,
            memory_bytes=spec["memory_bytes"],
            started_at=run.started_at,
            finished_at=run.finished_at,
            max_rss_bytes=run.max_rss,
            spans=tuple(spans),
        )
        if lost:
            note = f"{lost} bytes of the log were lost: the disk was full"
            outcome = Outcome.from_json(
                {
                    **outcome.to_json(),
                    "log_lost_bytes": lost,
                    "message": f"{outcome.message}; {note}" if outcome.message else note,
                }
            )
        self._finish(run, outcome)

    def _finish(self, run: _Run, outcome: Outcome) -> None:
        del self.runs[run.id]
        if run.pump is not None:
            run.pump.close()
            run.pump = None
        close_all(run.fds)
        run.fds = []
        if run.peer is not None and run.started_at == 0.0:
            # It never started: the request itself is answered.
            self._reply(run.peer, {"op": "started", "seq": run.seq, "id": run.id, "pid": 0})
        if run.record:
            self._write_outcome(run.id, outcome)
        message = {"op": "ended", "id": run.id, "outcome": outcome.to_json()}
        for peer in run.watchers:
            self._reply(peer, message)

    def _write_outcome(self, run_id: str, outcome: Outcome) -> None:
        try:
            self.records.ended(run_id, outcome)
            self.unwritten.pop(run_id, None)
        except FileNotFoundError:
            # Somebody removed its directory: that is a way to say that nobody wants to know.
            self.unwritten.pop(run_id, None)
            say(f"run {run_id}: its record was removed while it ran; its outcome is not kept")
        except OSError as error:
            # Kept in memory, and this process stays until the disk takes it.
            if run_id not in self.unwritten:
                say(
                    f"run {run_id}: cannot write its outcome ({error.strerror}); kept in memory, trying again"
                )
            self.unwritten[run_id] = outcome
            self._after(_DISK_RETRY_S, lambda: self._write_outcome(run_id, outcome))

    # -- clients ----------------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            say(f"cannot take a client: {error.strerror}")
            time.sleep(
                0.01
            )  # out of descriptors: it will be asked again at once, and for as long as that lasts
            return
        sock.setblocking(False)
        peer = _Peer(sock)
        self.peers.add(peer)
        self._watch(sock.fileno(), lambda event: self._peer_event(peer, event))

    def _peer_event(self, peer: _Peer, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(peer)
        if not event & ~select.EPOLLOUT:
            return
        try:
            message, fds = receive(peer.sock)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            say(f"a client sent what is not a message: {error}")
            self._drop(peer)
            return
        if message is None:
            self._drop(peer)
            return
        handler = getattr(self, f"_do_{message.get('op')}", None)
        try:
            if handler is None:
                raise ValueError(f"unknown operation {message.get('op')!r}")
            handler(peer, message, fds)
        except (KeyError, ValueError, TypeError, OSError, WasmlabError) as error:
            close_all(fds)
            self._error(peer, message, type(error).__name__, str(error))

    def _drop(self, peer: _Peer) -> None:
        self.peers.discard(peer)
        self._unwatch(peer.sock.fileno())
        peer.sock.close()
        for run in list(self.runs.values()):
            run.watchers.discard(peer)
            if run.peer is peer:
                run.peer = None
            if run.owner is peer:  # nobody would ever learn how it ended
                self._kill(run, signal.SIGKILL)

    def _reply(self, peer: _Peer | None, message: dict[str, Any]) -> None:
        if peer is None or peer not in self.peers:
            return
        raw = pack(message)
        if not peer.outbox:
            try:
                send(peer.sock, raw)
                return
            except BlockingIOError:
                self.epoll.modify(peer.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
            except OSError:
                return  # it left; the hang-up event follows
        peer.outbox.append(raw)
        if len(peer.outbox) > _OUTBOX_LIMIT:
            say("a client does not read its messages; it is cut off")
            self._drop(peer)

    def _flush(self, peer: _Peer) -> None:
        try:
            while peer.outbox:
                send(peer.sock, peer.outbox[0])
                peer.outbox.popleft()
            self.epoll.modify(peer.sock.fileno(), select.EPOLLIN)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(peer)

    def _error(self, peer: _Peer, message: dict[str, Any], kind: str, text: str) -> None:
        self._reply(peer, {"op": "error", "seq": message.get("seq"), "kind": kind, "message": text})

    def _do_hello(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        self._reply(
            peer,
            {
                "op": "hello",
                "seq": message.get("seq"),
                "protocol": PROTOCOL,
                "engine": self.engine.name,
                "version": self.engine.version,
                "cache": str(self.cache_root),
                "pid": self.pid,
                "running": len(self.runs),
                "lost": self.lost,
            },
        )

    def _do_run(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        run_id = message["id"]
        if not valid_id(run_id):
            raise ValueError(f"{run_id!r} is no run id: letters, digits, '.', '_' and '-', at most 200")
        if run_id in self.runs:
            raise FileExistsError(f"the run {run_id} exists already")
        run = _Run(message, [], peer)
        if run.record:
            try:
                self.records.claim(run_id, message["spec"])
            except FileExistsError:
                raise FileExistsError(
                    f"the run {run_id} exists already (a run is never started twice)"
                ) from None
        try:
            if message.get("log_path"):
                run.pump = LogPump(message["log_path"])
            elif len(fds) != 3:
                raise ValueError(f"a run needs a log_path or three descriptors, not {len(fds)}")
        except (OSError, ValueError):
            if run.record:
                self.records.forget(run_id)
            raise
        run.fds = fds
        self.runs[run_id] = run
        one = self._take_idle()
        if one is None:
            self.target_idle = min(_MAX_IDLE, self.target_idle + 1)
            self.queue.append(run)
        else:
            self._dispatch(run, one)

    def _do_kill(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        run = self.runs.get(message["id"])
        if run is not None:
            self._kill(run, int(message["signal"]))
        self._reply(
            peer, {"op": "killed", "seq": message.get("seq"), "id": message["id"], "found": run is not None}
        )

    def _kill(self, run: _Run, number: int) -> None:
        run.asked_signal = number
        if run.worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.worker.pid, number)
        elif run in self.queue:
            self.queue.remove(run)
            now = time.time()
            text = f"ended by {signal.Signals(number).name} before it started"
            self._finish(run, Outcome(128 + number, None, text, started_at=now, finished_at=now))

    def _do_attach(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        run_id = message["id"]
        if not valid_id(run_id):
            raise KeyError(run_id)
        answer: dict[str, Any] = {"op": "attached", "seq": message.get("seq"), "id": run_id, "pid": 0}
        run = self.runs.get(run_id)
        if run is not None:
            run.watchers.add(peer)
            answer["pid"] = run.worker.pid if run.worker is not None else 0
            answer["running"] = True
        else:
            outcome = self.unwritten.get(run_id) or self.records.outcome(run_id)
            if outcome is None:
                raise KeyError(run_id)
            answer["running"] = False
            answer["outcome"] = outcome.to_json()
        self._reply(peer, answer)

    def _do_list(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        running = [run.id for run in self.runs.values() if run.record]
        ended = [one for one in self.records.ids() if one not in self.runs]
        self._reply(peer, {"op": "list", "seq": message.get("seq"), "running": running, "ended": ended})

    def _do_forget(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        run_id = message["id"]
        if run_id in self.runs:
            raise ValueError(f"the run {run_id} has not ended")
        if valid_id(run_id):
            self.unwritten.pop(run_id, None)
            self.records.forget(run_id)
        self._reply(peer, {"op": "forgotten", "seq": message.get("seq"), "id": run_id})

    def _do_reopen(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        run = self.runs.get(message["id"])
        if run is not None and run.pump is not None:
            run.pump.reopen()
        self._reply(peer, {"op": "reopened", "seq": message.get("seq"), "id": message["id"]})

    def _do_stats(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        self._reply(
            peer,
            {
                "op": "stats",
                "seq": message.get("seq"),
                "pid": self.pid,
                "running": {run.id: run.worker.pid for run in self.runs.values() if run.worker},
                "queued": len(self.queue),
                "idle": [one.pid for one in self.idle if one.ready],
                "target_idle": self.target_idle,
                "started_total": self.started_total,
                "unwritten": list(self.unwritten),
            },
        )

    def _do_shutdown(self, peer: _Peer, message: dict[str, Any], fds: list[int]) -> None:
        if message.get("if_idle") and self.runs:
            raise ValueError(f"{len(self.runs)} runs have not ended")
        self._reply(peer, {"op": "ending", "seq": message.get("seq"), "pid": self.pid})
        self.ending = True


def say(text: str) -> None:
    """Write one line to the zygote's log; a full disk must not end the zygote."""
    with contextlib.suppress(OSError):
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%S')} zygote {os.getpid()}: {text}", file=sys.stderr, flush=True
        )


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Entry point. Ends at once with code 3 if another zygote serves that directory."""
    import fcntl

    parser = argparse.ArgumentParser(prog="wasmlab.sandbox.zygote")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--linger", type=float, default=10.0)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--ephemeral", action="store_true", help="remove the directory at the end")
    parser.add_argument("--daemon", action="store_true", help="fork away from whoever started it")
    options = parser.parse_args()
    if options.daemon and os.fork():
        os._exit(0)

    lock = os.open(options.dir / f"{options.engine}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # One that is just about to end does not answer any more, and frees the lock in a moment.
            if time.monotonic() >= give_up_at:
                say(f"another {options.engine} zygote holds {options.dir} and does not answer")
                sys.exit(_EXIT_BUSY)
            time.sleep(0.005)
    limits.raise_open_files()
    zygote = Zygote(options.engine, options.dir, options.workers, options.linger, options.cache)
    zygote.engine.prepare(options.cache)
    # Compiled by a child, as everything.
    zygote.engine.noop = CompileCache(options.cache).artifact(zygote.engine, zygote.engine.noop_module)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        say(f"{options.engine} started {threads - 1} threads when it was imported: forking would not be safe")
        sys.exit(1)
    # Nothing of the caller's environment is for guests or for the engine.
    os.environ.clear()
    os.chdir("/")
    # What is alive now stays: the collector must not touch (and so copy) it in every worker.
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.listen()
    for _ in range(options.workers):
        zygote._fork()
    if options.ready_fd >= 0:
        os.write(options.ready_fd, b"ready")
        os.close(options.ready_fd)
    try:
        zygote.run_forever()
    finally:
        zygote.close()
        if options.ephemeral:
            import shutil

            shutil.rmtree(options.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
