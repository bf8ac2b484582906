"""Where wasmlab keeps things, and how it writes them: private, atomic, locked.

Guarantees: a file written by `atomic_write` is either the old one or the new one, whenever the machine stops;
directories made here are 0700, because compiled artifacts are native code and state directories hold keys.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wasmlab.errors import PrerequisiteError, WasmlabError

_MNT_DETACH = 2
# proc(5): how mountinfo writes characters that would end a field.
_MOUNT_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def private_dir(path: Path) -> Path:
    """Create `path` with mode 0700 (missing parents as the umask has it) and refuse one that is somebody else's.

    Raises
    ------
    PrerequisiteError
        If it cannot be created, is owned by another user, or is one that everybody writes to (such as /tmp).
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise PrerequisiteError(
            f"cannot create the directory {path}: {error.strerror}",
            remedy="free some space, fix the permissions, or choose another directory (for the cache: XDG_CACHE_HOME)",
        ) from error
    if info.st_uid != os.geteuid():
        raise PrerequisiteError(
            f"the directory {path} belongs to user id {info.st_uid}, not to you",
            # Never "remove it": it may be /etc, given by mistake.
            remedy="choose a directory of your own (for the cache: XDG_CACHE_HOME)",
        )
    if info.st_mode & 0o002 and any(path.iterdir()):
        raise PrerequisiteError(
            f"the directory {path} is everybody's and in use: making it private would lock the others out",
            remedy=f"choose a directory of your own, for example {path / 'wasmlab'}",
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points at or below `directory`, the deepest first."""
    root = os.path.realpath(directory)
    found = []
    with open("/proc/self/mountinfo") as stream:
        for line in stream:
            point = line.split(" ", 5)[4]
            for escape, character in _MOUNT_ESCAPES:
                point = point.replace(escape, character)
            if point == root or point.startswith(root + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmount what a node mounted for its pods below `directory`, so that it can be removed; best effort.

    Detached (umount2, MNT_DETACH): whoever still has it open keeps its files, nobody else sees them.
    """
    with contextlib.suppress(OSError):
        for point in mounts_below(directory):
            ctypes.CDLL(None).umount2(os.fsencode(point), _MNT_DETACH)


def cache_dir(*parts: str) -> Path:
    """Return ``${XDG_CACHE_HOME:-~/.cache}/wasmlab/<parts>``, created 0700."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    # Each level is made private on its own: mkdir applies its mode to the last level only.
    path = Path(base) / "wasmlab"
    private_dir(path)
    for part in parts:
        path = private_dir(path / part)
    return path


def atomic_write(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Write `data` to `path` so that readers see the old content or the new one, never a part.

    Raises
    ------
    OSError
        As the file system reports it (ENOSPC and so on); the old content is then untouched.
    """
    raw = data.encode() if isinstance(data, str) else data
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def file_lock(path: Path, timeout_s: float, *, what: str = "") -> Iterator[None]:
    """Hold an exclusive flock on `path`; the kernel drops it if the holder dies.

    Parameters
    ----------
    path : Path
        The lock file; created if missing, never removed (removing it would break mutual exclusion).
    timeout_s : float
        How long to wait, in seconds; 0 tries once.
    what : str, optional
        What the lock guards, for the error message.

    Raises
    ------
    WasmlabError
        If another process still holds it at the deadline.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise WasmlabError(
                        f"{what or path.name} is in use by another process (waited {timeout_s:g} s for {path})",
                        remedy="wait for the other process, or end it",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)
