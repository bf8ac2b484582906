"""Workers forked ahead: how many, when, and what becomes of them."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.sandbox.protocol import close_all, receive

if TYPE_CHECKING:
    from resource import struct_rusage

    from wasmlab.sandbox.loop import Loop
    from wasmlab.sandbox.runs import Run

# After a request the fork of the next worker, and its rehearsal, wait so long, or until a moment after a run has ended:
# they would compete with the guest, and with whoever is told of its end, for a processor.
_REFILL_DELAY_S = 0.015
_REFILL_AFTER_END_S = 0.004
# Under a burst more are kept ready, but a fork is a fork, ahead or not: more than this many only cost memory.
_MAX_IDLE = 16
_SHRINK_EVERY_S = 2.0
# After so many failures in a row those who wait are told; the next request is a new chance.
_PATIENCE = 5


class Worker:
    """A forked process: idle, then with one run.

    Attributes
    ----------
    ready : bool
        Whether it has rehearsed and waits for its request.
    result : dict or None
        What it reported of its run.
    on_end : callable or None
        Called with (status, rusage) when it has been reaped; set for a worker that has a run.
    """

    __slots__ = ("on_end", "pid", "pidfd", "ready", "result", "sock")

    def __init__(self, pid: int, pidfd: int, sock: socket.socket) -> None:
        self.pid, self.pidfd, self.sock = pid, pidfd, sock
        self.ready = False
        self.result: dict[str, Any] | None = None
        self.on_end: Callable[[int, struct_rusage], None] | None = None

    def kill(self, number: int) -> None:
        """Send it a signal (it is not reaped yet, so the pid is still its own)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Pool:
    """The idle workers of one kind, and the runs that wait for one.

    Parameters
    ----------
    fork : callable
        ``fork(sock, rehearse)`` makes a child of this process that serves on `sock`, and returns its pid; it raises
        OSError.
    size : int
        How many are kept ready at least.
    on_failure : callable
        Called with the reason when workers cannot be had, however often it was tried.
    say : callable
        Writes a line to the zygote's log.
    """

    def __init__(
        self,
        fork: Callable[[socket.socket, bool], int],
        loop: Loop,
        size: int,
        on_failure: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.size = self.target = size
        self.idle: collections.deque[Worker] = collections.deque()
        self.queue: collections.deque[Run] = collections.deque()
        self.pids: set[int] = set()  # of all its workers that have not been reaped
        self.usable = True
        self._fork = fork
        self._loop = loop
        self._on_failure = on_failure
        self._say = say
        self._failures = 0
        self._not_before = 0.0
        self._refill_at = 0.0
        loop.every(_SHRINK_EVERY_S, self._shrink)

    def take(self) -> Worker | None:
        """Return an idle worker, one that is ready if there is any; None if there is none at all."""
        for _ in range(len(self.idle)):
            if self.idle[0].ready:
                break
            self.idle.rotate(-1)
        if self.idle:
            return self.idle.popleft()
        self.target = min(_MAX_IDLE, self.target + 1)
        return None

    def served(self) -> None:
        """Hear that a request was served just now: the next fork can wait a little."""
        self._refill_at = time.monotonic() + _REFILL_DELAY_S

    def ended(self) -> None:
        """Hear that a run has ended just now."""
        self._refill_at = min(self._refill_at, time.monotonic() + _REFILL_AFTER_END_S)

    def due_in(self) -> float | None:
        """Return in how many seconds the next fork is due; None if none is wanted."""
        if not self.usable or (not self.queue and len(self.idle) >= self.target):
            return None
        at = self._not_before if self.queue else max(self._refill_at, self._not_before)
        return max(0.0, at - time.monotonic())

    @property
    def wanted(self) -> int:
        """How many workers are to be forked now."""
        return len(self.queue) or max(0, self.target - len(self.idle))

    def fork(self) -> Worker | None:
        """Fork a worker that is nobody's yet; None (and a later retry) if that fails."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._failed(f"cannot make a worker's socket: {error.strerror}")
            return None
        try:
            # One that is waited for has no time to rehearse.
            pid = self._fork(theirs, not self.queue)
        except OSError as error:
            ours.close()
            self._failed(f"cannot fork a worker: {error}")
            return None
        finally:
            theirs.close()
        ours.setblocking(False)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            ours.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._failed(f"cannot watch a worker: {error.strerror}")
            return None
        self.pids.add(pid)
        one = Worker(pid, pidfd, ours)
        self._loop.watch(pidfd, lambda _: self._reap(one))
        self._loop.watch(ours.fileno(), lambda _: self._says(one))
        return one

    def _says(self, one: Worker) -> None:
        try:
            message, fds = receive(one.sock)
        except BlockingIOError:
            return
        close_all(fds)
        if message is None:
            self._loop.unwatch(one.sock.fileno())  # it ended; its pidfd tells the rest
        elif "ready" in message:
            one.ready = True
            self._failures = 0
        else:
            one.result = message

    def _reap(self, one: Worker) -> None:
        _, status, usage = os.wait4(one.pid, 0)
        self.pids.discard(one.pid)
        # What it said last may still be in the socket.
        while self._loop.watches(one.sock.fileno()):
            before = one.ready, one.result
            self._says(one)
            if before == (one.ready, one.result):
                self._loop.unwatch(one.sock.fileno())
        self._loop.unwatch(one.pidfd)
        os.close(one.pidfd)
        one.sock.close()
        if one.on_end is not None:
            self.ended()
            one.on_end(status, usage)
        elif one in self.idle:
            self.idle.remove(one)
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._failed(f"an idle worker ended by itself ({how})")

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._not_before = time.monotonic() + 0.1 * self._failures
        self._say(reason)
        if self._failures >= _PATIENCE:
            self._failures = 0
            self._on_failure(reason)

    def _shrink(self) -> None:
        # It grew for a burst; let it come back slowly. Out of `idle` first: then its end is no failure.
        self.target = max(self.size, self.target - 1)
        while len(self.idle) > self.target:
            self.idle.pop().kill(signal.SIGKILL)

    def close(self) -> None:
        """End the idle workers."""
        while self.idle:
            self.idle.pop().kill(signal.SIGKILL)
