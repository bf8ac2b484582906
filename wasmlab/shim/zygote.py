"""The node's shim zygote: everything imported once, a shim with a warm worker forked ahead for the next pod.

``python -m wasmlab.shim.zygote --dir D [--cache ROOT] [--linger S] [--engine E]``

`entry` (the shim's command line) finds it at ``D/zygote.sock`` and starts it if nobody answers. It forks, and answers
``delete``; it serves no pod and runs no guest, so its death costs the next pod half a second and the others nothing.
With no request for ``--linger`` seconds and no shim left it ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from wasmlab import engines
from wasmlab.engines import CompileCache
from wasmlab.sandbox import limits
from wasmlab.sandbox.loop import Loop
from wasmlab.sandbox.protocol import pack, send
from wasmlab.shim import bundle as bundles
from wasmlab.shim import cgroups, kernel, mounts, server, spans
from wasmlab.shim.pb import task_pb2
from wasmlab.shim.worker import UNAVAILABLE

PROTOCOL = "1"
SOCKET = "zygote.sock"
# After a start the next shim is forked when the pod has had its turn.
_REFILL_S = 0.06
_EXIT_BUSY = 3
_KILLED = 137
_SOCKET_PATH_LIMIT = 104


class _Idle:
    """A shim without a pod, with a worker for `engine`."""

    def __init__(self, pid: int, sock: socket.socket, engine: str) -> None:
        self.pid, self.sock, self.engine = pid, sock, engine


class Zygote:
    """The loop; see the module."""

    def __init__(
        self, directory: Path, cache: CompileCache, default_engine: str, linger_s: float, ahead: int
    ) -> None:
        self.directory = directory
        self.cache = cache
        self.default_engine = default_engine
        self.expected_engine = "" if default_engine in UNAVAILABLE else default_engine
        self.linger_s = linger_s
        self.ahead = ahead
        self.loop = Loop(tolerant=True)
        self.idle: list[_Idle] = []
        self.pid = os.getpid()
        self.last_request = time.monotonic()
        self._refilling = False
        self._asked_ns = 0
        self.sockets = directory / "s"
        self.sockets.mkdir(mode=0o700, exist_ok=True)

    def listen(self) -> None:
        """Open the socket; an old file of that name is a dead zygote's, since we hold the lock."""
        path = self.directory / SOCKET
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.listener.bind(str(path))
        path.chmod(0o600)
        self.listener.listen(128)
        self.listener.setblocking(False)
        self.loop.watch(self.listener.fileno(), self._accept)
        self.loop.end_on(signal.SIGTERM, signal.SIGINT)
        self.loop.after(self.linger_s, self._look_around)

    # -- shims --------------------------------------------------------------------------------------------------------

    def refill(self) -> None:
        """Fork shims until enough are waiting."""
        self._refilling = False
        with contextlib.suppress(OSError):
            self.cache.preload()
        while len(self.idle) < self.ahead:
            self.idle.append(self._fork(self.expected_engine))

    def _fork(self, engine: str) -> _Idle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            keep = theirs.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 16)
            server.idle(theirs, self.pid, self.cache, engine)
        theirs.close()
        return _Idle(pid, ours, engine)

    def _take(self, engine: str) -> _Idle:
        # The next pod is likely to want what this one wants.
        if engine in engines.names() and engine not in UNAVAILABLE:
            self.expected_engine = engine
        self.idle.sort(key=lambda one: one.engine != engine)
        while self.idle:
            one = self.idle.pop(0)
            if os.path.exists(f"/proc/{one.pid}"):
                return one
            one.sock.close()
        return self._fork(self.expected_engine)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self.listener.accept()
        except OSError:
            return
        self.last_request = time.monotonic()
        self._asked_ns = time.monotonic_ns()
        sock.settimeout(5.0)
        try:
            answer = self._answer(sock)
            if answer is not None:
                sock.sendall(answer)
        except (OSError, ValueError, bundles.BundleError) as error:
            with contextlib.suppress(OSError):
                sock.sendall(f"1{error}".encode())
        finally:
            sock.close()

    def _answer(self, sock: socket.socket) -> bytes | None:
        fields = sock.recv(65536).decode().split("\0")
        if fields[0] != PROTOCOL:
            raise ValueError(f"this zygote speaks protocol {PROTOCOL}, not {fields[0]!r}: restart it")
        actions: dict[str, Callable[[socket.socket, list[str]], bytes | None]] = {
            "start": self._start,
            "delete": self._delete,
            "ping": lambda _sock, _fields: f"0{self.pid}".encode(),
            "stop": self._stop,
        }
        return actions[fields[1]](sock, fields[2:])

    def _stop(self, _: socket.socket, fields: list[str]) -> bytes:
        self.loop.ending = True
        return f"0{self.pid}".encode()

    def _start(self, sock: socket.socket, fields: list[str]) -> bytes | None:
        container, namespace, bundle, containerd, ttrpc, engine, version = fields
        with open(f"{bundle}/config.json", "rb") as stream:
            config = json.load(stream)
        group = bundles.group_of(config, container)
        wanted = bundles.engine_of(config.get("annotations") or {}, engine or self.default_engine)
        name = hashlib.sha256(f"{containerd}\0{namespace}\0{group}".encode()).hexdigest()[:32]
        path = f"{self.sockets}/{name}"
        if len(path) > _SOCKET_PATH_LIMIT:
            raise ValueError(
                f"the socket path {path} is too long; set WASMLAB_SHIM_DIR to a shorter directory"
            )
        address = f"unix://{path}"
        answer = (
            json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}) if version == "3" else address
        )
        if group != container and _answers(path):
            # The pod has its shim already.
            with open(f"{bundle}/address", "w") as stream:
                stream.write(address)
            return b"0" + answer.encode()
        request = {
            "socket": path,
            "address": address,
            "answer": answer,
            "bundle": bundle,
            "namespace": namespace,
            "ttrpc": ttrpc,
            "engine": engine or self.default_engine,
            "asked_ns": self._asked_ns,
            "spans": f"{self.directory}/{spans.NAME}",
        }
        raw = pack(request)
        for _ in range(3):
            one = self._take(wanted)
            try:
                send(one.sock, raw, [sock.fileno()])
                one.sock.close()
                break
            except OSError:
                one.sock.close()  # it died while it waited
        if not self._refilling:
            self._refilling = True
            self.loop.after(_REFILL_S, self.refill)
        return None  # the shim answers

    def _delete(self, _: socket.socket, fields: list[str]) -> bytes:
        container, path = fields
        return b"0" + clean_up(container, path)

    def _look_around(self) -> None:
        quiet = time.monotonic() - self.last_request
        if quiet >= self.linger_s and not any(os.scandir(self.sockets)):
            self.loop.ending = True
            return
        self.loop.after(max(1.0, self.linger_s - quiet), self._look_around)

    def close(self) -> None:
        """End the shims that wait; those with a pod stay."""
        with contextlib.suppress(OSError):
            os.unlink(self.directory / SOCKET)
        for one in self.idle:
            one.sock.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)


