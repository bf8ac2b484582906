"""What a worker does to itself before a guest runs in it: the container around the module.

WASI already confines the guest to its preopened directory. All this is the second wall (for the day the engine has a
hole), and it makes limits, figures and mounts what Kubernetes promises.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any

from wasmlab.shim import kernel, mounts

_JOIN_TIMEOUT_S = 10.0
_DAC_READ_SEARCH = kernel.capability_mask(["CAP_DAC_READ_SEARCH"])


def enter(request: dict[str, Any]) -> None:
    """Join the cgroup, the network and the mounts. The process must have one thread.

    Parameters
    ----------
    request : dict
        ``cgroup`` (files to join by), ``oom_score_adj``, ``network`` (path, "" for a new one, None), ``rootfs``,
        ``mounts``, ``read_only``; for exec ``mount_ns_of`` (pid of the process whose mounts to share); ``pivot``
        (whether the root file system becomes the root: see `seal`).

    Raises
    ------
    OSError
        With the reason; nothing is left behind, since everything belongs to this process.
    """
    for path in request["cgroup"]:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
    if request.get("oom_score_adj") is not None:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        # Without CAP_SYS_RESOURCE nobody can make himself less likely to be killed than he is.
        with contextlib.suppress(PermissionError):
            os.write(fd, str(request["oom_score_adj"]).encode())
        os.close(fd)
    network = request.get("network")
    if network:
        _join(network, kernel.CLONE_NEWNET)
    elif network == "":
        kernel.unshare(kernel.CLONE_NEWNET)
    if request.get("mount_ns_of"):
        if not request["pivot"]:
            _join(f"/proc/{request['mount_ns_of']}/ns/mnt", kernel.CLONE_NEWNS)
    elif request.get("rootfs"):
        mounts.enter(request["rootfs"], request["mounts"], read_only=request["read_only"])


def _join(path: str, kind: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(fd, kind)
    except OSError as error:
        raise OSError(error.errno, f"cannot join the namespace: {error.strerror}", path) from None
    finally:
        os.close(fd)


def _join_root(pid: int, rootfs: str) -> None:
    """Join the mounts of a process that has made, or is about to make, `rootfs` its root."""
    wanted = os.stat(rootfs)
    deadline = time.monotonic() + _JOIN_TIMEOUT_S
    while True:
        _join(f"/proc/{pid}/ns/mnt", kernel.CLONE_NEWNS)
        root = os.stat("/")
        if (root.st_dev, root.st_ino) == (wanted.st_dev, wanted.st_ino):
            return
        # It still loads its code; nothing may run here while the host's files are in view.
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, "the container's root did not appear", rootfs)
        time.sleep(0.002)


def seal(request: dict[str, Any], parent: int) -> None:
    """Give up the host's files and every privilege that the container does not have.

    Without ``request["pivot"]`` (wasmer: its threads still read the compile cache) the host's files stay, and a user
    that is not root keeps the capability to read files; its guest has no host directories.
    """
    user = request["user"]
    capabilities = user["capabilities"]
    if not request["pivot"]:
        if user["uid"] != 0:
            capabilities |= _DAC_READ_SEARCH
    elif request.get("mount_ns_of"):
        _join_root(request["mount_ns_of"], request["rootfs"])
    else:
        kernel.pivot_into_cwd()
    kernel.become(user["uid"], user["gid"], user["groups"], capabilities)
    kernel.die_with_parent(parent)
