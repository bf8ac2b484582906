"""File systems: the container's root file system in the host's view, and what the OCI spec mounts in the container's.

The root file system is mounted where containerd expects it (``<bundle>/rootfs``), so that containerd can clean up after
a crash too. Everything else is mounted in the worker's own mount namespace and vanishes with the worker.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, NamedTuple

from wasmlab.shim import kernel

_FLAGS = {
    "ro": kernel.MS_RDONLY,
    "nosuid": kernel.MS_NOSUID,
    "nodev": kernel.MS_NODEV,
    "noexec": kernel.MS_NOEXEC,
    "sync": kernel.MS_SYNCHRONOUS,
    "remount": kernel.MS_REMOUNT,
    "dirsync": kernel.MS_DIRSYNC,
    "noatime": kernel.MS_NOATIME,
    "nodiratime": kernel.MS_NODIRATIME,
    "bind": kernel.MS_BIND,
    "rbind": kernel.MS_BIND | kernel.MS_REC,
    "relatime": kernel.MS_RELATIME,
    "strictatime": kernel.MS_STRICTATIME,
}
_CLEARS = {
    "rw": kernel.MS_RDONLY,
    "suid": kernel.MS_NOSUID,
    "dev": kernel.MS_NODEV,
    "exec": kernel.MS_NOEXEC,
    "async": kernel.MS_SYNCHRONOUS,
    "atime": kernel.MS_NOATIME,
    "norelatime": kernel.MS_RELATIME,
    "nostrictatime": kernel.MS_STRICTATIME,
}
_PROPAGATION = {
    "private": kernel.MS_PRIVATE,
    "rprivate": kernel.MS_PRIVATE | kernel.MS_REC,
    "slave": kernel.MS_SLAVE,
    "rslave": kernel.MS_SLAVE | kernel.MS_REC,
    "shared": kernel.MS_SHARED,
    "rshared": kernel.MS_SHARED | kernel.MS_REC,
}
# Of no use to a WASI program, which has no system calls to reach a kernel interface with.
SKIPPED_TYPES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"})
_PAGE = 4096


class Options(NamedTuple):
    """fstab options, sorted: mount(2) flags, propagation, and the rest for the file system."""

    flags: int
    propagation: int
    data: tuple[str, ...]


def parse_options(options: list[str] | tuple[str, ...]) -> Options:
    """Sort fstab options."""
    flags = propagation = 0
    data = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARS:
            flags &= ~_CLEARS[option]
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        elif option in ("defaults", "") or option.startswith(("X-", "x-")):
            continue
        elif option in ("rro", "rprivate", "tmpcopyup"):
            flags |= kernel.MS_RDONLY if option == "rro" else 0
        else:
            data.append(option)
    return Options(flags, propagation, tuple(data))


def shorten_overlay(data: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return (directory, options): overlay options made relative to their common directory if they fill a page.

    mount(2) takes one page of options; an image with many layers has more.
    """
    if len(",".join(data)) < _PAGE - 1:
        return None, data
    lower = next((one for one in data if one.startswith("lowerdir=")), "")
    paths = lower.removeprefix("lowerdir=").split(":")
    common = os.path.commonpath(paths) if len(paths) > 1 else os.path.dirname(paths[0])
    short = "lowerdir=" + ":".join(os.path.relpath(path, common) for path in paths)
    return common, tuple(short if one == lower else one for one in data)


def mount_rootfs(mounts: list[tuple[str, str, str, list[str]]], rootfs: str) -> None:
    """Mount what containerd's snapshotter says (type, source, target, options) at `rootfs`; all or nothing."""
    done: list[str] = []
    try:
        for kind, source, inside, options in mounts:
            target = os.path.join(rootfs, inside.lstrip("/")) if inside else rootfs
            flags, propagation, data = parse_options(options)
            if kind in ("bind", "rbind") or flags & kernel.MS_BIND:
                kernel.mount(source, target, None, kernel.MS_BIND | (flags & kernel.MS_REC))
                done.append(target)
                rest = flags & ~(kernel.MS_BIND | kernel.MS_REC)
                if rest:
                    kernel.mount("", target, None, kernel.MS_REMOUNT | kernel.MS_BIND | rest)
            else:
                directory, data = shorten_overlay(data) if kind == "overlay" else (None, data)
                here = os.getcwd() if directory else ""
                try:
                    if directory:
                        os.chdir(directory)
                    kernel.mount(source, target, kind, flags, ",".join(data))
                finally:
                    if directory:
                        os.chdir(here)
                done.append(target)
            if propagation:
                kernel.mount("", target, None, propagation)
    except OSError:
        for target in reversed(done):
            with contextlib.suppress(OSError):
                kernel.unmount(target, kernel.MNT_DETACH)
        raise


