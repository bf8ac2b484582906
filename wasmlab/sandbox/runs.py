"""Runs from request to outcome, inside the zygote."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wasmlab.engines.spec import Outcome, Span
from wasmlab.engines.stdio import STDOUT, write_frame
from wasmlab.sandbox.latelogs import LateLogs
from wasmlab.sandbox.logs import LogPump
from wasmlab.sandbox.pool import Worker
from wasmlab.sandbox.protocol import close_all, pack, receive, send
from wasmlab.sandbox.template import translate
from wasmlab.sandbox.verdict import judge

if TYPE_CHECKING:
    from resource import struct_rusage

    from wasmlab.sandbox.loop import Loop
    from wasmlab.sandbox.peers import Peer
    from wasmlab.sandbox.records import Records

_DISK_RETRY_S = 0.5
# How long the end of a run waits for a full disk to take the rest of its log before it is told without (and says so).
_LOG_PATIENCE_S = 3.0
_PARTIAL_LINE_S = 0.2


class Run:
    """One run. `peer` asked for it; `watchers` hear of its end; `owner` is the peer it must not outlive, if any."""

    def __init__(self, request: dict[str, Any], fds: list[int], peer: Peer | None) -> None:
        self.id: str = request["id"]
        self.request = request
        self.spec: dict[str, Any] = request["spec"]
        self.fds = fds
        self.stdin_keeper = -1  # a writing end of its stdin, so that nobody's leaving is the end of the input
        self.record = bool(request.get("record"))
        self.t0 = int(request["t0"])
        self.peer = peer
        self.watchers = {peer} if peer is not None else set()
        self.owner = None if self.record else peer
        self.pump: LogPump | None = None
        self.raw: bytes | None = None  # the request as a worker that needs no Python reads it
        self.queue: collections.deque[Run] | None = None  # where it waits for a worker
        self.worker: Worker | None = None
        self.started_at = 0.0
        self.asked_signal: int | None = None
        self.deadline_passed = False
        self.give_up_at = 0.0
        self.partial_timer = False
        # Set when the worker has been reaped.
        self.status: int | None = None
        self.result: dict[str, Any] | None = None
        self.max_rss = 0
        self.cpu_s = 0.0
        self.finished_at = 0.0
        self.reaped_ns = 0


class Runs:
    """All runs that have not ended.

    Parameters
    ----------
    tell : callable
        ``tell(peer, message)`` sends a message to a client that may be gone.
    say : callable
        Writes a line to the zygote's log.
    """

    def __init__(
        self,
        loop: Loop,
        records: Records,
        tell: Callable[[Peer | None, dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self.by_id: dict[str, Run] = {}
        # Told of each module that has been run by a worker that needs no Python, without harm.
        self.keep: Callable[[str], None] | None = None
        # Outcomes that the disk has not taken yet.
        self.unwritten: dict[str, Outcome] = {}
        self.late = LateLogs(loop)
        self.started_total = 0
        self._loop = loop
        self._records = records
        self._tell = tell
        self._say = say
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stage = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    # -- beginning --------------------------------------------------------------------------------------------------

    def start(
        self,
        request: dict[str, Any],
        fds: list[int],
        peer: Peer,
        one: Worker | None,
        queue: collections.deque[Run],
        raw: bytes | None = None,
    ) -> None:
        """Start a run in worker `one`, or put it into `queue` if that is None; `raw`: as `template.encode` has it.

        Raises
        ------
        FileExistsError, OSError, ValueError
            If it cannot be started; nothing is recorded and the descriptors are still the caller's then.
        """
        run = Run(request, [], peer)
        if run.record:
            try:
                self._records.claim(run.id, run.spec)
            except FileExistsError:
                raise FileExistsError(
                    f"the run {run.id} exists already (a run is never started twice)"
                ) from None
        try:
            if request.get("log_path"):
                if len(fds) > 2:
                    raise ValueError(
                        f"a run with a log takes stdin and its keeper, not {len(fds)} descriptors"
                    )
                run.pump = LogPump(request["log_path"])
            elif len(fds) != 3:
                raise ValueError(f"a run needs a log_path or three descriptors, not {len(fds)}")
        except (OSError, ValueError):
            if run.record:
                self._records.forget(run.id)
            raise
        run.fds = fds
        if run.pump is not None and len(fds) == 2:
            run.stdin_keeper = fds[1]
            run.fds = fds[:1]
        self.by_id[run.id] = run
        run.raw = raw
        if one is None:
            run.queue = queue
            queue.append(run)
        else:
            self.dispatch(run, one)

    def dispatch(self, run: Run, one: Worker) -> None:
        """Hand a run to a worker. Before the hand-over there is nothing that the guest could do without."""
        fds = run.fds
        if run.pump is not None:
            fds = [*(run.fds or [self._null]), run.pump.guest_end]
        raw = run.raw if run.raw is not None else pack(_for_python(run))
        run.queue = None
        run.started_at = time.time()
        run.worker = one
        one.on_end = lambda status, usage: self._reaped(run, status, usage)
        # If the worker died while it was idle, reaping it will tell.
        with contextlib.suppress(OSError):
            send(one.sock, raw, fds)
        close_all(run.fds)
        run.fds = []
        if run.pump is not None:
            run.pump.close_guest_end()
            self._loop.watch(run.pump.pipe, lambda _: self._pump(run))
        if run.spec["deadline_s"] is not None:
            self._loop.after(run.spec["deadline_s"], lambda: self._deadline(run))
        self._answer(run, one.pid)
        if run.record:
            self._records.started(run.id, one.pid, run.started_at)
        self.started_total += 1

    def _answer(self, run: Run, pid: int) -> None:
        self._tell(run.peer, {"op": "started", "seq": run.request.get("seq"), "id": run.id, "pid": pid})

    def rehearse(self) -> None:
        """Go through a whole run without a worker.

        A fork makes every page of this process copy-on-write, and Python writes to nearly every page it looks at (it
        counts references): 0.3 ms of page faults that the next request need not wait for.
        """
        here, there = self._stage
        spec = {"deadline_s": None, "memory_bytes": None, "argv": ["noop"], "env": [], "preopens": []}
        request = {"op": "run", "seq": 1, "id": "-", "spec": spec, "artifact": "-", "t0": 0, "cold": False}
        send(here, pack(request), (self._null, self._null, self._null))
        message, fds = receive(there)
        assert message is not None
        run = self.by_id["-"] = Run(message, fds, None)
        close_all(fds)
        run.fds, run.pump = [], LogPump(os.devnull)
        actor = Worker(0, -1, there)
        self.dispatch(run, actor)
        self.started_total -= 1
        _, fds = receive(here)
        write_frame(fds[1], STDOUT, b"noop\n")
        close_all(fds)
        send(here, pack({"exit_code": 0, "trap": None, "message": "", "spans": [["spawn", 0, 0]]}))
        run.result, _ = receive(there)
        run.worker, run.status, actor.on_end = None, 0, None
        self._settle(run)

    # -- ending -----------------------------------------------------------------------------------------------------

    def kill(self, run: Run, number: int) -> None:
        """Send a signal to a run; one that still waits for a worker ends at once."""
        run.asked_signal = number
        if run.worker is not None:
            run.worker.kill(number)
        elif run.queue is not None:
            run.queue.remove(run)
            run.queue = None
            now = time.time()
            text = f"ended by {signal.Signals(number).name} before it started"
            self._finish(run, Outcome(128 + number, None, text, started_at=now, finished_at=now))

    def close_stdin(self, run: Run) -> None:
        """Give a run no more input, once whoever else writes to it has closed its end too."""
        if run.stdin_keeper >= 0:
            os.close(run.stdin_keeper)
            run.stdin_keeper = -1

    def fail_queued(self, queue: collections.deque[Run], reason: str) -> None:
        """End the runs that wait for a worker which cannot be had."""
        while queue:
            now = time.time()
            self._finish(queue.popleft(), Outcome(None, "failed", reason, started_at=now, finished_at=now))

    def left_by(self, peer: Peer) -> None:
        """Hear that a client is gone: what was only for it ends."""
        for run in list(self.by_id.values()):
            run.watchers.discard(peer)
            if run.peer is peer:
                run.peer = None
            if run.owner is peer:  # nobody would ever learn how it ended
                self.kill(run, signal.SIGKILL)

    def close(self, timeout_s: float = 5.0) -> None:
        """Kill every run and write what is known of it."""
        for run in list(self.by_id.values()):
            self.kill(run, signal.SIGKILL)
        deadline = time.monotonic() + timeout_s
        while self.by_id and time.monotonic() < deadline:
            self._loop.ending = False  # it was asked for, once or again; now the ends are waited for
            self._loop.step(0.2)
        for run_id, outcome in self.unwritten.items():
            with contextlib.suppress(OSError):
                self._records.ended(run_id, outcome)
        self.late.close()

    def _deadline(self, run: Run) -> None:
        if run.worker is not None:
            run.deadline_passed = True
            run.worker.kill(signal.SIGKILL)

    def _reaped(self, run: Run, status: int, usage: struct_rusage) -> None:
        run.reaped_ns, run.finished_at = time.monotonic_ns(), time.time()
        if run.worker is not None:
            run.result = run.worker.result
        if run.raw is not None and run.result is not None:
            translate(run.result)
            if self.keep is not None and run.result["exit_code"] is not None:
                self.keep(run.request["artifact"])
        run.worker, run.status = None, status
        run.max_rss = usage.ru_maxrss * 1024
        run.cpu_s = usage.ru_utime + usage.ru_stime
        run.give_up_at = time.monotonic() + _LOG_PATIENCE_S
        self._settle(run)

    def _settle(self, run: Run, *, give_up: bool = False) -> None:
        """Finish a run once its worker is reaped and its output is written."""
        if run.status is None:
            return
        spans = [Span("reaped", run.t0, run.reaped_ns)]
        late = 0
        pump = run.pump
        if pump is not None:
            while not pump.ended and not pump.blocked and pump.pump():
                pass
            if not give_up and (pump.blocked or not pump.ended):
                return  # the retry timer, or the end of the pipe, comes back here
            self._loop.unwatch(pump.pipe)
            if pump.first_byte_ns is not None:
                spans.append(Span("first_byte", run.t0, pump.first_byte_ns))
            run.pump = None
            late = pump.waiting_bytes
            if late:
                self.late.add(run.id, pump)
            else:
                pump.close()
        outcome = judge(
            status=run.status,
            result=run.result,
            asked_signal=run.asked_signal,
            deadline_s=run.spec["deadline_s"],
            deadline_passed=run.deadline_passed,
            memory_bytes=run.spec["memory_bytes"],
            started_at=run.started_at,
            finished_at=run.finished_at,
            max_rss_bytes=run.max_rss,
            cpu_s=run.cpu_s,
            spans=tuple(spans),
        )
        if late:
            note = f"the disk was full: {late} bytes of the log, or more, are written when it has room again"
            text = f"{outcome.message}; {note}" if outcome.message else note
            outcome = replace(outcome, log_lost_bytes=late, message=text)
        self._finish(run, outcome)

    def _finish(self, run: Run, outcome: Outcome) -> None:
        del self.by_id[run.id]
        if run.pump is not None:
            run.pump.close()
            run.pump = None
        close_all(run.fds)
        run.fds = []
        self.close_stdin(run)
        if run.started_at == 0.0:
            self._answer(run, 0)  # it never started; the request wants an answer all the same
        if run.record:
            self._write(run.id, outcome)
        message = {"op": "ended", "id": run.id, "outcome": outcome.to_json()}
        for peer in run.watchers:
            self._tell(peer, message)

    def _write(self, run_id: str, outcome: Outcome) -> None:
        try:
            self._records.ended(run_id, outcome)
            self.unwritten.pop(run_id, None)
        except FileNotFoundError:
            # Somebody removed its directory: that is a way to say that nobody wants to know.
            self.unwritten.pop(run_id, None)
            self._say(f"run {run_id}: its record was removed while it ran; its outcome is not kept")
        except OSError as error:
            # Kept in memory, and this process stays until the disk takes it.
            if run_id not in self.unwritten:
                self._say(
                    f"run {run_id}: cannot write its outcome ({error.strerror}); kept in memory, trying again"
                )
            self.unwritten[run_id] = outcome
            self._loop.after(_DISK_RETRY_S, lambda: self._write(run_id, outcome))

    # -- output -----------------------------------------------------------------------------------------------------

    def _pump(self, run: Run) -> None:
        pump = run.pump
        assert pump is not None
        pump.pump()  # one portion: other runs get their turn
        if pump.ended:
            self._loop.unwatch(pump.pipe)
            self._settle(run)
        elif pump.blocked:
            self._say(f"run {run.id}: the disk does not take its log {pump.path}; trying again")
            self._loop.unwatch(pump.pipe)
            self._loop.after(_DISK_RETRY_S, lambda: self._unblock(run))
        elif pump.pending and not run.partial_timer:
            run.partial_timer = True
            self._loop.after(_PARTIAL_LINE_S, lambda: self._flush_partial(run))

    def _unblock(self, run: Run) -> None:
        pump = run.pump
        if pump is None or self.by_id.get(run.id) is not run:
            return
        if pump.retry():
            self._loop.watch(pump.pipe, lambda _: self._pump(run))
        elif run.status is not None and time.monotonic() >= run.give_up_at:
            self._settle(run, give_up=True)
        else:
            self._loop.after(_DISK_RETRY_S, lambda: self._unblock(run))

    def _flush_partial(self, run: Run) -> None:
        run.partial_timer = False
        if run.pump is not None and self.by_id.get(run.id) is run and not run.pump.ended:
            run.pump.flush()


def _for_python(run: Run) -> dict[str, Any]:
    """The request as a worker of this interpreter reads it."""
    request = {"spec": run.spec, "artifact": run.request["artifact"], "t0": run.t0}
    if run.request.get("cold"):
        request["cold"] = True
    if run.pump is not None:
        request["framed"] = True
    return request
