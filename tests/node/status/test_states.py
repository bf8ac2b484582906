"""The state table: closed, reachable, and enforced."""

from __future__ import annotations

import pytest

from wasmlab.node.status import states
from wasmlab.node.status.states import TABLE, IllegalTransition, State, check, should_restart


def test_every_state_has_a_row_and_goes_only_to_states_with_rows() -> None:
    assert set(TABLE) == set(State)
    for row in TABLE.values():
        assert row.goes <= set(State)


def test_every_state_is_reachable_and_done_is_the_only_end() -> None:
    seen, todo = set(), [State.QUEUED]
    while todo:
        state = todo.pop()
        if state not in seen:
            seen.add(state)
            todo.extend(TABLE[state].goes)
    assert seen == set(State)
    assert [s for s in State if not TABLE[s].goes] == [State.DONE]


def test_only_waiting_states_have_waiting_reasons() -> None:
    for state, row in TABLE.items():
        assert bool(row.reasons) == (row.reports == "waiting"), state


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (State.DONE, State.RUNNING),  # a finished container never runs again
        (State.RUNNING, State.DONE),  # no end without an outcome
        (State.PULLING, State.RUNNING),  # no run that was not created
        (State.RUNNING, State.PULLING),
    ],
)
def test_illegal_moves_fail_loudly(old: State, new: State) -> None:
    with pytest.raises(IllegalTransition):
        check(old, new, states.CONTAINER_CREATING)


def test_a_state_cannot_wait_for_a_reason_of_another() -> None:
    with pytest.raises(IllegalTransition, match="cannot wait for"):
        check(State.PULLING, State.PULL_BACKOFF, states.CRASH_LOOP)
    assert check(State.PULLING, State.PULL_BACKOFF, states.IMAGE_PULL_BACKOFF) is State.PULL_BACKOFF


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        (None, 0, True),
        ("OnFailure", 0, False),
        ("OnFailure", 3, True),
        ("Never", 0, False),
        ("Never", 9, False),
    ],
)
def test_restart_policy(policy: str | None, code: int, again: bool) -> None:
    assert should_restart(policy, code) is again


RULES = (
    {"action": "Restart", "exitCodes": {"operator": "In", "values": [42, 43]}},
    {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}},
)


@pytest.mark.parametrize(
    ("rules", "policy", "code", "again"),
    [
        (RULES[:1], "Never", 42, True),
        (RULES[:1], "Never", 1, False),
        (RULES[:1], "OnFailure", 1, True),  # no rule matches: the policy decides
        (RULES, "Never", 7, True),
        (RULES, "Never", 1, False),
        # An action that this node does not know is no reason to look at the rules after it.
        (
            ({"action": "RestartAllContainers", "exitCodes": RULES[1]["exitCodes"]}, RULES[1]),
            "Never",
            7,
            False,
        ),
        (({"action": "Restart"},), "Never", 7, False),
    ],
)
def test_rules_come_before_the_policy(rules: tuple[dict, ...], policy: str, code: int, again: bool) -> None:
    assert should_restart(policy, code, rules) is again


def test_a_container_whose_hook_runs_is_not_said_to_run() -> None:
    assert TABLE[State.STARTING].reports == "waiting"
    assert check(State.STARTING, State.EXITED, states.CONTAINER_CREATING) is State.EXITED
    with pytest.raises(IllegalTransition):
        check(State.STARTING, State.DONE, states.CONTAINER_CREATING)
