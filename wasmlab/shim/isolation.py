"""What a worker does to itself before a guest runs in it: the container around the module.

WASI already confines the guest to its preopened directory. All this is the second wall (for the day the engine has a
hole), and it makes limits, figures and mounts what Kubernetes promises.
"""

from __future__ import annotations

import os
from typing import Any

from wasmlab.shim import kernel, mounts

_DAC_READ_SEARCH = kernel.capability_mask(["CAP_DAC_READ_SEARCH"])


def enter(request: dict[str, Any]) -> None:
    """Join the cgroup, the network and the mounts. The process must have one thread.

    Parameters
    ----------
    request : dict
        ``cgroup`` (files to join by), ``oom_score_adj``, ``network`` (path, "" for a new one, None), ``mount_ns_of``
        (pid of a process whose mounts to share, for exec) or ``rootfs``, ``mounts``, ``read_only``.

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
        os.write(fd, str(request["oom_score_adj"]).encode())
        os.close(fd)
    network = request.get("network")
    if network:
        _join(network, kernel.CLONE_NEWNET)
    elif network == "":
        kernel.unshare(kernel.CLONE_NEWNET)
    if request.get("mount_ns_of"):
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


def seal(request: dict[str, Any], parent: int, *, pivot: bool) -> None:
    """Give up the host's files (`pivot`) and every privilege that the container does not have.

    Without `pivot` (wasmer: its threads still read the compile cache) a user that is not root keeps the capability to
    read files; its guest has no host directories.
    """
    user = request["user"]
    if pivot:
        kernel.pivot_into_cwd()
    capabilities = user["capabilities"]
    if not pivot and user["uid"] != 0:
        capabilities |= _DAC_READ_SEARCH
    kernel.become(user["uid"], user["gid"], user["groups"], capabilities)
    kernel.die_with_parent(parent)
