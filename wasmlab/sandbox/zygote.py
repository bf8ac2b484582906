"""The zygote: one single-threaded process per engine that forks workers ahead, feeds them and reaps them.

``python -m wasmlab.sandbox.zygote --engine E --dir D --cache ROOT [--workers N] [--linger S]``

It imports the engine's bindings once, never compiles and never runs a guest. It outlives its clients: recorded runs go
on without them (`records`), other runs end with their client. With no client and no run it ends by itself after
``--linger`` seconds.

Everything happens in one loop. Latency rules its order: a request goes to a worker before it is answered or written
down; workers are forked again only when nothing else is to do, a moment after the request was served.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import shutil
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
from wasmlab.sandbox import limits, template, worker
from wasmlab.sandbox.loop import Loop
from wasmlab.sandbox.peers import Peer, Peers
from wasmlab.sandbox.pool import Pool
from wasmlab.sandbox.protocol import PROTOCOL, close_all, socket_name, valid_id
from wasmlab.sandbox.records import Records
from wasmlab.sandbox.runs import Runs
from wasmlab.sandbox.template import Template

_REHEARSE_AFTER_S = 0.001
_BATCH = 4
_LOCK_PATIENCE_S = 6.0
# Reference counting frees nearly everything; the collector, off for the workers' sake, is run now and then.
_COLLECT_EVERY_S = 60.0
_EXIT_BUSY = 3

Message = dict[str, Any]


class Zygote:
    """Puts the parts together; each ``_do_*`` method is an operation of the protocol."""

    def __init__(
        self, engine_name: str, directory: Path, workers: int, linger_s: float, cache_root: Path
    ) -> None:
        self.engine = engines.get(engine_name)
        self.directory = directory
        self.cache_root = cache_root
        self.linger_s = linger_s
        self.pid = os.getpid()
        self.closing = False
        self.loop = Loop()
        self.records = Records(directory, engine_name)
        self.lost = self.records.bury_lost()
        self.completed = self.rehearsed = False
        self.peers = Peers(self.loop, self._message, self._left, say)
        self.runs = Runs(self.loop, self.records, self.peers.tell, say)
        self.pool = Pool(self._fork_here, self.loop, workers, self._fail_queued, say)
        self.pools = [self.pool]
        self.workers = workers
        self.template: Template | None = None
        self.beside: Pool | None = None

    def make_template(self) -> None:
        """If the engine has workers that need no Python: start what forks them. Few of the others are needed then."""
        runner: Callable[[], list[str]] | None = getattr(self.engine, "runner", None)
        if runner is None:
            return
        assert self.engine.noop is not None
        marks = [
            f"wasm-{self.engine.name}"[:15],
            "-m",
            "wasmlab.sandbox.zygote",
            "--engine",
            self.engine.name,
        ]
        marks += ["--dir", str(self.directory)]
        self.template = Template(runner(), self.engine.noop, marks, self.loop, self._template_changed, say)
        self.beside = Pool(self.template.fork, self.loop, self.workers, self._give_up_template, say)
        self.beside.usable = False
        self.pools = [self.beside, self.pool]
        self.pool.size = self.pool.target = 1
        self.runs.keep = self.template.keep
        self.template.start()

    def _template_changed(self) -> None:
        """It has become usable, or it is lost: then what waits for its workers waits for another one."""
        assert self.template is not None
        assert self.beside is not None
        self.beside.usable = self.template.usable
        if not self.template.usable:
            while self.beside.queue:
                run = self.beside.queue.popleft()
                run.raw = None
                self.pool.queue.append(run)
            template.bury_strangers({pid for pool in self.pools for pid in pool.pids})

    def _give_up_template(self, reason: str) -> None:
        assert self.template is not None
        self.template.close()
        self._template_changed()

    def _fail_queued(self, reason: str) -> None:
        self.runs.fail_queued(self.pool.queue, reason)

    def run_forever(self) -> None:
        """Serve until asked to end, or until nobody has needed us for the linger time."""
        loop, runs = self.loop, self.runs
        loop.every(_COLLECT_EVERY_S, _collect)
        needed_at = time.monotonic()
        while not loop.ending:
            due = [one for pool in self.pools if (one := pool.due_in()) is not None]
            longest = min(3600.0, *due, max(0.05, self.linger_s))
            if not self.rehearsed:
                longest = min(longest, _REHEARSE_AFTER_S)
            busy = loop.step(longest)
            if loop.ending:
                break
            # Forking waits until everything that is known has been dealt with.
            waiting = [pool for pool in self.pools if pool.queue]
            if waiting or not busy:
                due_now = [pool for pool in waiting or self.pools if pool.due_in() == 0.0]
                for pool in due_now:
                    self._fork_some(pool)
                if not due_now and not busy and not self.rehearsed:
                    self.rehearsed = True
                    self._complete()
                    runs.rehearse()
            if self.peers.connected or runs.by_id or runs.unwritten or runs.late:
                needed_at = time.monotonic()
            elif time.monotonic() - needed_at >= self.linger_s:
                break

    def _complete(self) -> None:
        """Let the engine make, once, what few runs need: workers that are forked from now on inherit it."""
        if self.completed:
            return
        self.completed = True
        self.engine.complete()
        gc.collect()
        gc.freeze()

    def _fork_some(self, pool: Pool) -> None:
        """Fork what is wanted, a few in a row: each page that this process writes to after a fork is copied first, and
        after several forks only once."""
        for _ in range(min(_BATCH, pool.wanted)):
            one = pool.fork()
            if one is None:
                return
            if pool.queue:
                self.runs.dispatch(pool.queue.popleft(), one)
            else:
                pool.idle.append(one)

    def fork_first(self) -> None:
        """Fork the workers that are to be there from the beginning."""
        while len(self.pool.idle) < self.pool.size:
            one = self.pool.fork()
            if one is None:
                return
            self.pool.idle.append(one)

    def _fork_here(self, sock: socket.socket, rehearse: bool) -> int:
        pid = os.fork()
        if pid == 0:
            worker.serve(self.engine, sock, self.pid, rehearse=rehearse)
        self.rehearsed = False
        return pid

    def close(self) -> None:
        """Kill every worker, write what is known of their runs, and remove the socket."""
        self.closing = True
        self.peers.refuse()
        self.runs.close()
        for pool in self.pools:
            pool.close()
        if self.template is not None:
            self.template.close()

    # -- clients ----------------------------------------------------------------------------------------------------

    def _message(self, peer: Peer, message: Message, fds: list[int]) -> None:
        try:
            handler = getattr(self, f"_do_{message.get('op')}", None)
            if handler is None:
                raise ValueError(f"unknown operation {message.get('op')!r}")
            handler(peer, message, fds)
        except (KeyError, ValueError, TypeError, OSError, WasmlabError) as error:
            close_all(fds)
            text = str(error)
            self._answer(peer, message, "error", kind=type(error).__name__, message=text)

    def _left(self, peer: Peer) -> None:
        self.runs.left_by(peer)

    def _answer(self, peer: Peer, request: Message, op: str, **fields: Any) -> None:
        self.peers.tell(peer, {"op": op, "seq": request.get("seq"), **fields})

    def _do_hello(self, peer: Peer, message: Message, fds: list[int]) -> None:
        self._answer(
            peer,
            message,
            "hello",
            protocol=PROTOCOL,
            engine=self.engine.name,
            version=self.engine.version,
            cache=str(self.cache_root),
            pid=self.pid,
            running=len(self.runs.by_id),
            lost=self.lost,
        )

    def _do_run(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run_id = message["id"]
        if not valid_id(run_id):
            raise ValueError(f"{run_id!r} is no run id: letters, digits, '.', '_' and '-', at most 200")
        if self.closing:
            raise ValueError("the zygote is about to end")
        if run_id in self.runs.by_id:
            raise FileExistsError(f"the run {run_id} exists already (a run is never started twice)")
        pool, raw = self.pool, None
        if self.beside is not None and self.beside.usable and (raw := template.encode(message)) is not None:
            pool = self.beside
        one = pool.take()
        try:
            self.runs.start(message, fds, peer, one, pool.queue, raw)
        except BaseException:
            if one is not None and one.on_end is None:
                pool.idle.appendleft(one)
            raise
        pool.served()

    def _do_kill(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run = self.runs.by_id.get(message["id"])
        if run is not None:
            self.runs.kill(run, int(message["signal"]))
        self._answer(peer, message, "killed", id=message["id"], found=run is not None)

    def _do_attach(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run_id = message["id"]
        if not valid_id(run_id):
            raise KeyError(run_id)
        run = self.runs.by_id.get(run_id)
        if run is not None:
            run.watchers.add(peer)
            pid = run.worker.pid if run.worker is not None else 0
            self._answer(peer, message, "attached", id=run_id, pid=pid, running=True)
            return
        outcome = self.runs.unwritten.get(run_id) or self.records.outcome(run_id)
        if outcome is None:
            raise KeyError(run_id)
        self._answer(peer, message, "attached", id=run_id, pid=0, running=False, outcome=outcome.to_json())

    def _do_list(self, peer: Peer, message: Message, fds: list[int]) -> None:
        running = [run.id for run in self.runs.by_id.values() if run.record]
        ended = [one for one in self.records.ids() if one not in self.runs.by_id]
        self._answer(peer, message, "list", running=running, ended=ended)

    def _do_forget(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run_id = message["id"]
        if run_id in self.runs.by_id:
            raise ValueError(f"the run {run_id} has not ended")
        if valid_id(run_id):
            self.runs.unwritten.pop(run_id, None)
            self.runs.late.drop(run_id)
            self.records.forget(run_id)
        self._answer(peer, message, "forgotten", id=run_id)

    def _do_reopen(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run = self.runs.by_id.get(message["id"])
        if run is not None and run.pump is not None:
            run.pump.reopen()
        self._answer(peer, message, "reopened", id=message["id"])

    def _do_close_stdin(self, peer: Peer, message: Message, fds: list[int]) -> None:
        run = self.runs.by_id.get(message["id"])
        if run is not None:
            self.runs.close_stdin(run)
        self._answer(peer, message, "stdin_closed", id=message["id"], found=run is not None)

    def _do_stats(self, peer: Peer, message: Message, fds: list[int]) -> None:
        usual = self.beside if self.beside is not None and self.beside.usable else self.pool
        self._answer(
            peer,
            message,
            "stats",
            pid=self.pid,
            running={run.id: run.worker.pid for run in self.runs.by_id.values() if run.worker},
            queued=sum(len(pool.queue) for pool in self.pools),
            idle=[one.pid for one in usual.idle if one.ready],
            target_idle=usual.target,
            runner=usual is self.beside,
            started_total=self.runs.started_total,
            unwritten=list(self.runs.unwritten),
            prepared=[list(span) for span in self.engine.prepared],
        )

    def _do_shutdown(self, peer: Peer, message: Message, fds: list[int]) -> None:
        if message.get("if_idle") and self.runs.by_id:
            raise ValueError(f"{len(self.runs.by_id)} runs have not ended")
        self._answer(peer, message, "ending", pid=self.pid)
        self.loop.ending = True


def _collect() -> None:
    gc.collect()


def say(text: str) -> None:
    """Write one line to the zygote's log; a full disk must not end the zygote."""
    with contextlib.suppress(OSError):
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%S')} zygote {os.getpid()}: {text}", file=sys.stderr, flush=True
        )


