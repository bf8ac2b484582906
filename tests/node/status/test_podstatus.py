"""v1.PodStatus from records: the kubelet's phases, and Krustlet's dialect to the letter."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from wasmlab.node.api.times import parse_time, rfc3339
from wasmlab.node.status import states
from wasmlab.node.status.podstatus import build, container_status, phase
from wasmlab.node.status.records import ContainerRecord, Ended, PodFacts, Verdict
from wasmlab.node.status.states import State

NOW = 1_800_000_000.0


def facts(**more: Any) -> PodFacts:
    return PodFacts(**{"host_ip": "192.0.2.7", "start_time": NOW - 5, "now": NOW, **more})


def ended(code: int = 0, **more: Any) -> Ended:
    reason = "Completed" if code == 0 else "Error"
    return Ended(
        **{
            "exit_code": code,
            "reason": reason,
            "message": "",
            "started_at": NOW - 4,
            "finished_at": NOW - 1,
            "run_id": "u.a.0",
            **more,
        }
    )


def waiting(name: str = "a", **more: Any) -> ContainerRecord:
    return ContainerRecord(**{"name": name, "image": "r/x:1", **more})


def running(name: str = "a", **more: Any) -> ContainerRecord:
    return ContainerRecord(
        **{"name": name, "image": "r/x:1", "state": State.RUNNING, "started_at": NOW - 3, **more}
    )


def done(code: int = 0, name: str = "a", **more: Any) -> ContainerRecord:
    return ContainerRecord(
        **{"name": name, "image": "r/x:1", "state": State.DONE, "ended": ended(code), **more}
    )


def crashing(code: int = 1, name: str = "a", **more: Any) -> ContainerRecord:
    return ContainerRecord(
        name,
        "r/x:1",
        state=State.CRASH_BACKOFF,
        reason=states.CRASH_LOOP,
        message="back-off",
        ended=ended(code),
        **more,
    )


@pytest.mark.parametrize(
    ("records", "policy", "expected"),
    [
        ([waiting()], "Never", "Pending"),
        ([running()], "Never", "Running"),
        ([done(0)], "Never", "Succeeded"),
        ([done(3)], "Never", "Failed"),
        ([done(0), done(1, "b")], "Never", "Failed"),
        ([done(0), running("b")], "Never", "Running"),
        ([running(), waiting("b")], "Never", "Pending"),
        ([crashing(1)], "Always", "Running"),
        ([crashing(0)], "Always", "Running"),
        ([crashing(1)], "OnFailure", "Running"),
        ([done(0)], "OnFailure", "Succeeded"),
        ([done(0), crashing(1, "b")], "OnFailure", "Running"),
        ([waiting(init=True), waiting("b")], "Never", "Pending"),
        ([done(0, init=True), running("b")], "Never", "Running"),
        ([done(1, init=True), waiting("b")], "Never", "Failed"),
        ([running(init=True), waiting("b")], "Always", "Pending"),
    ],
)
def test_phase(records: list[ContainerRecord], policy: str, expected: str) -> None:
    assert phase(records, policy, facts()) == expected


def test_a_deleted_pod_is_terminal_whatever_its_policy() -> None:
    assert phase([done(143)], "Always", facts(terminal=True)) == "Failed"
    assert phase([done(0)], "Always", facts(terminal=True)) == "Succeeded"
    # A container that never started is no success, though nothing failed.
    assert phase([waiting()], "Always", facts(terminal=True)) == "Failed"
    assert phase([done(0), waiting("b")], "Always", facts(terminal=True)) == "Failed"


def test_a_verdict_overrules_the_containers() -> None:
    status = build([done(143)], "Always", facts(verdict=Verdict("Failed", "DeadlineExceeded", "too long")))
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed",
        "DeadlineExceeded",
        "too long",
    )


def test_the_status_of_the_article_to_the_letter() -> None:
    status = build([done(0)], "Always", facts(krustlet=True))
    assert status["phase"] == "Succeeded"
    assert status["reason"] == "Completed"
    assert status["message"] == "Completed"
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert terminated["exitCode"] == 0
    assert terminated["message"] == "Module run completed"
    # With a reason, kubectl would print it in place of ExitCode:0.
    assert "reason" not in terminated
    assert set(terminated) == {"exitCode", "message", "startedAt", "finishedAt"}


def test_krustlet_semantics_do_not_hide_a_failure() -> None:
    record = done(7)
    record.ended = dataclasses.replace(ended(7), message="boom")
    status = build([record], "Always", facts(krustlet=True))
    assert status["phase"] == "Failed"
    assert status["reason"] == "Error"
    assert "boom" in status["message"]
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_kubernetes_semantics_name_the_reason_and_clear_the_pods() -> None:
    status = build([done(0)], "Never", facts())
    assert status["reason"] is None  # null in a patch removes what was there
    assert status["message"] is None
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert terminated["reason"] == "Completed"
    assert "message" not in terminated
    assert terminated["containerID"] == "wasmlab://u.a.0"


def test_waiting_for_a_restart_shows_the_end_as_last_state() -> None:
    record = crashing(2)
    record.restarts = 4
    status = container_status(record)
    assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert status["lastState"]["terminated"]["exitCode"] == 2
    assert status["restartCount"] == 4
    assert not status["ready"]


def test_a_running_restart_keeps_the_previous_end() -> None:
    status = container_status(running(last=ended(9), restarts=1))
    assert "running" in status["state"]
    assert status["lastState"]["terminated"]["exitCode"] == 9
    assert status["ready"]
    assert status["started"]


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in status["conditions"]}


def test_conditions_through_a_life() -> None:
    pending = conditions(build([waiting()], "Never", facts()))
    assert pending["Ready"]["status"] == "False"
    assert pending["Ready"]["reason"] == "ContainersNotReady"
    assert pending["Ready"]["message"] == "containers with unready status: [a]"
    assert pending["Initialized"]["status"] == "True"
    up = conditions(build([running()], "Never", facts()))
    assert up["Ready"]["status"] == up["ContainersReady"]["status"] == "True"
    over = conditions(build([done(0)], "Never", facts()))
    assert over["Ready"]["reason"] == over["Initialized"]["reason"] == "PodCompleted"
    assert over["Ready"]["status"] == "False"
    failed = conditions(build([done(1)], "Never", facts()))
    assert failed["Ready"]["reason"] == "PodFailed"


def test_a_closed_readiness_gate_keeps_a_pod_from_being_ready() -> None:
    found = conditions(build([running()], "Never", facts(closed_gates=["example.com/lb"])))
    assert found["ContainersReady"]["status"] == "True"
    assert found["Ready"]["status"] == "False"
    assert found["Ready"]["reason"] == "ReadinessGatesNotReady"
    assert "example.com/lb" in found["Ready"]["message"]


def test_init_containers_hold_back_the_initialized_condition() -> None:
    status = build([waiting("i", init=True), waiting("b")], "Never", facts())
    assert conditions(status)["Initialized"]["status"] == "False"
    assert conditions(status)["Initialized"]["message"] == "containers with incomplete status: [i]"
    assert [s["name"] for s in status["initContainerStatuses"]] == ["i"]
    assert [s["name"] for s in status["containerStatuses"]] == ["b"]


def test_transition_times_move_only_with_the_status() -> None:
    first = build([running()], "Never", facts())
    later = build([running()], "Never", facts(now=NOW + 60, previous=first["conditions"]))
    assert later["conditions"] == first["conditions"]
    over = build([done(0)], "Never", facts(now=NOW + 60, previous=later["conditions"]))
    assert conditions(over)["Ready"]["lastTransitionTime"] == rfc3339(NOW + 60)
    assert conditions(over)["PodScheduled"]["lastTransitionTime"] == rfc3339(NOW)


def test_a_status_says_which_spec_it_is_about() -> None:
    assert "observedGeneration" not in build([running()], "Never", facts())
    status = build([running()], "Never", facts(generation=3))
    assert status["observedGeneration"] == 3
    assert {c["observedGeneration"] for c in status["conditions"]} == {3}


def test_times_round_trip() -> None:
    assert rfc3339(NOW + 0.9) == "2027-01-15T08:00:00Z"
    assert parse_time("2027-01-15T08:00:00Z") == NOW
    assert parse_time("2027-01-15T08:00:00.250000Z") == NOW + 0.25


# ---- sidecars, probes, policies of containers ----


def side(name: str = "s", **more: Any) -> ContainerRecord:
    return running(name, init=True, sidecar=True, **more)


@pytest.mark.parametrize(
    ("records", "policy", "expected"),
    [
        ([waiting("s", init=True, sidecar=True), waiting("b")], "Never", "Pending"),
        ([side(started=False), waiting("b")], "Never", "Pending"),
        ([side(), waiting("b")], "Never", "Pending"),
        ([side(), running("b")], "Never", "Running"),
        ([side(), done(0, "b")], "Never", "Running"),  # until the sidecar has been ended
        ([done(143, "s", init=True, sidecar=True), done(0, "b")], "Never", "Succeeded"),
        ([done(143, "s", init=True, sidecar=True), done(2, "b")], "Never", "Failed"),
        ([crashing(1, "s", init=True, sidecar=True), running("b")], "Never", "Running"),
        # It starts anew beside a container that has run: that does not make the pod pending again.
        ([side(started=False, last=ended(1)), running("b")], "Never", "Running"),
        ([crashing(1, "s", init=True, sidecar=True), waiting("b")], "Never", "Pending"),
        # A policy of the container's own.
        ([done(1, policy="Never"), running("b")], "Always", "Running"),
        ([done(1, policy="Never")], "Always", "Failed"),
        ([crashing(1, policy="OnFailure")], "Never", "Running"),
        ([done(0, policy="OnFailure")], "Always", "Succeeded"),
        ([done(1, init=True, policy="Never"), waiting("b")], "Always", "Failed"),
    ],
)
def test_phase_with_sidecars_and_own_policies(
    records: list[ContainerRecord], policy: str, expected: str
) -> None:
    assert phase(records, policy, facts()) == expected


def test_a_sidecar_counts_for_readiness_and_not_for_success() -> None:
    status = build([side(ready=False), running("b")], "Never", facts())
    found = conditions(status)
    assert found["Initialized"]["status"] == "True"
    assert found["ContainersReady"]["message"] == "containers with unready status: [s]"
    [one] = status["initContainerStatuses"]
    assert (one["started"], one["ready"]) == (True, False)
    over = build([done(143, "s", init=True, sidecar=True), done(0, "b")], "Never", facts(terminal=True))
    assert over["phase"] == "Succeeded"
    assert not over["initContainerStatuses"][0]["ready"]


def test_a_sidecar_that_has_not_started_holds_back_initialized() -> None:
    found = conditions(build([side(started=False), waiting("b")], "Never", facts()))
    assert found["Initialized"]["status"] == "False"
    assert found["Initialized"]["message"] == "containers with incomplete status: [s]"
    again = conditions(build([side(started=False, last=ended(1)), running("b")], "Never", facts()))
    assert again["Initialized"]["status"] == "True", "what was initialized stays so"


def test_an_ephemeral_container_is_of_no_account_for_its_pod() -> None:
    for record in (running("e", ephemeral=True), done(1, "e", ephemeral=True), waiting("e", ephemeral=True)):
        status = build([running("b"), record], "Always", facts())
        assert status["phase"] == "Running"
        assert conditions(status)["Ready"]["status"] == "True"
        assert [s["name"] for s in status["ephemeralContainerStatuses"]] == ["e"]
        assert [s["name"] for s in status["containerStatuses"]] == ["b"]
        assert not status["ephemeralContainerStatuses"][0]["ready"]
        assert not record.restarts_after(1, "Always")
    assert build([done(0, "b"), running("e", ephemeral=True)], "Never", facts())["phase"] == "Succeeded"
    assert "ephemeralContainerStatuses" not in build([running("b")], "Always", facts())


def test_probes_decide_about_started_and_ready() -> None:
    before = build([running(started=False, ready=False)], "Never", facts())
    assert before["phase"] == "Running"
    [one] = before["containerStatuses"]
    assert (one["started"], one["ready"]) == (False, False)
    assert "running" in one["state"]
    assert conditions(before)["Ready"]["reason"] == "ContainersNotReady"
    started = container_status(running(started=True, ready=False))
    assert (started["started"], started["ready"]) == (True, False)
    # A run that is over is neither, whatever the probes had found.
    assert not container_status(done(0, started=True, ready=True))["ready"]


def test_a_hook_under_way_is_waited_for() -> None:
    record = waiting(state=State.STARTING, run_id="u.a.0")
    status = container_status(record)
    assert status["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert not status["ready"]
    restarted = waiting(state=State.STARTING, ended=ended(1), restarts=1)
    assert phase([restarted], "Always", facts()) == "Running"
    assert container_status(restarted)["lastState"]["terminated"]["exitCode"] == 1


def test_the_ends_of_a_pod_share_what_may_be_said() -> None:
    long = [done(1, name) for name in ("a", "b", "c", "d")]
    for record in long:
        record.ended = dataclasses.replace(ended(1), message="x" * 4096)
    status = build(long, "Never", facts())
    said = [s["state"]["terminated"]["message"] for s in status["containerStatuses"]]
    assert [len(message) for message in said] == [3072] * 4


def test_an_end_before_it_was_said_to_run_keeps_the_end_before() -> None:
    record = waiting(state=State.CREATING, ended=ended(1, run_id="u.a.0"), restarts=1)
    record.move(State.STARTING)
    record.ends(ended(143, run_id="u.a.1"))
    assert record.last is not None
    assert (record.last.exit_code, record.ended and record.ended.exit_code) == (1, 143)
    assert record.run_id == "u.a.1"