def clean_up(container: str, path: str) -> bytes:
    """Remove what a container left behind, whatever state it was in; return the answer for containerd."""
    try:
        bundle = bundles.load(path, container)
    except bundles.BundleError:
        bundle = None
    if bundle is not None:
        with contextlib.suppress(OSError):
            cgroups.find(bundle.cgroup).remove()
        mounts.unmount_all(bundle.rootfs)
        _forget_socket(path)
    now = Timestamp()
    now.GetCurrentTime()
    return bytes(task_pb2.DeleteResponse(exit_status=_KILLED, exited_at=now).SerializeToString())


def _forget_socket(path: str) -> None:
    """Remove the socket of a shim that is dead."""
    with contextlib.suppress(OSError):
        with open(f"{path}/address") as stream:
            place = stream.read().strip().removeprefix("unix://")
        if os.path.exists(place) and not _answers(place):
            os.unlink(place)


def _answers(path: str) -> bool:
    if not os.path.exists(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def main() -> None:
    """Entry point; ends with code 3 if another zygote serves that directory."""
    parser = argparse.ArgumentParser(prog="wasmlab.shim.zygote")
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--engine", default=engines.names()[0])
    parser.add_argument("--linger", type=float, default=600.0)
    parser.add_argument("--ahead", type=int, default=1, help="how many shims wait for a pod")
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args()
    options.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(options.dir / "zygote.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(_EXIT_BUSY)
    limits.raise_open_files()
    kernel.set_name("wasm-zygote")
    cache = CompileCache(options.cache)
    for name in engines.names():
        try:
            engine = engines.get(name)
            engine.prepare(cache.root)
            engine.noop = cache.artifact(engine, engine.noop_module)
        except Exception as error:
            # The other engine may still work; a pod that wants this one learns why not.
            UNAVAILABLE[name] = f"engine {name} does not work on this node: {error}"
            print(f"zygote: {name}: {error}", file=sys.stderr, flush=True)
        # Looked up once here instead of in every shim.
        if name not in UNAVAILABLE:
            cache.key(engines.get(name), "")
    if len(os.listdir("/proc/self/task")) != 1:
        print(
            "zygote: an engine started threads when it was imported: forking would not be safe",
            file=sys.stderr,
        )
        sys.exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims are reaped by the kernel
    os.environ.clear()
    os.chdir("/")
    os.umask(0o022)
    zygote = Zygote(options.dir, cache, options.engine, options.linger, options.ahead)
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.listen()
    zygote.refill()
    if options.ready_fd >= 0:
        os.write(options.ready_fd, b"ready")
        os.close(options.ready_fd)
    code = 1
    try:
        zygote.loop.run()
        code = 0
    finally:
        zygote.close()
        # The engines' objects must not be taken apart in an order that they do not expect.
        os._exit(code)


if __name__ == "__main__":
    main()
