"""The termination message: what a module leaves behind about its end.

``terminationMessagePath`` names a file that the container may write. A module can write a file only in a directory that
is preopened for it, so the node preopens a private, empty directory of this attempt at the path's dirname (``/dev`` for
the default ``/dev/termination-log``) and reads the file when the module has ended. Every pod has that default, and a
directory costs about as much as the rest of a start, so it is made only for a module that could use it: one that
imports ``path_open`` (or the file system of WASI preview 2). Where a volume is mounted at the very dirname, the file
is the volume's.

``FallbackToLogsOnError`` takes the end of the log instead when the file is empty and the exit code is not 0.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go`` (``getTerminationMessage``,
``readLastStringFromContainerLogs``), ``pkg/kubelet/container/runtime.go`` (the limits).
"""

from __future__ import annotations

import functools
import mmap
import os
import posixpath
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.node.runtime.crilog import LogFilter, tail_offset
from wasmlab.node.status.records import Ended

if TYPE_CHECKING:
    from wasmlab.sandbox import RunSpec

Json = dict[str, Any]

DEFAULT_PATH = "/dev/termination-log"
FALLBACK = "FallbackToLogsOnError"
_MOST_BYTES = 4 << 10
_LOG_BYTES, _LOG_LINES = 2 << 10, 80
_OPENERS = (b"path_open", b"wasi:filesystem")


def place(container: Json) -> tuple[str, str]:
    """Directory and name of the file, as the module sees them."""
    path = posixpath.normpath("/" + (container.get("terminationMessagePath") or DEFAULT_PATH))
    return posixpath.split("/" + path.lstrip("/"))


@functools.lru_cache(maxsize=512)
def opens_files(module: str, digest: str) -> bool:
    """Whether a module could open a file. Sure when it says no; a yes may rest on a string that looks like an import.

    Parameters
    ----------
    module : str
        Path of the module.
    digest : str
        Its digest: looked at once.
    """
    try:
        with open(module, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(name) >= 0 for name in _OPENERS)
    except (OSError, ValueError):
        return False  # then it cannot be started either, which says more


def with_place(spec: RunSpec, container: Json, directory: Path) -> RunSpec:
    """Return the spec with a place for the file: a directory that is made, unless a volume is mounted there.

    Parameters
    ----------
    directory : Path
        To be made.

    Raises
    ------
    OSError
        It cannot be made.
    """
    from wasmlab.sandbox import Preopen

    guest, _ = place(container)
    if any(posixpath.normpath(one.guest) == guest for one in spec.preopens):
        return spec
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return replace(spec, preopens=(*spec.preopens, Preopen(str(directory), guest)))


def host_directory(spec: RunSpec, container: Json) -> Path | None:
    """Where the file is on the host, if the module was given a place for it."""
    guest, _ = place(container)
    for one in spec.preopens:
        if posixpath.normpath(one.guest) == guest:
            # Below a root that guests write to, no path can be trusted to lead where it did.
            return None if getattr(one, "root", "") else Path(one.host)
    return None


def read(directory: Path, name: str) -> str:
    """The message in a directory that a module could write to: nothing in it is trusted, no link is followed."""
    try:
        fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"Error on reading termination log {name}: {error.strerror}"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return f"Error on reading termination log {name}: it is not a regular file"
        data = os.pread(fd, _MOST_BYTES, max(0, found.st_size - _MOST_BYTES))
        return data.decode(errors="replace")
    finally:
        os.close(fd)


def last_of_log(path: Path) -> str:
    """The end of a log, as a message."""
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(file, _LOG_LINES))
            text = LogFilter().feed(file.read())
    except OSError as error:
        return f"Error on reading termination message from logs: {error.strerror}"
    return text[-_LOG_BYTES:].decode(errors="ignore")


def complete(end: Ended, container: Json, directory: Path | None, log_path: Path) -> Ended:
    """Return the end with the message that the module left.

    Parameters
    ----------
    directory : Path or None
        Where the file would be, on the host.
    log_path : Path
        The log of this attempt.
    """
    text = read(directory, place(container)[1]) if directory is not None else ""
    falls_back = container.get("terminationMessagePolicy") == FALLBACK
    if not text and falls_back and end.exit_code != 0 and end.reason != "StartError":
        text = last_of_log(log_path)
    if not text:
        return end
    return replace(end, message=f"{end.message}: {text}" if end.message else text)
