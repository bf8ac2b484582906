"""From a sandbox outcome to what containerd knows: an exit status and whether memory ran out. Pure.

The codes are those of path 1 (`wasmlab.node.status.outcomes`), so that a module ends alike on both.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wasmlab.sandbox.spec import Outcome

START_ERROR = 128
_KILLED = 128 + signal.SIGKILL


class End(NamedTuple):
    """How a process ended, in containerd's terms; `message` is for people ("" if there is nothing to say)."""

    status: int
    out_of_memory: bool
    message: str


def read(outcome: Outcome, wait_status: int, *, oom_killed: bool, memory_limit_bytes: int | None) -> End:
    """Return the end.

    Parameters
    ----------
    outcome : Outcome
        The verdict of `wasmlab.sandbox.verdict.judge`.
    wait_status : int
        The worker's status, as from wait.
    oom_killed : bool
        Whether the cgroup counted a kill for lack of memory while the process ran.
    """
    if oom_killed and os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == signal.SIGKILL:
        return End(_KILLED, True, f"out of memory: killed at the limit of {memory_limit_bytes} bytes")
    if outcome.exit_code is not None and not outcome.trap:
        return End(outcome.exit_code, False, outcome.message if "SIG" in outcome.message else "")
    message = f"{outcome.trap}: {outcome.message}"
    if outcome.trap == "out_of_memory":
        return End(_KILLED, True, message)
    if outcome.trap in ("invalid_module", "link", "unsupported", "failed"):
        return End(START_ERROR, False, message)
    if outcome.trap in ("deadline", "killed", "lost"):
        return End(_KILLED, False, message)
    if outcome.trap == "crash":
        number = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else signal.SIGSEGV
        return End(128 + number, False, message)
    return End(128 + signal.SIGABRT, False, message)
