"""Workers of a shim: forked, put into the container, then they run one guest with the code of `wasmlab.sandbox`."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab import engines
from wasmlab.engines.base import GuestResult, result_json
from wasmlab.errors import Unsupported, WasmlabError
from wasmlab.sandbox import limits
from wasmlab.sandbox.protocol import pack, receive, send
from wasmlab.sandbox.spec import RunSpec, Span
from wasmlab.sandbox.stdio import Stdio
from wasmlab.sandbox.worker import FAILED
from wasmlab.shim import isolation

if TYPE_CHECKING:
    from typing import NoReturn

_CONTROL_FD = 3
_MESSAGE_LIMIT = 4096


class Worker:
    """The shim's side of a worker."""

    def __init__(self, engine: str, *, warm: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _serve(engine, theirs, parent, warm)
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
        try:
            isolation.enter(request)
            send(control, b'{"ready":true}')
        except OSError as error:
            send(control, pack({"error": _why(error)}))
        control.close()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        # As the pause program does: asked politely, it ends well.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
        while True:
            signal.pause()
    finally:
        os._exit(FAILED)


def _serve(engine_name: str, theirs: socket.socket, parent: int, warm: bool) -> NoReturn:
    code = FAILED
    try:
        control = _control(theirs, parent, f"wasm-{engine_name}")
        engine = engines.get(engine_name)
        # Threads cannot be moved into a mount namespace, so only an engine that starts none is warmed ahead.
        one_thread = engine_name == "wasmtime"
        if warm and one_thread:
            engine.warm()
        request, fds = receive(control)
        if request is not None:
            try:
                isolation.enter(request)
            except OSError as error:
                send(control, pack({"error": _why(error)}))
                request = None
            else:
                send(control, b'{"ready":true}')
        if request is not None:
            if not one_thread:
                isolation.seal(request, parent)
                engine.warm()
            elif not warm:
                engine.warm()
            go, _ = receive(control)
            if go is not None:
                seal = (lambda: isolation.seal(request, parent)) if one_thread else None
                send(control, pack(_run(engine, request, fds, int(go["t0"]), seal)))
        code = 0
    except BaseException as error:
        print(f"worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _run(
    engine: engines.Engine, request: dict[str, Any], fds: list[int], t0: int, seal: Callable[[], None] | None
) -> dict[str, Any]:
    received = time.monotonic_ns()
    spec = RunSpec.from_json(request["spec"])
    if request.get("terminal"):
        fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
    try:
        if seal is not None:
            _before_guest(engine, seal)
        result = engine.run(Path(request["artifact"]), spec, Stdio(fds[0], fds[1], fds[2]), cold=False)
    except Unsupported as error:
        result = GuestResult(None, "unsupported", str(error))
    except WasmlabError as error:
        result = GuestResult(None, "failed", str(error))
    except OSError as error:
        result = GuestResult(None, "failed", f"the worker failed: {_why(error)}")
    except Exception as error:
        result = GuestResult(None, "failed", f"the worker failed: {type(error).__name__}: {error}")
    answer = result_json(result)
    answer["message"] = answer["message"][:_MESSAGE_LIMIT]
    answer["spans"].insert(0, list(Span("spawn", t0, received)))
    if result.trap:
        # Whoever reads the log should not have to ask for the pod's status to learn why it ends here.
        try:
            os.write(fds[2], f"wasmlab: {result.trap}: {answer['message']}\n".encode())
        except OSError:
            pass
    return answer


def _before_guest(engine: Any, seal: Callable[[], None]) -> None:
    """Have `seal` called when the code is loaded and before the guest exists."""
    make_store = engine._store

    def sealed(*arguments: Any) -> Any:
        seal()
        return make_store(*arguments)

    engine._store = sealed


def _why(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{where}"