def _lock(directory: Path, engine: str) -> None:
    """Hold the directory's lock for as long as this process lives; end it if another zygote does."""
    fd = os.open(directory / f"{engine}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # One that is just about to end does not answer any more, and frees the lock in a moment.
            if time.monotonic() >= give_up_at:
                say(f"another {engine} zygote holds {directory} and does not answer")
                sys.exit(_EXIT_BUSY)
            time.sleep(0.005)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wasmlab.sandbox.zygote")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--cache", required=True, type=Path, help="root of the compile cache")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--linger", type=float, default=10.0)
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets the word ready, then is closed")
    parser.add_argument("--ephemeral", action="store_true", help="remove the directory at the end")
    parser.add_argument("--daemon", action="store_true", help="fork away from whoever started it")
    return parser.parse_args()


def main() -> None:
    """Entry point. Ends with code 3 if another zygote serves that directory."""
    options = _options()
    if options.daemon and os.fork():
        os._exit(0)
    _lock(options.dir, options.engine)
    limits.raise_open_files()
    zygote = Zygote(options.engine, options.dir, options.workers, options.linger, options.cache)
    engine = zygote.engine
    if options.ready_fd >= 0:
        os.set_inheritable(options.ready_fd, False)
    # Compiled by a child, as everything.
    engine.noop = CompileCache(options.cache).artifact(engine, engine.noop_module)
    # It loads its library while this process imports the bindings.
    zygote.make_template()
    engine.prepare(options.cache)
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
    zygote.peers.listen(options.dir, socket_name(options.engine))
    zygote.loop.end_on(signal.SIGTERM, signal.SIGINT)
    zygote.fork_first()
    if options.ready_fd >= 0:
        os.write(options.ready_fd, b"ready")
        os.close(options.ready_fd)
    try:
        zygote.run_forever()
    finally:
        zygote.close()
        if options.ephemeral:
            shutil.rmtree(options.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
