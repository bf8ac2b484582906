"""Mounts that the node makes for pods (tmpfs, single files), and how they go away again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

from wasmlab.paths import unmount_below

_LIBC = ctypes.CDLL(None, use_errno=True)
_NOSUID, _NODEV, _BIND = 2, 4, 4096


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


def link(fd: int, target: Path) -> None:
    """Give an open file another name.

    Raises
    ------
    OSError
        It is on another file system.
    """
    names = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Relative to a directory: only then does Python call linkat, which can follow /proc's link to the file.
        os.link(str(fd), target, src_dir_fd=names, follow_symlinks=True)
    finally:
        os.close(names)


def bind(fd: int, target: Path) -> None:
    """Show an open file at another place.

    Raises
    ------
    OSError
        This process may not mount.
    """
    _mount(f"/proc/self/fd/{fd}", str(target), "", _BIND, "")


def remove(directory: Path) -> None:
    """Unmount what is mounted below a directory and remove it; what cannot be removed is left for the next time."""
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    done = _LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
