"""Workers of a shim: forked, put into the container, then they run one guest with the code of `wasmlab.sandbox`."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
from typing import TYPE_CHECKING, Any

from wasmlab import engines
from wasmlab.sandbox import limits
from wasmlab.sandbox.protocol import pack, receive, send
from wasmlab.sandbox.worker import FAILED, rehearsal, run
from wasmlab.shim import isolation

if TYPE_CHECKING:
    from typing import NoReturn

_CONTROL_FD = 3
UNAVAILABLE: dict[str, str] = {}
"""Engines that do not work on this node, and why; filled by the zygote before it forks."""


class Worker:
    """The shim's side of a worker."""

    def __init__(self, engine: str, *, ahead: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _serve(engine, theirs, parent, ahead)
        theirs.close()
        self.engine = engine
        self.pid = pid
        self.sock = ours
        self.pidfd = os.pidfd_open(pid)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send a message; a worker that died is noticed elsewhere."""
        try:
            send(self.sock, pack(message), fds or ())
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the worker's descriptors."""
        self.sock.close()
        os.close(self.pidfd)


class Pause:
    """The pod's sandbox process: asleep until a signal comes; its memory is the shim's."""

    engine = ""

    def __init__(self, request: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _sleep(theirs, parent, request)
        theirs.close()
        self.pid, self.sock, self.pidfd = pid, ours, os.pidfd_open(pid)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """There is nothing to say to it."""

    def close(self) -> None:
        """Let go of its descriptors."""
        self.sock.close()
        os.close(self.pidfd)


def _control(theirs: socket.socket, parent: int, name: str) -> socket.socket:
    fd = theirs.fileno()
    if fd != _CONTROL_FD:
        fd = os.dup2(fd, _CONTROL_FD, inheritable=False)
    limits.confine(parent, fd, name.encode())
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)


def _sleep(theirs: socket.socket, parent: int, request: dict[str, Any]) -> NoReturn:
    try:
        control = _control(theirs, parent, "wasm-pause")
        # As the pause program does: asked politely, it ends well. Blocked before it is announced, so none is missed.
        polite = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, polite)
        _enter(request, control)
        control.close()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        signal.sigwait(polite)
        os._exit(0)
    finally:
        os._exit(FAILED)


def enters_root(engine: engines.Engine) -> bool:
    """Whether the engine runs a guest with the container's root as the process's own root.

    One that cannot give the guest directories (wasmer-sdk) copies files in, with threads that also read the cache.
    """
    return engine.capabilities.directories


def _enter(request: dict[str, Any], control: socket.socket) -> bool:
    try:
        isolation.enter(request)
    except OSError as error:
        send(control, pack({"error": _why(error)}))
        return False
    send(control, b'{"ready":true}')
    return True


def _serve(engine_name: str, theirs: socket.socket, parent: int, ahead: bool) -> NoReturn:
    code = FAILED
    try:
        control = _control(theirs, parent, f"wasm-{engine_name}")
        engine = engines.get(engine_name)
        # Threads cannot be moved into other namespaces, so an engine that has some is started inside the container.
        threads = not enters_root(engine)
        if ahead and not threads:
            engine.warm()
            rehearsal(engine, framed=False)
        request, fds = receive(control)
        if request is not None and _enter(request, control):
            if threads:
                isolation.seal(request, parent)
            if threads or not ahead:
                engine.warm()
            go, _ = receive(control)
            if go is not None:
                answer = _run(engine, {**request, **go}, fds, parent)
                # The shim tells of the end now; taking this process and its namespaces apart takes the kernel a while.
                send(control, pack(answer))
        code = 0
    except BaseException as error:
        print(f"worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _run(engine: engines.Engine, request: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    if request["terminal"]:
        fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
    # Opened now: the container's root may have no such thing.
    stderr, null = os.dup(fds[2]), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    seal = (lambda: isolation.seal(request, parent)) if request["pivot"] else None
    answer = run(engine, request, fds, before_guest=seal)
    if answer["trap"]:
        # Whoever reads the log should not have to ask for the pod's status to learn why it ends here.
        try:
            os.write(stderr, f"wasmlab: {answer['trap']}: {answer['message']}\n".encode())
        except OSError:
            pass
    os.close(stderr)
    # Whoever reads the guest's streams has everything.
    for fd in range(3):
        os.dup2(null, fd)
    return answer


def _why(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{where}"
