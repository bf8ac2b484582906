"""What one run asks of its worker beyond what every worker gives up (`limits`): control groups, a data limit, a score
for the kernel's out of memory killer, and directories below a root that other guests write to."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from dataclasses import replace

from wasmlab.engines.spec import Preopen, RunSpec


def apply(spec: RunSpec, *, guest_here: bool = True) -> RunSpec:
    """Confine this process, and return the spec for the engine.

    Parameters
    ----------
    guest_here : bool
        Whether the guest will run in the calling thread, the process's first, and not in one of the engine's own.

    Raises
    ------
    OSError
        Something cannot be done; the guest must not run then.
    """
    for directory in spec.cgroups:
        join(directory, whole=not guest_here)
    if spec.data_bytes is not None:
        limit_data(spec.data_bytes)
    if spec.oom_score_adj is not None:
        # Without CAP_SYS_RESOURCE nobody can make himself less likely to be killed than he is.
        with contextlib.suppress(OSError):
            _write("/proc/self/oom_score_adj", str(spec.oom_score_adj))
    if any(one.root for one in spec.preopens):
        return replace(spec, preopens=tuple(_inside(one) for one in spec.preopens))
    return spec


def join(directory: str, *, whole: bool = False) -> None:
    """Join a control group.

    Parameters
    ----------
    whole : bool
        All threads of this process, and not the first one alone.

    Raises
    ------
    OSError
        It is gone, or may not be joined.
    """
    # To move a whole process the kernel waits (5-20 ms) until no other one forks or ends; one thread may move itself at
    # once (version 1). Memory is charged to the group of the process's first thread, whoever touches it, and threads
    # made later are in the group of their maker: what stays outside are an engine's idle helpers.
    if not whole and os.path.exists(f"{directory}/tasks"):
        _write(f"{directory}/tasks", "0")
    else:
        _write(f"{directory}/cgroup.procs", "0")


def limit_data(extra_bytes: int) -> None:
    """Let this process's data (heap and writable private memory) grow by so much and no more."""
    with open("/proc/self/status", "rb") as stream:
        now = next(int(line.split()[1]) * 1024 for line in stream if line.startswith(b"VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + extra_bytes
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _inside(one: Preopen) -> Preopen:
    """The same directory, opened without following a link below its root, by the name of that descriptor."""
    if not one.root:
        return one
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(one.root, flags)
    for part in os.path.relpath(one.host, one.root).split("/"):
        if part == ".":
            continue
        if part == "..":
            raise OSError(errno.EXDEV, "the directory is not below its root", one.host)
        try:
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
        except OSError as error:
            raise OSError(
                error.errno, f"the directory cannot be opened safely: {error.strerror}", one.host
            ) from None
        finally:
            os.close(fd)
        fd = below
    return replace(one, host=f"/proc/self/fd/{fd}", root="")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
