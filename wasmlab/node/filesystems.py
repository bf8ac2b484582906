"""Mounts that the node makes for pods (tmpfs, single files), and how they go away again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NOSUID, _NODEV, _BIND = 2, 4, 4096
_DETACH = 2
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def private(directory: Path, *, within: Path) -> None:
    """Make a directory that only this user can enter, and those between it and `within`.

    Raises
    ------
    OSError
        It cannot be made.
    """
    # Not mkdir(parents=True): that makes parents with the mode of the umask.
    made = within
    for part in directory.relative_to(within).parts:
        made /= part
        with contextlib.suppress(FileExistsError):
            os.mkdir(made, 0o700)


def tmpfs(target: Path, size_bytes: int | None) -> None:
    """Mount a file system in memory.

    Raises
    ------
    OSError
        This process may not mount (it is not root).
    """
    options = "mode=0700" if size_bytes is None else f"mode=0700,size={size_bytes}"
    _mount("tmpfs", str(target), "tmpfs", _NOSUID | _NODEV, options)


def bind(source: str, target: Path) -> None:
    """Show a file at another place.

    Raises
    ------
    OSError
        This process may not mount.
    """
    _mount(source, str(target), "", _BIND, "")


def below(directory: Path) -> list[str]:
    """Mount points at or below a directory, the deepest first."""
    root = os.path.realpath(directory)
    found = []
    with open("/proc/self/mountinfo") as stream:
        for line in stream:
            point = line.split(" ", 5)[4]
            for escape, character in _ESCAPES:
                point = point.replace(escape, character)
            if point == root or point.startswith(root + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def remove(directory: Path) -> None:
    """Unmount what is mounted below a directory and remove it; what cannot be removed is left for the next time."""
    with contextlib.suppress(OSError):
        for point in below(directory):
            # Detached: a module that still has it open keeps its files, nobody else sees them.
            _LIBC.umount2(os.fsencode(point), _DETACH)
    shutil.rmtree(directory, ignore_errors=True)


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    done = _LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
