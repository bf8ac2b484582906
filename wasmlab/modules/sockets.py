"""Whether a module wants to listen, by the names of what it would import: cheap, and sure when it says no (a yes may
rest on a string that looks like an import)."""

from __future__ import annotations

import mmap
from enum import Enum

_COMPONENT = b"\0asm\x0d\0\x01\0"
_CORE_SOCKETS = b"sock_bind"
_COMPONENT_SOCKETS = (b"wasi:sockets/tcp", b"wasi:http/incoming-handler")


class Wants(Enum):
    """What a module could do with a port."""

    NOTHING = "nothing"
    WASIX = "sockets of WASIX"
    COMPONENT = "sockets or requests of WASI 0.2"


def wants(module: str) -> Wants:
    """Return what the module at this path could do with a port; nothing if it cannot be read."""
    try:
        with open(module, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return wants_of(data)
    except (OSError, ValueError):
        return Wants.NOTHING  # it cannot be started either, and that is told elsewhere


def wants_of(module: bytes | mmap.mmap) -> Wants:
    """Return what a module could do with a port."""
    if module[:8] == _COMPONENT:
        found = any(module.find(name) >= 0 for name in _COMPONENT_SOCKETS)
        return Wants.COMPONENT if found else Wants.NOTHING
    return Wants.WASIX if module.find(_CORE_SOCKETS) >= 0 else Wants.NOTHING
