"""What an ended worker means, case by case."""

from __future__ import annotations

import signal

import pytest

from wasmlab.sandbox.spec import Outcome, Span
from wasmlab.sandbox.verdict import judge

EXITED_0, EXITED_70 = 0, 70 << 8


def result(**fields):
    return {"exit_code": None, "trap": None, "message": "", "spans": [], **fields}


def test_the_guests_own_end_counts_most():
    outcome = judge(
        status=signal.SIGKILL, result=result(exit_code=3), asked_signal=9, deadline_passed=True, deadline_s=1
    )
    assert (outcome.exit_code, outcome.trap) == (3, None)


def test_spans_are_joined_and_ordered():
    outcome = judge(
        status=EXITED_0, result=result(exit_code=0, spans=[["run", 2, 9]]), spans=(Span("first_byte", 0, 5),)
    )
    assert [span.phase for span in outcome.spans] == ["first_byte", "run"]
    assert outcome.span("run") == Span("run", 2, 9)
    assert outcome.span("nothing") is None


def test_teardown_lasts_from_the_last_phase_until_the_process_is_gone():
    outcome = judge(
        status=EXITED_0,
        result=result(exit_code=0, spans=[["spawn", 0, 2], ["run", 2, 9]]),
        spans=(Span("reaped", 0, 12), Span("first_byte", 0, 5)),
    )
    assert outcome.span("teardown") == Span("teardown", 9, 12)
    # Nothing was told of a run whose worker was killed, so nothing is known of its phases.
    killed = judge(status=signal.SIGKILL, result=None, spans=(Span("reaped", 0, 12),))
    assert killed.span("teardown") is None


def test_deadline():
    outcome = judge(status=signal.SIGKILL, result=None, deadline_s=0.5, deadline_passed=True)
    assert outcome.trap == "deadline"
    assert "0.5 s" in outcome.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_asked_signals_are_exit_codes(number):
    outcome = judge(status=int(number), result=None, asked_signal=number)
    assert outcome.exit_code == 128 + number
    assert outcome.trap is None
    assert number.name in outcome.message


def test_unasked_sigkill_is_killed():
    outcome = judge(status=int(signal.SIGKILL), result=None)
    assert (outcome.exit_code, outcome.trap) == (None, "killed")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL])
def test_other_signals_are_crashes(number):
    outcome = judge(status=int(number), result=None)
    assert outcome.trap == "crash"
    assert number.name in outcome.message


def test_unknown_signal_has_a_name_too():
    assert "signal 50" in judge(status=50, result=None).message


def test_no_result_and_no_signal_is_our_failure():
    outcome = judge(status=EXITED_70, result=None)
    assert outcome.trap == "failed"
    assert "70" in outcome.message


def test_outcome_survives_json_and_newer_fields():
    outcome = judge(
        status=EXITED_0, result=result(exit_code=0, spans=[["run", 1, 2]]), started_at=1.5, finished_at=2.5
    )
    assert Outcome.from_json({**outcome.to_json(), "field of the future": 1}) == outcome
