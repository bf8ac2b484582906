"""The ledger finds what it is there to find."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.node.ledger import Asked, Ledger, Ran, draw


def pod(
    name: str = "p", phase: str = "Succeeded", code: int | None = 0, restarts: int = 0, uid: str = "u"
) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
    return {
        "metadata": {"name": name, "uid": uid},
        "status": {"phase": phase, "containerStatuses": [{"restartCount": restarts, "state": state}]},
    }


def compare(asked: Asked, seen: dict[str, Any] | None, ran: Ran, *, lost: tuple[int, ...] = ()) -> list[str]:
    ledger = Ledger()
    ledger.add(asked)
    if seen is not None:
        ledger.saw(seen)
    ledger.lost = {f"u.p.{attempt}" for attempt in lost}
    return ledger.differences({} if seen is None else {"p": seen}, {"p": ran})


WHOLE = ["begin p", "p 0", "p 1", "end p"]


def test_a_pod_that_went_well_is_no_difference() -> None:
    assert compare(Asked("p", lines=2), pod(), Ran(1, WHOLE)) == []


@pytest.mark.parametrize(
    ("asked", "seen", "ran", "lost", "said"),
    [
        (Asked("p", 2), None, Ran(1, WHOLE), (), "forgotten"),
        (Asked("p", 2), pod(), Ran(2, WHOLE), (), "ran 2 times, reported 1"),
        (Asked("p", 2), pod(), Ran(0, WHOLE), (), "ran 0 times, reported 1"),
        (Asked("p", 2), pod(restarts=1), Ran(2, WHOLE), (), "under Never"),
        (Asked("p", 2, policy="OnFailure"), pod(restarts=1), Ran(2, WHOLE), (), "restarted 1 times"),
        (Asked("p", 2), pod(), Ran(1, WHOLE[:2]), (), "log differs"),
        (Asked("p", 2), pod(), Ran(1, [*WHOLE, "end p"]), (), "log differs"),
        (Asked("p", 2), pod(), Ran(1, [WHOLE[0], WHOLE[2], WHOLE[3]]), (), "log differs"),
        (Asked("p", 2), pod(), Ran(1, None), (), "log is not there"),
        (Asked("p", 2), pod(phase="Failed", code=137), Ran(1, WHOLE), (), "reported ('Failed', 137)"),
        (Asked("p", 2, code=3), pod(), Ran(1, WHOLE), (), "wanted ('Failed', 3)"),
        (Asked("p", 2, stays=True), pod(), Ran(1, WHOLE), (), "wanted ('Running', None)"),
        (
            Asked("p", 2),
            pod(phase="Failed", code=137),
            Ran(1, [WHOLE[0], WHOLE[2]]),
            (0,),
            "not the beginning",
        ),
        (Asked("p", 2, stays=True), pod(phase="Running", code=None), Ran(1, []), (0,), "reported ('Running'"),
        (Asked("p", 2, deleted=True), pod(), Ran(1), (), "still there"),
        (Asked("p", 2, deleted=True), None, Ran(2), (), "ran 2 times"),
    ],
)
def test_a_difference_is_found(
    asked: Asked, seen: dict[str, Any] | None, ran: Ran, lost: tuple[int, ...], said: str
) -> None:
    found = compare(asked, seen, ran, lost=lost)
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    ("asked", "seen", "ran", "lost"),
    [
        (Asked("p", 2), pod(phase="Failed", code=137), Ran(1, WHOLE[:2]), (0,)),
        (Asked("p", 2), pod(phase="Failed", code=137), Ran(0, []), (0,)),
        (Asked("p", 2), pod(), Ran(1, WHOLE), (0,)),  # it was over when it was killed
        (Asked("p", 2, policy="OnFailure"), pod(restarts=1), Ran(2, WHOLE), (0,)),
        (Asked("p", 2, policy="OnFailure"), pod(restarts=1), Ran(1, WHOLE), (0,)),
        (Asked("p", 2, failures=1, policy="OnFailure"), pod(restarts=1), Ran(2, WHOLE), ()),
        (Asked("p", 2, stays=True), pod(phase="Running", code=None), Ran(1, WHOLE[:1]), ()),
    ],
)
def test_what_a_kill_explains_is_none(
    asked: Asked, seen: dict[str, Any], ran: Ran, lost: tuple[int, ...]
) -> None:
    assert compare(asked, seen, ran, lost=lost) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (pod(), pod(phase="Failed"), "was Succeeded, then Failed"),
        (pod(phase="Running"), pod(phase="Pending"), "was Running, then Pending"),
        (pod(restarts=2), pod(restarts=1), "restartCount went from 2 to 1"),
    ],
)
def test_a_status_that_goes_back_is_a_lie(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    ledger = Ledger()
    ledger.add(Asked("p"))
    ledger.saw(before)
    ledger.saw(after)
    assert any(said in lie for lie in ledger.lies)


def test_a_seed_draws_the_same_pods() -> None:
    def drawn() -> list[Asked]:
        chance = random.Random(7)
        return [draw(f"p{i}", chance) for i in range(50)]

    first, second = drawn(), drawn()
    assert first == second
    assert {one.policy for one in first} == {"Never", "OnFailure"}
