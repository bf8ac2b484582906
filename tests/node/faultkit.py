"""Faults for a node: each begins, and ends again. What is killed is killed for good, what vanishes comes back.

Before a zygote or a worker is killed, the zygote is stopped (SIGSTOP) and its records are read: so it is known, and
not guessed, which runs had not ended. Those may be lost; no other may.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.node.ledger import Ledger
from wasmlab.cluster import processes
from wasmlab.process import start_time_ticks
from wasmlab.sandbox import records

# Patches the wall clock of every Python process that is started with this directory on its path.
_CLOCK = """
import mmap, os, struct, time
with open(os.path.join(os.path.dirname(__file__), "offset"), "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + struct.unpack("d", _offset[:8])[0]
time.time_ns = lambda: _time_ns() + int(struct.unpack("d", _offset[:8])[0] * 1e9)
"""


class WallClock:
    """A wall clock that can be stepped, for child processes alone; CLOCK_MONOTONIC stays what it is."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        (directory / "sitecustomize.py").write_text(_CLOCK)
        self.step(0.0)

    def step(self, offset_s: float) -> None:
        """Let the clock be `offset_s` ahead of the real one."""
        with open(
            self.directory / "offset", "r+b" if (self.directory / "offset").exists() else "w+b"
        ) as file:
            file.write(struct.pack("d", offset_s))


class SmallDisk:
    """The node's directory can be full: a small tmpfs as root, else a limit on the size of files (EFBIG is as good as
    ENOSPC to whoever writes)."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.directory = directory
        self.mounted = False
        directory.mkdir(parents=True, mode=0o700)
        if os.getuid() == 0:
            options = f"size={size_bytes},mode=0700"
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=False
            )
            self.mounted = done.returncode == 0

    def fill(self) -> None:
        """From now on nothing can be written."""
        if not self.mounted:
            self._limit(0)
            return
        with open(self.directory / "ballast", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with open(self.directory / "ballast", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 10))

    def free(self) -> None:
        """There is room again."""
        if self.mounted:
            (self.directory / "ballast").unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for pid in _family(self.directory):
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    def close(self) -> None:
        """Remove the file system."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=True)
            self.mounted = False


def _family(directory: Path) -> list[int]:
    """The processes of a node: agent, zygotes and the children of these."""
    parents: dict[int, int] = {}
    roots = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if str(directory) in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    roots.add(pid)
    return [pid for pid in parents if pid in roots or parents[pid] in roots]


class Vanishing:
    """A registry between a node and the real one, which can vanish in the middle of an answer."""

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._socket = self._listen(0)
        self.port = self._socket.getsockname()[1]
        self._left: int | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.cut = threading.Event()
        self._serve()

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def vanish(self, after_bytes: int) -> None:
        """Answer so many bytes more, then be gone: connections end, new ones are refused."""
        self.cut.clear()
        with self._lock:
            self._left = after_bytes

    def come_back(self) -> None:
        """Be there again."""
        with self._lock:
            gone, self._left = self.cut.is_set(), None
        if gone:
            self._socket = self._listen(self.port)
            self._serve()

    def close(self) -> None:
        """End for good."""
        self._gone(self._socket)

    def _listen(self, port: int) -> socket.socket:
        # The port may have been lent to somebody else for a moment while nobody listened.
        deadline = time.monotonic() + 30
        while True:
            try:
                return socket.create_server(("127.0.0.1", port), backlog=64)
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # it vanished
                return
            try:
                host, _, port = self._target().partition(":")
                server = socket.create_connection((host, int(port)), timeout=5)
                server.settimeout(None)
            except OSError:  # the real one is away
                client.close()
                continue
            with self._lock:
                gone = listener.fileno() < 0
                self._open |= set() if gone else {client, server}
            if gone:
                client.close()
                server.close()
                return
            for source, sink, counted in ((client, server, False), (server, client, True)):
                args = (listener, source, sink, counted)
                threading.Thread(target=self._pass, args=args, daemon=True).start()

    def _pass(
        self, listener: socket.socket, source: socket.socket, sink: socket.socket, counted: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                with self._lock:
                    if counted and self._left is not None:
                        data = data[: self._left]
                        self._left -= len(data)
                    over = self._left == 0
                sink.sendall(data)
                if over and counted:
                    self._gone(listener)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _gone(self, listener: socket.socket) -> None:
        """Be gone, unless it is already, or was and is back: each time has a listener of its own."""
        with self._lock:
            if listener.fileno() < 0:
                return
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            listener.close()
            open_now, self._open = self._open, set()
        for one in open_now:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.cut.set()


class Killer:
    """Kills parts of a node, and tells the ledger what may be lost by that."""

    def __init__(self, node: Any, ledger: Ledger) -> None:
        self._node = node
        self._ledger = ledger

    def zygotes(self) -> list[processes.Recorded]:
        """The zygotes of the node, without their workers."""
        found = processes.sandboxes_under(self._node.dir)
        pids = {one.pid for one in found}
        return [one for one in found if _parent(one.pid) not in pids]

    def zygote(self) -> None:
        """SIGKILL the zygotes."""
        stopped = self._stop()
        self._ledger.lost |= self.unfinished()
        for one in stopped:
            one.signal(signal.SIGKILL)
        _wait_gone(stopped)

    def worker(self, chance: random.Random) -> str | None:
        """SIGKILL the process of one running module; returns its run, None if none runs."""
        stopped = self._stop()
        try:
            running = [
                (run, pid)
                for run in sorted(self.unfinished())
                if (pid := self._pid(run)) and _parent(pid) in {z.pid for z in stopped}
            ]
            if not running:
                return None
            run, pid = chance.choice(running)
            self._ledger.lost.add(run)
            os.kill(pid, signal.SIGKILL)  # its parent is stopped, so the number is still its own
            return run
        finally:
            for one in stopped:
                one.signal(signal.SIGCONT)

    def template(self) -> None:
        """SIGKILL what forks workers for a zygote, if there is one now."""
        zygotes = {one.pid for one in self.zygotes()}
        for one in processes.sandboxes_under(self._node.dir):
            with contextlib.suppress(OSError):
                if _parent(one.pid) in zygotes and _name(one.pid) == "wasm-template":
                    one.signal(signal.SIGKILL)

    def machine(self) -> None:
        """Everything at once, as when the machine goes: agent, zygotes, workers."""
        stopped = self._stop()
        self._node.kill()
        self._ledger.lost |= self.unfinished()
        for one in stopped:
            one.signal(signal.SIGKILL)
        _wait_gone(stopped)

    def unfinished(self) -> set[str]:
        """The runs on record that have no outcome."""
        runs = self._node.dir / "sandbox" / "runs"
        if not runs.is_dir():
            return set()
        return {run.name for run in runs.iterdir() if "outcome" not in records.read(run)}

    def _pid(self, run: str) -> int:
        try:
            return int(records.read(self._node.dir / "sandbox" / "runs" / run)["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def _stop(self) -> list[processes.Recorded]:
        found = self.zygotes()
        for one in found:
            one.signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while any(_state(one.pid) not in "TXZ" for one in found) and time.monotonic() < deadline:
            time.sleep(0.001)
        return found


def _wait_gone(stopped: list[processes.Recorded]) -> None:
    deadline = time.monotonic() + 30
    while any(start_time_ticks(one.pid) == one.start_ticks for one in stopped):
        assert time.monotonic() < deadline, "a killed zygote does not go"
        time.sleep(0.005)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
