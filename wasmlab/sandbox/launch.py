"""Find the zygote of an engine in a directory, or start it: once, however many clients ask at the same time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wasmlab import engines
from wasmlab.engines.cache import child_environment
from wasmlab.errors import SandboxError
from wasmlab.paths import file_lock, private_dir
from wasmlab.process import start_time_ticks, tail
from wasmlab.sandbox.protocol import PROTOCOL, connect, pack, receive, send

# Importing an engine takes 0.1 s; a machine that is busy with twenty other things may take a hundred times that.
START_TIMEOUT_S = 60.0


def ensure(
    engine: str, directory: Path, *, workers: int, linger_s: float, cache_root: Path, ephemeral: bool = False
) -> tuple[socket.socket, dict[str, Any]]:
    """Return a connection to the zygote of `engine` in `directory`, and its answer to ``hello``.

    Raises
    ------
    SandboxError
        If it cannot be started, or another version of wasmlab serves there and is busy.
    """
    private_dir(directory)
    with contextlib.suppress(OSError):
        sock = connect(directory, engine)
        answer = _hello(sock)
        if _fits(engine, answer):
            return sock, answer
        _replace(sock, engine, directory, answer)
    with file_lock(
        directory / f"{engine}.start.lock", START_TIMEOUT_S, what=f"the start of the {engine} zygote"
    ):
        # Somebody else may have started it while we waited for the lock.
        with contextlib.suppress(OSError):
            sock = connect(directory, engine)
            answer = _hello(sock)
            if _fits(engine, answer):
                return sock, answer
            _replace(sock, engine, directory, answer)
        _start(engine, directory, workers, linger_s, cache_root, ephemeral)
        try:
            sock = connect(directory, engine)
            return sock, _hello(sock)
        except OSError as error:
            raise SandboxError(
                f"the {engine} zygote started in {directory} but does not answer: {error}",
                remedy=f"see {directory / (engine + '.log')}",
            ) from error


def _hello(sock: socket.socket) -> dict[str, Any]:
    send(sock, pack({"op": "hello", "seq": 0, "protocol": PROTOCOL}))
    answer, _ = receive(sock)
    if answer is None:
        sock.close()
        raise ConnectionResetError("the zygote closed the connection")
    return answer


def _fits(engine: str, answer: dict[str, Any]) -> bool:
    return answer.get("protocol") == PROTOCOL and answer.get("version") == engines.get(engine).version


def _replace(sock: socket.socket, engine: str, directory: Path, answer: dict[str, Any]) -> None:
    """Ask a zygote of another version to end, if it has nothing to do, and wait until it has."""
    send(sock, pack({"op": "shutdown", "seq": 1, "if_idle": True}))
    reply, _ = receive(sock)
    if reply is not None and reply.get("op") == "error":
        sock.close()
        raise SandboxError(
            f"a zygote of another version serves {directory} (protocol {answer.get('protocol')}, {engine} "
            f"{answer.get('version')}; wanted {PROTOCOL}, {engines.get(engine).version}) and is busy: "
            f"{reply.get('message')}",
            remedy=f"wait until its runs have ended, or end it: kill {answer.get('pid')}",
        )
    receive(sock)  # returns when it has gone
    sock.close()
    deadline = time.monotonic() + 10.0
    while start_time_ticks(int(answer.get("pid", 0))) is not None and time.monotonic() < deadline:
        time.sleep(0.005)


def _start(
    engine: str, directory: Path, workers: int, linger_s: float, cache_root: Path, ephemeral: bool
) -> None:
    log = directory / f"{engine}.log"
    ready, theirs = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "wasmlab.sandbox.zygote", "--engine", engine, "--dir", str(directory)]
    argv += ["--workers", str(workers), "--linger", str(linger_s), "--cache", str(cache_root)]
    argv += ["--ready-fd", str(theirs), "--daemon", *(("--ephemeral",) if ephemeral else ())]
    try:
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=(theirs,),
                env=child_environment(),
                cwd=directory,
                start_new_session=True,
            )
        finally:
            os.close(log_fd)
            os.close(theirs)
        # The child forks away at once, so that nobody inherits the duty to reap the zygote.
        child.wait(START_TIMEOUT_S)
        if not _wait_ready(ready):
            raise SandboxError(
                f"the {engine} zygote did not start in {directory}; last lines of its log:\n{tail(log, 10)}",
                remedy="run `wasmlab doctor`",
            )
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise SandboxError(
            f"the {engine} zygote was not there after {START_TIMEOUT_S:g} s",
            remedy="try again on a less busy machine",
        ) from None
    finally:
        os.close(ready)


def _wait_ready(fd: int) -> bool:
    import select

    readable, _, _ = select.select([fd], [], [], START_TIMEOUT_S)
    return bool(readable) and os.read(fd, 16) == b"ready"
