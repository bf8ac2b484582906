"""From a sandbox outcome to what Kubernetes calls a terminated container: pure.

A trap is not an exit code, and Kubernetes knows only exit codes, so each kind of trap has one by the convention of
shells and container runtimes (128 + signal); the message tells what it really was.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from wasmlab.node.status.records import Ended

if TYPE_CHECKING:
    from wasmlab.sandbox import Outcome

START_ERROR = 128  # what container runtimes report for a container that could not be started
_SIGNAL = re.compile(r"\bSIG([A-Z]+)\b")


def ended(outcome: Outcome, run_id: str) -> Ended:
    """What a run's outcome means for its container.

    Returns
    -------
    Ended
        ``Completed`` for exit code 0; ``Error`` for any other and for traps; ``OOMKilled`` for a module that ran into
        its memory limit; ``StartError`` for one that could not be started at all.
    """
    code, reason, message = _read(outcome)
    return Ended(
        exit_code=code,
        reason=reason,
        message=message,
        started_at=outcome.started_at,
        finished_at=max(outcome.finished_at, outcome.started_at),
        run_id=run_id,
    )


def _read(outcome: Outcome) -> tuple[int, str, str]:
    if outcome.exit_code is not None and not outcome.trap:
        if outcome.exit_code == 0:
            return 0, "Completed", ""
        # "exited with code 3" says nothing that the code does not say; a signal does.
        return outcome.exit_code, "Error", outcome.message if "SIG" in outcome.message else ""
    kind, message = outcome.trap or "unknown", outcome.message or outcome.trap or "unknown"
    if kind == "lost":
        return 128 + signal.SIGKILL, "ContainerStatusUnknown", message
    if kind in ("invalid_module", "link", "unsupported", "failed"):
        return START_ERROR, "StartError", message
    if kind == "out_of_memory":
        return 128 + signal.SIGKILL, "OOMKilled", message
    if kind in ("deadline", "killed"):
        return 128 + signal.SIGKILL, "Error", message
    if kind == "crash":
        return 128 + _signal(message, signal.SIGSEGV), "Error", message
    return 128 + signal.SIGABRT, "Error", message


def _signal(message: str, default: signal.Signals) -> int:
    named = _SIGNAL.search(message)
    return getattr(signal, f"SIG{named.group(1)}", default) if named else default


def start_error(message: str, now: float, run_id: str) -> Ended:
    """The end of a container that never began."""
    return Ended(START_ERROR, "StartError", message, now, now, run_id)


def lost(started_at: float, now: float, run_id: str) -> Ended:
    """The end of a run that nobody saw the end of (its zygote died, or the machine did)."""
    return Ended(
        137,
        "ContainerStatusUnknown",
        "the module's process and its outcome are gone (the sandbox or the machine was restarted)",
        started_at,
        now,
        run_id,
    )
