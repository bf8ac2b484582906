"""Where the volumes of a pod appear in a container: from ``volumeMounts`` to the directories that its module may see.

A module is given directories, never files (WASI preopens). A file (a ``subPath`` that names one, a hostPath file) is
therefore shown in a directory of its own: the parent of its ``mountPath``, which holds nothing else. A file of an
API-filled volume is copied there, as Kubernetes does not update a ``subPath`` either; any other is a hard link, or a
bind mount from another file system if this agent may mount.

What guests can write to is never trusted: a ``subPath`` is opened here, and again by the sandbox when the module
starts, without following a symbolic link (CVE-2017-1002101, CVE-2021-25741 of the kubelet).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wasmlab.node.inputs import filesystems
from wasmlab.node.spec import claims, payload
from wasmlab.node.spec.env import ConfigError
from wasmlab.node.spec.podspec import Json, Mount, Refused
from wasmlab.sandbox import Preopen

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def preopens(
    mounts: Sequence[Mount], volumes: Mapping[str, Json], roots: Mapping[str, Path], aside: Path
) -> tuple[Preopen, ...]:
    """Return the directories for the sandbox.

    Parameters
    ----------
    mounts : sequence of Mount
        Of the container, sub paths expanded.
    volumes : mapping
        Volume name -> v1.Volume.
    roots : mapping
        Volume name -> its directory (or file) on this node.
    aside : Path
        A private directory of this container, for single files; made anew.

    Raises
    ------
    Refused
        What is asked for cannot be shown to a module.
    ConfigError
        It cannot now.
    """
    if aside.exists():
        filesystems.remove(aside)
    result: dict[str, Preopen] = {}
    singles: dict[str, list[tuple[Mount, Path]]] = {}
    for one in mounts:
        volume = volumes[one.name]
        filled = payload.kind_of(volume) in payload.KINDS
        read_only = one.read_only or filled or claims.read_only(volume)
        mount = replace(one, read_only=read_only)
        root = roots[mount.name]
        guest = os.path.normpath(mount.guest)
        if filled and mount.sub_path:
            source = _resolved(root, mount)
            if source.is_dir():
                filesystems.private(aside, within=aside.parents[2])
                copy = aside / f"{len(result)}.dir"
                shutil.copytree(source, copy)
                preopen = Preopen(str(copy), guest, True)
            else:
                singles.setdefault(os.path.dirname(guest), []).append((mount, source))
                continue
        elif mount.sub_path:
            if not open_below(root, mount):
                singles.setdefault(os.path.dirname(guest), []).append((mount, root / mount.sub_path))
                continue
            preopen = Preopen(str(root / mount.sub_path), guest, read_only, root=str(root))
        elif root.is_dir():
            preopen = Preopen(str(root), guest, read_only)
        else:
            singles.setdefault(os.path.dirname(guest), []).append((mount, root))
            continue
        if guest in result:
            raise Refused(f"two volumes are mounted at {guest}")
        result[guest] = preopen
    for number, (parent, files) in enumerate(singles.items()):
        if parent in result:
            raise Refused(
                f"{files[0][0].guest} is a single file in {parent}, where a volume is mounted: a module sees"
                " directories only, so it can have one of the two"
            )
        result[parent] = _files(parent, files, aside / f"{number}.files", volumes)
    return tuple(result.values())


def _resolved(root: Path, mount: Mount) -> Path:
    """Where a sub path of an API-filled volume leads; no guest writes there, its links are the writer's own."""
    found = (root / mount.sub_path).resolve()
    if not found.is_relative_to(root.resolve()):
        raise Refused(f"volume {mount.name}: subPath {mount.sub_path} leads out of the volume")
    if not found.exists():
        raise ConfigError(f"volume {mount.name} has no {mount.sub_path}")
    return found


def open_below(root: Path, mount: Mount) -> bool:
    """Whether the sub path is a directory (made if it is not there), as opposed to a file.

    Raises
    ------
    Refused
        It goes through a symbolic link.
    """
    fd = os.open(root, _FLAGS | os.O_DIRECTORY)
    try:
        for part in Path(mount.sub_path).parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o750, dir_fd=fd)
            below = os.open(part, _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(
                f"volume {mount.name}: subPath {mount.sub_path} goes through a symbolic link or a file"
            ) from None
        raise ConfigError(f"volume {mount.name}: subPath {mount.sub_path}: {error.strerror}") from None
    finally:
        os.close(fd)


def _files(
    parent: str, files: Sequence[tuple[Mount, Path]], directory: Path, volumes: Mapping[str, Json]
) -> Preopen:
    """A directory that shows single files."""
    filesystems.private(directory, within=directory.parents[3])
    wanted = set()
    for mount, source in files:
        target = directory / os.path.basename(mount.guest)
        if target.exists():
            raise Refused(f"two files are mounted at {mount.guest}")
        if payload.kind_of(volumes[mount.name]) in payload.KINDS:
            shutil.copy2(source, target)
            wanted.add(True)
        else:
            _link(mount, source, target)
            wanted.add(mount.read_only)
    if len(wanted) > 1:
        raise Refused(f"the files mounted in {parent} must be all read-only or all writable")
    return Preopen(str(directory), parent, wanted.pop())


def _link(mount: Mount, source: Path, target: Path) -> None:
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if mount.sub_path else 0))
    except OSError as error:
        raise ConfigError(f"volume {mount.name}: {source}: {error.strerror}") from None
    try:
        # By the descriptor: what was looked at is what is shown.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(
                f"volume {mount.name}: {source} is neither a directory nor a file; a module can be given no other"
            )
        try:
            filesystems.link(fd, target)
        except OSError:
            target.touch(mode=0o600)
            try:
                filesystems.bind(fd, target)
            except OSError as error:
                raise Refused(
                    f"volume {mount.name}: the file {source} is on another file system, and this agent may not"
                    f" mount ({error.strerror}); mount its directory instead"
                ) from None
    finally:
        os.close(fd)
