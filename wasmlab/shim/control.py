"""Talk to a node's shim zygote from the lab: is it there, end it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from wasmlab.errors import SandboxError
from wasmlab.shim import entry

_STOP_TIMEOUT_S = 5.0


def ping(directory: Path) -> int | None:
    """Return the process id of the zygote that serves `directory`; None if there is none."""
    try:
        answer = entry.ask(str(directory), ("ping",))
    except OSError:
        return None
    return int(answer[1:]) if answer[:1] == b"0" else None


def start(directory: Path, python: str) -> int:
    """Start the zygote ahead of the first pod, which else waits half a second for it; return its process id.

    Raises
    ------
    SandboxError
        If it does not start.
    """
    try:
        entry.start_zygote(str(directory), python)
    except OSError as error:
        raise SandboxError(str(error), remedy="run `wasmlab doctor`") from error
    pid = ping(directory)
    if pid is None:
        raise SandboxError(
            f"the shim's zygote started in {directory} but does not answer",
            remedy=f"see {directory}/shim.log",
        )
    return pid


def stop(directory: Path) -> bool:
    """End the zygote and the shims that wait for a pod; those that have one stay. Returns whether there was one.

    Raises
    ------
    SandboxError
        If it does not end.
    """
    try:
        answer = entry.ask(str(directory), ("stop",))
    except OSError:
        return False
    pid = int(answer[1:])
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not _alive(pid):
            return True
        time.sleep(0.005)
    raise SandboxError(f"the shim's zygote {pid} does not end", remedy=f"kill -9 {pid}")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
