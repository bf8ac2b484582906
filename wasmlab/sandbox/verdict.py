"""What it means that a worker ended: pure, so that every case can be tested without a process."""

from __future__ import annotations

import os
import signal
from typing import Any

from wasmlab.engines.spec import Outcome, Span

# Signals that somebody sends on purpose; a guest cannot handle them, so they simply end it.
_POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def judge(
    *,
    status: int,
    result: dict[str, Any] | None,
    asked_signal: int | None = None,
    deadline_s: float | None = None,
    deadline_passed: bool = False,
    memory_bytes: int | None = None,
    started_at: float = 0.0,
    finished_at: float = 0.0,
    max_rss_bytes: int = 0,
    cpu_s: float = 0.0,
    spans: tuple[Span, ...] = (),
) -> Outcome:
    """Return the outcome of a run whose worker has been reaped.

    Parameters
    ----------
    status : int
        As `os.wait4` gave it.
    result : dict or None
        What the worker reported before it ended; the guest's own end always counts most.
    asked_signal : int, optional
        The signal that the client asked to send.
    deadline_s, deadline_passed
        The deadline, and whether it made the zygote kill the worker.
    """
    exit_code: int | None = None
    trap: str | None = None
    message = ""
    if result is not None:
        exit_code, trap, message = result["exit_code"], result["trap"], result["message"]
        phases = tuple(Span(*one) for one in result["spans"])
        spans = (*phases, *_teardown(phases, spans), *spans)
    elif deadline_passed:
        trap, message = "deadline", f"the deadline of {deadline_s:g} s passed and the guest was killed"
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = _signal_name(number)
        if number == asked_signal or number in _POLITE:
            exit_code, message = 128 + number, f"terminated by {name}"
        elif number == signal.SIGKILL:
            trap = "killed"
            message = (
                "the worker was killed by SIGKILL, which wasmlab did not send: the kernel ran out of memory, or "
                "somebody killed it"
            )
        else:
            trap, message = "crash", f"the worker died of {name}"
            if memory_bytes is not None and max_rss_bytes >= memory_bytes:
                message += f" with {max_rss_bytes} bytes resident (memory limit {memory_bytes})"
    else:
        trap = "failed"
        message = f"the worker ended with code {os.waitstatus_to_exitcode(status)} and left no result"
    return Outcome(
        exit_code=exit_code,
        trap=trap,
        message=message,
        spans=tuple(sorted(spans, key=lambda span: span.end_ns)),
        started_at=started_at,
        finished_at=finished_at,
        max_rss_bytes=max_rss_bytes,
        cpu_s=cpu_s,
    )


def _teardown(phases: tuple[Span, ...], seen: tuple[Span, ...]) -> tuple[Span, ...]:
    """Return the phase from the end of the worker's last one until its process was gone, if both are known."""
    gone = next((span.end_ns for span in seen if span.phase == "reaped"), None)
    if gone is None or not phases:
        return ()
    end = max(span.end_ns for span in phases)
    return (Span("teardown", end, max(end, gone)),)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
