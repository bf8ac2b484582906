"""`AsyncSandbox`: many runs at once over one connection, which may be lost and taken up again. For the node agent."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wasmlab import engines
from wasmlab.engines.cache import CompileCache
from wasmlab.engines.spec import Outcome, RunSpec
from wasmlab.errors import SandboxError, WorkerLost
from wasmlab.process import start_time_ticks
from wasmlab.sandbox import launch
from wasmlab.sandbox.protocol import close_all, pack, receive, send

_ANSWER_TIMEOUT_S = 60.0


class Run:
    """A run under way, or one that has ended. Use `AsyncSandbox.start` to get one.

    Attributes
    ----------
    id : str
        Its id.
    pid : int
        The worker's process id; 0 if it has ended.
    """

    def __init__(self, sandbox: AsyncSandbox, run_id: str, pid: int) -> None:
        self.id = run_id
        self.pid = pid
        self._sandbox = sandbox
        self._done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        # A run whose outcome nobody awaits is no programming error.
        self._done.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def done(self) -> bool:
        """Whether it has ended (or its zygote has)."""
        return self._done.done()

    async def wait(self) -> Outcome:
        """Wait for its end. May be awaited by several tasks, and cancelled, without harm to the run.

        Returns
        -------
        Outcome
            How it ended.

        Raises
        ------
        WorkerLost
            If the zygote died; `AsyncSandbox.attach` on a new connection then tells what is known.
        """
        return await asyncio.shield(self._done)

    async def kill(self, number: int = signal.SIGTERM) -> None:
        """Send a signal: SIGTERM ends the guest with exit code 143, SIGKILL with 137. Nothing if it has ended.

        Parameters
        ----------
        number : int
            Of the signal.
        """
        if not self.done:
            await self._sandbox._ask({"op": "kill", "id": self.id, "signal": int(number)})


class AsyncSandbox:
    """A connection to the zygote of one engine. Make it with `connect`.

    Nothing ends when the connection does: recorded runs go on, and a new connection can `attach` to them.
    """

    def __init__(
        self, engine: str, directory: Path, cache: CompileCache, sock: socket.socket, hello: dict[str, Any]
    ):
        self.engine = engines.get(engine)
        self.dir = directory
        self.cache = cache
        self.pid: int = hello["pid"]
        self.lost: tuple[str, ...] = tuple(hello["lost"])
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._seq = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._runs: dict[str, Run] = {}
        self._outbox: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def connect(
        cls,
        engine: str,
        dir: Path,
        *,
        workers: int = 2,
        linger_s: float = 10.0,
        cache: CompileCache | None = None,
    ) -> AsyncSandbox:
        """Connect to the zygote of `engine` in `dir`; start it if there is none.

        Parameters
        ----------
        engine : str
            ``"wasmtime"`` or ``"wasmer"``.
        dir : Path
            The zygote's directory; runs are recorded in ``runs/`` below it.
        workers : int
            How many processes it keeps ready at least.
        linger_s : float
            How long the zygote stays when it has neither clients nor runs.
        cache : CompileCache, optional
            The compile cache; the user's if None.

        Raises
        ------
        SandboxError
            If it cannot be started.
        """
        cache = cache or CompileCache()
        directory = Path(dir).absolute()
        sock, hello = await asyncio.to_thread(
            launch.ensure, engine, directory, workers=workers, linger_s=linger_s, cache_root=cache.root
        )
        return cls(engine, directory, cache, sock, hello)

    @property
    def alive(self) -> bool:
        """Whether the connection stands; if not, make a new one with `connect` and `attach` again."""
        return not self._closed

    async def artifact(self, spec: RunSpec) -> Path:
        """Compile the module of `spec` if need be (in a child process; a found entry costs next to nothing).

        Returns
        -------
        Path
            The compiled code.
        """
        found = self.cache.peek(self.engine, spec)
        if found is not None:
            return found
        return await asyncio.to_thread(self.cache.artifact, self.engine, spec.module, spec.digest, spec=spec)

    async def start(
        self,
        run_id: str,
        spec: RunSpec,
        *,
        log_path: Path | str | None = None,
        fds: Sequence[int] | None = None,
        record: bool = True,
        artifact: Path | None = None,
    ) -> Run:
        """Start a run whose output goes to a log file in the CRI format, or to descriptors of the caller's.

        Parameters
        ----------
        run_id : str
            Unique for ever in this directory: letters, digits, ``._-``, at most 200.
        spec : RunSpec
            What to run.
        log_path : path
            The log; appended to, created 0640.
        fds : sequence of int
            Instead of a log: stdin, stdout and stderr. Beside a log: stdin (without it there is no input), and a
            writing end of it for the zygote to keep open until `close_stdin` or the end. The caller may close its
            own when this returns.
        record : bool
            Keep it on disk, and let it outlive this connection.
        artifact : Path, optional
            What `artifact` gave; asked for here if None.

        Returns
        -------
        Run
            Under way, or ended already.

        Raises
        ------
        InvalidModule, Unsupported
            If the module, or something in `spec`, is not for this engine. Nothing was recorded then.
        SandboxError
            If the id exists already (it is never run twice), or the log or the record cannot be written.
        WorkerLost
            If the zygote died. Whether the run started then, `attach` on a new connection tells.
        """
        t0 = time.monotonic_ns()
        self.engine.check(spec)
        if artifact is None:
            artifact = await self.artifact(spec)
        message = {
            "op": "run",
            "id": run_id,
            "spec": spec.to_json(),
            "artifact": str(artifact),
            "record": record,
            "t0": t0,
        }
        if log_path is not None:
            message["log_path"] = str(Path(log_path).absolute())
        run: Run = (await self._ask(message, fds or ()))["run"]
        return run

    async def attach(self, run_id: str) -> Run:
        """Take up a run that was started before, running or ended.

        Parameters
        ----------
        run_id : str
            As it was given to `start`.

        Returns
        -------
        Run
            The same run.

        Raises
        ------
        KeyError
            If it is unknown here.
        """
        if run_id in self._runs:
            return self._runs[run_id]
        answer = await self._ask({"op": "attach", "id": run_id})
        run: Run = answer["run"]
        return run

    async def list(self) -> list[str]:
        """Return the ids of all recorded runs, running or ended, that have not been forgotten."""
        answer = await self._ask({"op": "list"})
        return [*answer["running"], *answer["ended"]]

    async def forget(self, run_id: str) -> None:
        """Remove the record of an ended run (its log file stays).

        Parameters
        ----------
        run_id : str
            As it was given to `start`.

        Raises
        ------
        SandboxError
            If it has not ended.
        """
        await self._ask({"op": "forget", "id": run_id})

    async def reopen_log(self, run_id: str) -> None:
        """Let a run go on in a new log file; for rotation, after the old file was renamed.

        Parameters
        ----------
        run_id : str
            As it was given to `start`.
        """
        await self._ask({"op": "reopen", "id": run_id})

    async def close_stdin(self, run_id: str) -> None:
        """Close the writing end of a run's stdin that the zygote keeps; nothing if it keeps none.

        Parameters
        ----------
        run_id : str
            As it was given to `start`.
        """
        await self._ask({"op": "close_stdin", "id": run_id})

    async def stats(self) -> dict[str, Any]:
        """Return what the zygote has: its pid, running runs with their pids, idle workers, unwritten outcomes."""
        return await self._ask({"op": "stats"})

    async def shutdown(self) -> None:
        """End the zygote: every run is killed (and its outcome recorded), and it is gone when this returns."""
        with contextlib.suppress(WorkerLost):
            await self._ask({"op": "shutdown"})
        deadline = time.monotonic() + 10.0
        # A process that is no child of ours has no event to wait for.
        while start_time_ticks(self.pid) is not None and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await self.aclose()

    async def aclose(self) -> None:
        """Leave; recorded runs go on."""
        self._lose("the connection was closed")

    # -- the connection ---------------------------------------------------------------------------------------------

    def _adopt(self, run_id: str, pid: int) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = Run(self, run_id, pid)
        return run

    def _end(self, run_id: str, outcome: Outcome) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None and not run.done:
            run.pid = 0
            run._done.set_result(outcome)

    async def _ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        if self._closed:
            raise WorkerLost("the connection to the zygote is gone", remedy="connect again")
        seq = next(self._seq)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._answers[seq] = answer
        raw = pack({**message, "seq": seq})
        if not self._outbox:
            try:
                send(self._sock, raw, fds)
            except BlockingIOError:
                self._later(raw, fds)
                self._loop.add_writer(self._sock.fileno(), self._writable)
            except OSError:
                self._lose("the zygote is gone")
        else:
            self._later(raw, fds)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reply = await answer
        except TimeoutError:
            raise SandboxError(
                f"the zygote {self.pid} did not answer {message['op']} within {_ANSWER_TIMEOUT_S:g} s",
                remedy=f"see {self.dir / (self.engine.name + '.log')}",
            ) from None
        finally:
            self._answers.pop(seq, None)
        if reply["op"] == "error":
            if reply["kind"] == "KeyError":
                raise KeyError(message["id"])
            raise SandboxError(
                f"the zygote refused {message['op']} {message.get('id', '')}: {reply['message']}",
                kind=reply["kind"],
            )
        return reply

    def _later(self, raw: bytes, fds: Sequence[int]) -> None:
        # Copies: who asked may give up, and close theirs, before the socket takes them.
        self._outbox.append((raw, [os.dup(fd) for fd in fds]))

    def _readable(self) -> None:
        # A few at a time, so that other tasks get their turn in a burst.
        for _ in range(64):
            try:
                message, fds = receive(self._sock)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(f"the connection to the zygote broke: {error.strerror}")
                return
            close_all(fds)
            if message is None:
                self._lose("the zygote ended, and its workers with it")
                return
            if message["op"] == "ended":
                self._end(message["id"], Outcome.from_json(message["outcome"]))
                continue
            answer = self._answers.get(message.get("seq", 0))
            if answer is not None and not answer.done():
                if message["op"] in ("started", "attached"):
                    # Made here and now, and handed on: "ended" may be the very next message, and is dealt with
                    # before the task that asked gets its turn.
                    message["run"] = self._adopt(message["id"], message["pid"])
                    if "outcome" in message:
                        self._end(message["id"], Outcome.from_json(message["outcome"]))
                answer.set_result(message)

    def _writable(self) -> None:
        try:
            while self._outbox:
                raw, fds = self._outbox[0]
                send(self._sock, raw, fds)
                self._outbox.popleft()
                close_all(fds)
            self._loop.remove_writer(self._sock.fileno())
        except BlockingIOError:
            pass
        except OSError:
            self._lose("the zygote is gone")

    def _lose(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._outbox:
            close_all(self._outbox.popleft()[1])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerLost(reason, remedy="connect again, and attach to the runs"))
        for run in self._runs.values():
            if not run.done:
                run._done.set_exception(
                    WorkerLost(
                        f"run {run.id}: {reason}", remedy="connect again, and attach to the run", id=run.id
                    )
                )
        self._runs.clear()
