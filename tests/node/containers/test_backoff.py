from __future__ import annotations

from wasmlab.node.containers.backoff import Backoff, CrashBackoff


def test_pull_backoff_doubles_from_ten_seconds_to_five_minutes() -> None:
    backoff = Backoff()
    assert [backoff.failed() for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]


def test_pull_backoff_forgets_after_ten_good_minutes_and_not_before() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.failed()
    assert backoff.failed(went_well_s=599) == 160
    assert backoff.failed(went_well_s=601) == 10


def test_hopeless_goes_to_the_cap() -> None:
    backoff = Backoff()
    assert backoff.to_cap() == 300
    assert backoff.failed() == 300
    backoff.reset()
    assert backoff.failed() == 10


def test_first_restart_is_immediate_then_the_waits_double() -> None:
    crash = CrashBackoff()
    assert [crash.ended(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_starts_the_series_again() -> None:
    crash = CrashBackoff()
    for _ in range(5):
        crash.ended(1)
    assert crash.ended(601) == 0
    assert crash.ended(1) == 10


def test_an_agent_that_comes_back_goes_on_where_the_last_one_was() -> None:
    crash = CrashBackoff()
    crash.resume(3)  # three ends: waits 0, 10, 20 were served
    assert crash.ended(1) == 40


def test_resume_of_a_pod_with_thousands_of_restarts_is_bounded() -> None:
    crash = CrashBackoff()
    crash.resume(10**9)
    assert crash.ended(1) == 300
