"""System calls that Python's standard library does not have, through ctypes.

References
----------
mount(2), umount2(2), unshare(2), setns(2), pivot_root(2), openat2(2), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10

_SPLICE_F_NONBLOCK = 2

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MNT_DETACH = 2

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 16, 32, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 1024, 2048, 4096, 16384
MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 1 << 18, 1 << 19, 1 << 20, 1 << 17
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_KEEPCAPS, _PR_SET_DUMPABLE = 1, 15, 8, 4
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


def _check(result: int, what: str, path: str = "") -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", path or None)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Call mount(2)."""
    result = _LIBC.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _check(result, f"mount {kind or 'bind'} {source}", target)


def unmount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _check(_LIBC.umount2(os.fsencode(target), flags), "umount", target)


def unshare(flags: int) -> None:
    """Call unshare(2)."""
    _check(_LIBC.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Call setns(2)."""
    _check(_LIBC.setns(fd, kind), "setns")


def pivot_into_cwd() -> None:
    """Make the working directory (a mount point) the root and let go of the old root."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    # pivot_root(".", ".") stacks the old root on the new one: no directory is needed to put it in.
    _check(_LIBC.syscall(number, b".", b"."), "pivot_root")
    unmount(".", MNT_DETACH)
    os.chdir("/")


def open_in_root(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process whose root is `root` would, symbolic links included; nothing outside can be reached.

    Raises
    ------
    OSError
        As open(2).
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
        fd = _LIBC.syscall(_SYS_OPENAT2, directory, os.fsencode(path), how, len(how))
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return int(fd)
    finally:
        os.close(directory)


def has_writer(fifo: int) -> bool:
    """Whether a process has this FIFO (open for reading, not blocking) open for writing, or has left data in it."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # Looks without taking: 0 says "no writer", EAGAIN "nothing yet".
        result = _LIBC.tee(fifo, write, ctypes.c_size_t(1), _SPLICE_F_NONBLOCK)
        return bool(result != 0)
    finally:
        os.close(read)
        os.close(write)


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent ends; end now if it has. (A change of credentials clears this.)"""
    _LIBC.prctl(_PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(0)


def no_death_signal() -> None:
    """Outlive the parent."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, 0)


def set_name(name: str) -> None:
    """Set what ``ps -o comm`` shows."""
    _LIBC.prctl(_PR_SET_NAME, name.encode()[:15])


# capability.h order: the number of a capability is its place here.
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = tuple(_NAMES.split())
_VERSION_3 = 0x20080522


def capability_mask(names: list[str] | tuple[str, ...]) -> int:
    """Return the bits of capabilities named as in an OCI spec (``CAP_CHOWN``); unknown names count for nothing."""
    mask = 0
    for name in names:
        plain = name.removeprefix("CAP_")
        if plain in CAPABILITIES:
            mask |= 1 << CAPABILITIES.index(plain)
    return mask


def become(uid: int, gid: int, groups: list[int], capabilities: int) -> None:
    """Change to user, groups and exactly these capabilities (effective and permitted; none to inherit)."""
    for number in range(len(CAPABILITIES)):
        if not capabilities >> number & 1:
            _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups(groups)
    keep = uid != 0 and capabilities != 0
    if keep:
        _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid == 0 or keep:
        low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
        header = struct.pack("=Ii", _VERSION_3, 0)
        data = struct.pack("=6I", low, low, 0, high, high, 0)
        _check(_LIBC.capset(header, data), "capset")
    # Other processes of that user must not read or trace this one.
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
