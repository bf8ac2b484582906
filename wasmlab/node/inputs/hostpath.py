"""hostPath volumes: what their type promises, checked or made; local volumes, which have to be there.

References
----------
``k8s.io/kubernetes/pkg/volume/hostpath/host_path.go`` (``checkTypeInternal``; modes of what it makes);
``containerd/internal/cri/server/container_create_linux.go`` (a path without type is made);
``k8s.io/kubernetes/pkg/volume/local/local.go`` (``getGlobalLocalPath``).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class WrongType(Exception):
    """The path is not what the volume's type says; the message is the kubelet's."""


def prepare(path: str, kind: str) -> Path:
    """Return the path of a hostPath volume, made if its type says so.

    Raises
    ------
    WrongType
        It is not of its type.
    OSError
        It cannot be made.
    """
    if not os.path.isabs(path) or ".." in path.split("/"):
        raise WrongType(f"hostPath type check failed: {path} is not an absolute path without '..'")
    host = Path(path)
    if kind.endswith("OrCreate"):
        kind = kind.removesuffix("OrCreate")
        if not host.exists():
            if kind == "Directory":
                host.mkdir(mode=0o755, parents=True, exist_ok=True)
            else:
                os.close(os.open(host, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    if kind:
        if kind not in _KINDS:
            raise WrongType(f"hostPath type {kind} is unknown")
        test, text = _KINDS[kind]
        try:
            good = test(os.stat(host).st_mode)
        except OSError:
            good = False
        if not good:
            raise WrongType(f"hostPath type check failed: {path} is not {text}")
    elif not host.exists():
        # No type promises nothing, and container runtimes make the directory then.
        host.mkdir(mode=0o755, parents=True, exist_ok=True)
    return host


def existing(path: str) -> Path:
    """Return the directory of a local volume.

    Raises
    ------
    WrongType
        It is not there, or not a directory.
    """
    if not os.path.isabs(path) or ".." in path.split("/"):
        raise WrongType(f"invalid path: {path} is not an absolute path without '..'")
    host = Path(path)
    if host.is_dir():
        return host
    if host.is_block_device():
        raise WrongType(f"{path} is a block device: this node mounts none; mount it, and give the directory")
    raise WrongType(
        "only directory and block device are supported" if host.exists() else f'path "{path}" does not exist'
    )
