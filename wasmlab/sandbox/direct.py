"""One run with no zygote: this process imports the engine, forks one worker and waits. For ``wasmlab run``.

Only for programs that have no threads of their own (a command line); notebooks and servers use `Sandbox`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from wasmlab import engines
from wasmlab.engines.cache import CompileCache
from wasmlab.engines.spec import Outcome, RunSpec, Span
from wasmlab.errors import SandboxError
from wasmlab.sandbox import worker
from wasmlab.sandbox.protocol import close_all, pack, receive, send
from wasmlab.sandbox.verdict import judge


def run_once(
    engine_name: str,
    spec: RunSpec,
    *,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    cache: CompileCache | None = None,
    compiling: contextlib.AbstractContextManager[object] | None = None,
) -> Outcome:
    """Run a module in a forked worker that gets the three descriptors as they are (files, pipes, terminals).

    Parameters
    ----------
    engine_name : str
        An engine, or one of its variants.
    stdin : int
        Descriptor that the guest reads.
    stdout : int
        Descriptor that it writes.
    stderr : int
        Likewise.
    cache : CompileCache, optional
        The user's own by default.
    spec : RunSpec
        What to run.
    compiling : context manager, optional
        Entered while the module is compiled, which takes seconds if it is large; must leave no thread behind.

    Raises
    ------
    InvalidModule, Unsupported
        If the module, or something in `spec`, is not for this engine.
    SandboxError
        If this process has threads (forking it would not be safe), or cannot fork.
    KeyboardInterrupt
        On Ctrl-C; the guest has been ended by then.

    Returns
    -------
    Outcome
        With the phases ``import`` and ``bind`` before those of the run and, if the module was not in the cache, those
        of the compile child before them.
    """
    engine = engines.get(engine_name)
    engine.check(spec)
    cache = cache or CompileCache()
    spans: list[Span] = []
    artifact = cache.peek(engine, spec)
    if artifact is None:
        with compiling or contextlib.nullcontext():
            artifact = cache.artifact(engine, spec.module, spec.digest, spec=spec)
        spans += cache.compiled
    engine.prepare(cache.root)
    spans += engine.prepared
    if len(os.listdir("/proc/self/task")) != 1:
        raise SandboxError(
            "this process has threads, so a worker cannot be forked from it safely",
            remedy="use wasmlab.Sandbox",
        )
    t0 = time.monotonic_ns()
    parent = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError as error:
        raise SandboxError(
            f"cannot fork a worker: {error.strerror}", remedy="free some memory or processes"
        ) from error
    if pid == 0:
        # The worker closes every descriptor that it was not sent; what goes to 0-2 comes by the socket as well.
        worker.serve(engine, theirs, parent, rehearse=False)
    theirs.close()
    started_at = time.time()
    request = {"spec": spec.to_json(), "artifact": str(artifact), "t0": t0}
    deadline_passed = False
    asked: int | None = None
    pidfd = os.pidfd_open(pid)
    try:
        send(ours, pack(request), (stdin, stdout, stderr))
        deadline_passed = not _ended(pidfd, spec.deadline_s)
    finally:
        # Also when Ctrl-C came: the worker is in a session of its own and did not get it.
        if deadline_passed or not _ended(pidfd, 0.0):
            asked = None if deadline_passed else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
    reaped = Span("reaped", t0, time.monotonic_ns())
    return judge(
        status=status,
        result=_last_result(ours),
        asked_signal=asked,
        deadline_s=spec.deadline_s,
        deadline_passed=deadline_passed,
        memory_bytes=spec.memory_bytes,
        started_at=started_at,
        finished_at=time.time(),
        max_rss_bytes=usage.ru_maxrss * 1024,
        spans=(*spans, reaped),
    )


def _ended(pidfd: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _last_result(sock: socket.socket) -> dict[str, Any] | None:
    """Return what the (ended) worker said last that was a result."""
    sock.setblocking(False)
    result = None
    with sock, contextlib.suppress(BlockingIOError):
        while True:
            message, fds = receive(sock)
            close_all(fds)
            if message is None:
                break
            if "exit_code" in message:
                result = message
    return result


def module_spec(path: Path, argv: tuple[str, ...], **options: Any) -> RunSpec:
    """Make a `RunSpec` for a file, with its digest computed here.

    Raises
    ------
    InvalidModule
        If the file cannot be read.
    """
    from wasmlab.engines.cache import file_digest

    return RunSpec(os.path.abspath(path), file_digest(path), argv, **options)
