from __future__ import annotations

import pytest

from wasmlab.node.status.outcomes import ended, lost, start_error
from wasmlab.sandbox import Outcome


def outcome(code: int | None, trap: str | None = None, message: str = "") -> Outcome:
    return Outcome(exit_code=code, trap=trap, message=message, started_at=10.0, finished_at=12.0)


@pytest.mark.parametrize(
    ("result", "code", "reason"),
    [
        (outcome(0), 0, "Completed"),
        (outcome(3), 3, "Error"),
        (outcome(137), 137, "Error"),  # the module's own code, however it looks
        (outcome(255), 255, "Error"),
        (outcome(143, message="terminated by SIGTERM"), 143, "Error"),
        (outcome(None, "unreachable", "wasm trap: unreachable"), 134, "Error"),
        (outcome(None, "stack_overflow", "deep"), 134, "Error"),
        (outcome(None, "out_of_memory", "64 MiB"), 137, "OOMKilled"),
        (outcome(None, "deadline", "5 s"), 137, "Error"),
        (outcome(None, "crash", "the worker died of SIGSEGV"), 139, "Error"),
        (outcome(None, "crash", "the worker died of SIGILL"), 132, "Error"),
        (outcome(None, "link", "unknown import"), 128, "StartError"),
        (outcome(None, "invalid_module", "bad magic"), 128, "StartError"),
        (outcome(None, "lost", "zygote died"), 137, "ContainerStatusUnknown"),
    ],
)
def test_what_an_outcome_becomes(result: Outcome, code: int, reason: str) -> None:
    end = ended(result, "run")
    assert (end.exit_code, end.reason) == (code, reason)
    assert (end.started_at, end.finished_at, end.run_id) == (10.0, 12.0, "run")


def test_messages_are_kept_where_they_say_something() -> None:
    assert ended(outcome(None, "unreachable", "wasm trap"), "r").message == "wasm trap"
    assert ended(outcome(143, message="terminated by SIGTERM"), "r").message == "terminated by SIGTERM"
    assert ended(outcome(0), "r").message == ""
    assert ended(outcome(None, "unreachable"), "r").message == "unreachable"


def test_an_end_is_never_before_its_start() -> None:
    result = Outcome(exit_code=0, started_at=10.0, finished_at=0.0)
    assert ended(result, "r").finished_at == 10.0


def test_what_never_began_and_what_was_lost() -> None:
    assert start_error("no", 5.0, "r").reason == "StartError"
    assert lost(1.0, 5.0, "r").exit_code == 137
