"""`Sandbox`: run modules and wait for them. For command lines, benches and notebooks."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wasmlab import engines
from wasmlab.engines.cache import CompileCache
from wasmlab.engines.spec import CapturedOutcome, Outcome, RunSpec, Span
from wasmlab.errors import SandboxError, Unsupported, WorkerLost
from wasmlab.process import start_time_ticks
from wasmlab.sandbox import launch
from wasmlab.sandbox.protocol import close_all, pack, receive, send

_READ_BYTES = 64 * 1024
# Of each stream; a guest that prints without end must not fill this process.
CAPTURE_LIMIT_BYTES = 64 << 20
# A run is killed by the zygote at its deadline; this is for a zygote that does not answer at all.
_ANSWER_TIMEOUT_S = 60.0


class Sandbox:
    """Runs modules, each in a fresh process, and waits for them. Thread-safe.

    Parameters
    ----------
    engine : str
        ``"wasmtime"`` or ``"wasmer"``.
    dir : Path, optional
        Where its zygote lives; a private temporary one, ended and removed by `close`, if None. A zygote in a
        directory that was given is shared with others and ends by itself a while after its last client.
    workers : int
        How many processes are kept ready.
    cache : CompileCache, optional
        The compile cache; the user's if None.
    linger_s : float
        How long a shared zygote goes on after its last client, in seconds.

    Examples
    --------
    >>> with Sandbox("wasmtime") as sandbox:                                        # doctest: +SKIP
    ...     print(sandbox.run(spec).stdout.decode())
    """

    def __init__(
        self,
        engine: str = "wasmtime",
        *,
        dir: Path | None = None,
        workers: int = 2,
        cache: CompileCache | None = None,
        linger_s: float = 10.0,
    ) -> None:
        self.engine = engines.get(engine)
        self.cache = cache or CompileCache()
        self.workers = workers
        self.linger_s = linger_s
        self._temporary = dir is None
        self.dir = Path(tempfile.mkdtemp(prefix="wasmlab-sandbox-")) if dir is None else Path(dir).absolute()
        self._free: list[socket.socket] = []
        self._guard = threading.Lock()
        self._count = itertools.count()
        self._closed = False

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the zygote now instead of at the first run."""
        with self._connection():
            pass

    def close(self) -> None:
        """Leave the zygote; one in a temporary directory is ended."""
        if self._closed:
            return
        if self._temporary and self._free:
            with contextlib.suppress(OSError, SandboxError):
                self.shutdown()
        self._closed = True
        for sock in self._free:
            sock.close()
        self._free.clear()
        if self._temporary:
            shutil.rmtree(self.dir, ignore_errors=True)

    def shutdown(self) -> None:
        """End the zygote, kill everything it runs, and wait until it is gone."""
        with self._connection() as sock:
            answer = self._ask(sock, {"op": "shutdown"})
            receive(sock)  # the zygote hangs up when it ends
        for sock in self._free:
            sock.close()
        self._free.clear()
        deadline = time.monotonic() + 10.0
        while start_time_ticks(answer["pid"]) is not None and time.monotonic() < deadline:
            time.sleep(0.002)

    def stats(self) -> dict[str, Any]:
        """Return what the zygote has: its pid, running runs with their pids, idle workers."""
        with self._connection() as sock:
            return self._ask(sock, {"op": "stats"})

    def artifact(self, spec: RunSpec) -> Path:
        """Compile the module of `spec` if need be; see `CompileCache.artifact`.

        Returns
        -------
        Path
            The compiled code.
        """
        return self.cache.artifact(self.engine, spec.module, spec.digest, spec=spec)

    def run(
        self,
        spec: RunSpec,
        *,
        stdin: int | bytes | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        cold: bool = False,
        run_id: str | None = None,
    ) -> CapturedOutcome:
        """Run a module and wait for its end.

        Parameters
        ----------
        spec : RunSpec
            What to run.
        stdin : int, bytes or None
            A descriptor, the content, or nothing (end of file at once).
        stdout, stderr : int or None
            Descriptors the guest gets as they are; None captures into the outcome.
        cold : bool
            Compile in the worker and take nothing from the cache: what a first start costs.
        run_id : str, optional
            A name for the run; a random one if None.

        Returns
        -------
        CapturedOutcome
            With the phases ``spawn``, what the engine tells, ``first_byte`` (captured output only) and ``reaped``.

        Raises
        ------
        InvalidModule, Unsupported
            If the module, or something in `spec`, is not for this engine.
        WorkerLost
            If the zygote died.
        SandboxError
            If the worker machinery failed.
        """
        self.engine.check(spec)
        scratch: str | None = None
        if cold:
            scratch = tempfile.mkdtemp(prefix="cold-", dir=self.cache.root)
            artifact = Path(scratch)
            compiled: tuple[Span, ...] = ()
        else:
            found = self.cache.peek(self.engine, spec)
            artifact = found or self.artifact(spec)
            compiled = () if found else self.cache.compiled
        try:
            return self._run(spec, artifact, stdin, stdout, stderr, cold, run_id, compiled)
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _run(
        self,
        spec: RunSpec,
        artifact: Path,
        stdin: int | bytes | None,
        stdout: int | None,
        stderr: int | None,
        cold: bool,
        run_id: str | None,
        compiled: tuple[Span, ...],
    ) -> CapturedOutcome:
        ours: list[int] = []  # closed whatever happens
        captured: dict[int, bytearray] = {}
        with self._connection() as sock:
            try:
                fds = [_input(stdin, ours)]
                pipes: list[int] = []
                for given in (stdout, stderr):
                    if given is not None:
                        fds.append(given)
                        pipes.append(-1)
                        continue
                    read, write = os.pipe2(os.O_CLOEXEC)
                    ours += [read, write]
                    fds.append(write)
                    pipes.append(read)
                    captured[read] = bytearray()
                run_id = run_id or f"run-{os.getpid()}-{next(self._count)}-{uuid.uuid4().hex[:8]}"
                t0 = time.monotonic_ns()
                message = {
                    "op": "run",
                    "seq": 1,
                    "id": run_id,
                    "spec": spec.to_json(),
                    "artifact": str(artifact),
                }
                send(sock, pack({**message, "t0": t0, "cold": cold}), fds)
                for fd in ours:
                    if fd not in captured:
                        os.close(fd)
                ours = list(captured)
                outcome, first_byte, truncated = _follow(sock, run_id, captured)
            finally:
                close_all(ours)
        spans = [*compiled, *outcome.spans]
        if first_byte:
            spans.append(Span("first_byte", t0, first_byte))
        texts = [bytes(captured[read]) if read >= 0 else b"" for read in pipes]
        return CapturedOutcome(
            **{**vars(outcome), "spans": tuple(sorted(spans, key=lambda span: span.end_ns))},
            stdout=texts[0],
            stderr=texts[1],
            truncated=truncated,
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        if self._closed:
            raise SandboxError("this Sandbox is closed", remedy="make a new one")
        with self._guard:
            sock = self._free.pop() if self._free else None
        if sock is not None and _hung_up(sock):
            sock.close()
            sock = None
        if sock is None:
            sock, _ = launch.ensure(
                self.engine.name,
                self.dir,
                workers=self.workers,
                linger_s=self.linger_s,
                cache_root=self.cache.root,
                ephemeral=self._temporary,
            )
            sock.settimeout(_ANSWER_TIMEOUT_S)
        try:
            yield sock
        except BaseException:
            sock.close()  # what else may come on it is unknown; the zygote ends what ran for it
            raise
        with self._guard:
            self._free.append(sock)

    @staticmethod
    def _ask(sock: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
        send(sock, pack({**message, "seq": 1}))
        answer, fds = receive(sock)
        close_all(fds)
        if answer is None:
            raise WorkerLost(
                "the zygote ended before it answered", remedy="try again; a new one will be started"
            )
        if answer["op"] == "error":
            raise SandboxError(f"the zygote refused {message['op']}: {answer['message']}")
        return answer


def _hung_up(sock: socket.socket) -> bool:
    """Whether the zygote closed this connection while it was not in use."""
    events = select.select([sock], [], [], 0)[0]
    return bool(events)  # nothing is sent unasked on a free connection


def _input(stdin: int | bytes | None, ours: list[int]) -> int:
    if isinstance(stdin, int):
        return stdin
    if stdin is None:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    else:
        # A file in memory: it takes any amount, and nobody has to feed it.
        fd = os.memfd_create("wasmlab-stdin", os.MFD_CLOEXEC)
        view = memoryview(stdin)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    ours.append(fd)
    return fd


def _follow(sock: socket.socket, run_id: str, captured: dict[int, bytearray]) -> tuple[Outcome, int, bool]:
    """Collect output and messages until the run has ended and its output too."""
    poll = select.poll()
    control = sock.fileno()
    poll.register(control, select.POLLIN)
    open_pipes = set(captured)
    for fd in open_pipes:
        poll.register(fd, select.POLLIN)
    outcome: Outcome | None = None
    first_byte = 0
    truncated = False
    while outcome is None or open_pipes:
        for fd, _ in poll.poll():
            if fd != control:
                data = os.read(fd, _READ_BYTES)
                if data:
                    first_byte = first_byte or time.monotonic_ns()
                    if len(captured[fd]) < CAPTURE_LIMIT_BYTES:
                        captured[fd] += data
                    else:
                        truncated = True
                else:
                    poll.unregister(fd)
                    open_pipes.discard(fd)
                continue
            message, fds = receive(sock)
            close_all(fds)
            if message is None:
                raise WorkerLost(
                    f"the zygote died while the run {run_id} was under way, and its worker with it",
                    remedy="run it again; a new zygote will be started",
                )
            if message["op"] == "error":
                cls = Unsupported if message["kind"] == "Unsupported" else SandboxError
                raise cls(f"the zygote refused the run {run_id}: {message['message']}")
            if message["op"] == "ended" and message["id"] == run_id:
                outcome = Outcome.from_json(message["outcome"])
                poll.unregister(control)
    return outcome, first_byte, truncated
