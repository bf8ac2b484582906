"""The shim itself: one process per pod, forked ahead by the zygote, that takes a name when a pod needs it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from wasmlab.sandbox.loop import Loop
from wasmlab.sandbox.protocol import receive
from wasmlab.shim import kernel
from wasmlab.shim.events import Publisher
from wasmlab.shim.rpc import Server
from wasmlab.shim.service import TaskService
from wasmlab.shim.spans import Spans
from wasmlab.shim.worker import Worker

if TYPE_CHECKING:
    from typing import NoReturn

    from wasmlab.engines import CompileCache

# Events are flushed for so long before the shim ends; containerd asked it to, so it is there.
_FLUSH_S = 2.0


def idle(control: socket.socket, parent: int, cache: CompileCache, spare_engine: str) -> NoReturn:
    """Be a shim without a pod: wait for a name on `control`; end when the zygote ends before one came."""
    code = 1
    try:
        os.setsid()
        kernel.die_with_parent(parent)
        kernel.set_name("wasm-shim")
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        spare = Worker(spare_engine, ahead=True) if spare_engine else None
        name, fds = receive(control)
        if name is not None:
            kernel.no_death_signal()
            control.close()
            serve(name, socket.socket(fileno=fds[0]), cache, spare)
        code = 0
    except BaseException as error:
        print(f"shim {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def serve(name: dict[str, Any], asker: socket.socket, cache: CompileCache, spare: Worker | None) -> None:
    """Serve the pod called `name`; returns when containerd has asked the shim to end.

    Parameters
    ----------
    name : dict
        ``socket`` (path), ``answer`` (what to tell the asker), ``namespace``, ``ttrpc`` (containerd's), ``engine``.
    asker : socket
        The `start` command that waits for the answer.
    """
    path = name["socket"]
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(64)
        with open(f"{name['bundle']}/address", "w") as stream:
            stream.write(name["address"])
    except OSError as error:
        asker.sendall(f"1cannot listen on {path}: {error.strerror}".encode())
        return
    asker.sendall(b"0" + name["answer"].encode())
    asker.close()
    answered_ns = time.monotonic_ns()

    loop = Loop(tolerant=True)
    # SIGTERM is for the shim alone: its containers end with it, and containerd cleans up.
    loop.end_on(signal.SIGTERM, signal.SIGINT)
    publisher = Publisher(loop, name["ttrpc"], name["namespace"])

    def end() -> None:
        server.stop_listening()
        flush(time.monotonic() + _FLUSH_S)

    def flush(deadline: float) -> None:
        late = time.monotonic() > deadline
        if late or not any(one.unsent for one in server.connections):
            # containerd waits for this before it goes on.
            for one in list(server.connections):
                one.close()
        if late or (publisher.idle and not server.connections and not service.leaving):
            loop.ending = True
        else:
            loop.after(0.001, lambda: flush(deadline))

    def spans() -> Spans:
        one = Spans(name["spans"])
        if not service.containers:  # only the first container waits for its shim
            one.add("shim_start", name["asked_ns"], answered_ns)
        return one

    service = TaskService(
        loop,
        publisher,
        cache,
        default_engine=name["engine"],
        spare=spare,
        spans=spans,
        on_shutdown=lambda: loop.after(0, end),
    )
    server = Server(loop, listener, service.methods())
    gc.disable()
    try:
        loop.run()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        service.close()
