"""What a process gives up before a guest runs in it. Each step is made by the worker itself, right after the fork."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
# Loaded before the fork: dlopen in a child would be slow and take locks.
_LIBC = ctypes.CDLL(None, use_errno=True)
_STACK_BYTES = 8 << 20
_OPEN_FILES = 1024
# The kernel's out of memory killer should take guests before zygotes, node agents and notebooks.
_OOM_SCORE_ADJ = b"800"
_RESET_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def confine(parent: int, keep_fd: int, name: bytes) -> None:
    """Make this process fit for a guest: own session, dies with `parent`, no descriptors but 0-2 and `keep_fd`.

    Ends the process if the parent is gone already.
    """
    os.setsid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl could take effect
        os._exit(0)
    _LIBC.prctl(_PR_SET_NAME, name[:15])
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.closerange(3, keep_fd)
    os.closerange(keep_fd + 1, 1 << 20)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(
        resource.RLIMIT_STACK,
        (_STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard), hard),
    )
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, _OOM_SCORE_ADJ)
        os.close(fd)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (limit, limit))


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one: a zygote holds four per run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
