"""Where processes listen, read in /proc: what may be reached through a pod is what its modules listen on.

References
----------
proc_pid_net(5) (``tcp``, ``tcp6``); proc_pid_fd(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN of linux/tcp_states.h
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Listener:
    """A TCP socket that waits for connections."""

    host: str
    port: int
    inode: int

    @property
    def reachable(self) -> str:
        """An address of this machine at which it answers."""
        return _ANY.get(self.host, self.host)


def parse(text: str) -> Iterator[Listener]:
    """Read the listeners in ``/proc/net/tcp`` or ``/proc/net/tcp6``."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        yield Listener(_host(address), int(port, 16), int(fields[9]))


def _host(text: str) -> str:
    # Words of four bytes, each in the machine's order.
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def listening(pids: Iterable[int]) -> list[Listener]:
    """Where these processes listen, IPv4 first; a process that has ended listens nowhere."""
    found = []
    for pid in pids:
        held = set(_inodes(pid))
        if not held:
            continue
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/net/{table}").read_text()
                found += [one for one in parse(text) if one.inode in held]
    return found


def _inodes(pid: int) -> Iterator[int]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{directory}/{name}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])