def unmount_all(target: str) -> None:
    """Unmount everything at `target`; harmless if nothing is."""
    for _ in range(16):
        try:
            kernel.unmount(target, kernel.MNT_DETACH)
        except OSError:
            return


def enter(rootfs: str, mounts: list[dict[str, Any]], *, read_only: bool) -> None:
    """In a mount namespace of our own: mount what the spec says below `rootfs`, which becomes the working directory.

    Raises
    ------
    OSError
        If a mount that the user asked for cannot be made. Mounts that every container gets (``/dev/shm``,
        ``/sys/fs/cgroup`` and the like) are left out quietly if the root file system has no place for them.
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    # What the host unmounts must go here too, and nothing that is mounted here may get out.
    kernel.mount("", "/", None, kernel.MS_SLAVE | kernel.MS_REC)
    # A mount point of its own, so that it can be read-only here and become the root.
    kernel.mount(rootfs, rootfs, None, kernel.MS_BIND | kernel.MS_REC)
    for one in mounts:
        kind = one.get("type", "")
        if kind in SKIPPED_TYPES or one["destination"].startswith(("/proc/", "/sys/")):
            continue
        options = parse_options(one.get("options") or [])
        is_bind = kind in ("bind", "rbind") or bool(options.flags & kernel.MS_BIND)
        if not is_bind and kind != "tmpfs":
            raise OSError(22, f"mounts of type {kind!r} are not supported", one["destination"])
        try:
            target = _make_target(rootfs, one["destination"], one["source"] if is_bind else None)
        except OSError:
            if is_bind and not one["destination"].startswith("/dev/"):
                raise
            continue
        _mount_one(one, target, is_bind, options)
        if kind == "tmpfs" and one["destination"] == "/dev":
            _devices(target)
    os.chdir(rootfs)
    if read_only:
        kernel.mount("", ".", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)


def _mount_one(one: dict[str, Any], target: str, is_bind: bool, options: Options) -> None:
    if is_bind:
        kernel.mount(
            one["source"], target, None, kernel.MS_BIND | (options.flags & kernel.MS_REC or kernel.MS_REC)
        )
        rest = options.flags & ~(kernel.MS_BIND | kernel.MS_REC | kernel.MS_RELATIME)
        if rest:
            kernel.mount("", target, None, kernel.MS_REMOUNT | kernel.MS_BIND | rest | _kept_flags(target))
    else:
        kernel.mount(one.get("source", "tmpfs"), target, "tmpfs", options.flags, ",".join(options.data))


def _kept_flags(path: str) -> int:
    # A remount that does not repeat nosuid and its like would take them away.
    now = os.statvfs(path).f_flag
    return now & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def _make_target(root: str, destination: str, source: str | None) -> str:
    """Create the mount point inside `root` without following links out of it; return a path to it."""
    want_file = source is not None and not stat.S_ISDIR(os.stat(source).st_mode)
    parts = [part for part in os.path.normpath("/" + destination).split("/") if part]
    path = ""
    for index, part in enumerate(parts):
        path += "/" + part
        last = index == len(parts) - 1
        try:
            fd = kernel.open_in_root(root, path, os.O_PATH)
        except FileNotFoundError:
            parent = kernel.open_in_root(root, os.path.dirname(path), os.O_PATH)
            try:
                if last and want_file:
                    os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
                else:
                    os.mkdir(part, 0o755, dir_fd=parent)
            finally:
                os.close(parent)
        else:
            os.close(fd)
    fd = kernel.open_in_root(root, path or "/", os.O_PATH)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _devices(dev: str) -> None:
    for name in ("null", "zero", "random", "urandom"):
        target = f"{dev}/{name}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        kernel.mount(f"/dev/{name}", target, None, kernel.MS_BIND)
