"""The proof that comparisons work: what is planted is found where it was planted, and nothing else is."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.bench import designs
from tests.bench.designs import ARMS
from wasmlab.bench import compare, drift
from wasmlab.bench.changes import Side
from wasmlab.bench.compare import judge, verdict
from wasmlab.bench.plan import CONTROLS, Arm
from wasmlab.bench.store import Results, load_recorded
from wasmlab.errors import BenchmarkError

SLOWER = ARMS[2]
# Enough to decide, and five times faster than what is shown to people.
DRAWS = 400


def outcomes(changes) -> dict[Arm, str]:
    return {one.arm: one.verdict for one in changes}


def split(results: Results, early) -> tuple[Results, Results]:
    """Cut a measurement in two by block."""
    parts = ([row for row in results.rows if early(row["block"]) is side] for side in (True, False))
    before, after = (dataclasses.replace(results, rows=rows) for rows in parts)
    return before, after


def slowed(results: Results, arm: Arm, factor: float) -> Results:
    return dataclasses.replace(
        results,
        rows=[
            row | {"total_ns": int(row["total_ns"] * factor)}
            if Arm(*(row[key] for key in Arm._fields)) == arm
            else row
            for row in results.rows
        ],
    )


@pytest.mark.parametrize("repetitions", [1, 3])
def test_a_planted_slowdown_of_one_arm_is_found_and_no_other(repetitions: int) -> None:
    """10 % of one arm of six, in 150 blocks of one run or 60 of three; noise as in the recorded runs."""
    dice = np.random.default_rng(21)
    blocks = 150 if repetitions == 1 else 60
    found = alone = 0
    trials = 20
    for trial in range(trials):
        before = designs.side(dice, blocks, repetitions=repetitions)
        after = designs.side(dice, blocks, repetitions=repetitions, factors={SLOWER: 1.10})
        _, changes = judge(before, after, resamples=DRAWS, seed=trial)
        what = outcomes(changes)
        found += what[SLOWER] == "slower"
        alone += not {"slower", "faster"} & {what[arm] for arm in ARMS if arm != SLOWER}
    assert found >= 0.9 * trials
    assert alone >= 0.9 * trials


def test_a_planted_speedup_is_found_and_has_the_right_size() -> None:
    dice = np.random.default_rng(22)
    before = designs.side(dice, 100)
    _, changes = judge(before, designs.side(dice, 100, factors={ARMS[0]: 0.8}), resamples=DRAWS)
    first = changes[0]
    assert (first.arm, first.verdict) == (ARMS[0], "faster")
    assert first.adjusted.low < 0.8 < first.adjusted.high < 1
    assert first.adjusted.level == 0.95 and first.adjusted.n == 100


def test_a_step_of_the_whole_environment_is_one_of_the_environment() -> None:
    """A runner changes overnight: every arm, the controls too, goes from 82 to 271 ms."""
    dice = np.random.default_rng(23)
    blamed = 0
    for trial in range(40):
        after = designs.side(dice, 30, environment=271 / 82)
        environment, changes = judge(designs.side(dice, 30), after, resamples=DRAWS, seed=trial)
        assert environment.verdict == "changed"
        assert environment.ratio.low > 2.5 and environment.ratio.high < 4.4
        assert all(one.ratio.low > 2 for one in changes)  # as measured, each of them did get slower
        blamed += any(one.verdict in ("slower", "faster") for one in changes)
    assert blamed == 0


def test_arms_that_feel_a_slower_machine_a_little_more_are_not_blamed_for_it() -> None:
    dice = np.random.default_rng(24)
    after = designs.side(dice, 60, environment=3.3, factors={ARMS[0]: 1.4, ARMS[1]: 3.0})
    _, changes = judge(designs.side(dice, 60), after, resamples=DRAWS)
    what = outcomes(changes)
    assert what[ARMS[0]] == "unclear" and "the machine changed by 3." in changes[0].why
    assert what[ARMS[1]] == "slower"  # that is more than it can explain
    assert {what[arm] for arm in ARMS[2:]} <= {"same", "unclear"}


def test_beside_other_work_only_a_large_change_is_believed() -> None:
    dice = np.random.default_rng(38)
    before = designs.results(dice, 60, "a")
    after = designs.results(dice, 60, "b", factors={ARMS[0]: 1.5, ARMS[1]: 3.0})
    assert {one.arm for one in verdict(before, after, resamples=DRAWS).slower} == {ARMS[0], ARMS[1]}
    after.conditions[0]["busy_share_before"] = 0.9
    found = verdict(before, after, resamples=DRAWS)
    assert [one.arm for one in found.slower] == [ARMS[1]]
    why = next(one.why for one in found.arms if one.arm == ARMS[0])
    assert why == "other work used the machine; up to 2.00 times more or less can be how this arm feels that"
    assert "other work used 90% of the machine just before the measurement after" in found.notes


def test_a_step_in_the_middle_of_one_side_is_cancelled_and_told() -> None:
    dice = np.random.default_rng(25)
    step = [1.0] * 20 + [271 / 82] * 20
    for trial in range(10):
        before, after = designs.side(dice, 40), designs.side(dice, 40, environment=step)
        _, changes = judge(before, after, resamples=DRAWS, seed=trial)
        assert not {"slower", "faster"} & set(outcomes(changes).values())
    found = verdict(
        designs.results(dice, 40, "a"), designs.results(dice, 40, "b", environment=step), resamples=DRAWS
    )
    assert not found.changed
    assert any("not steady after: from block 20 on everything" in note for note in found.notes)


def test_a_step_inside_one_measurement_is_found_and_blamed_on_the_environment() -> None:
    dice = np.random.default_rng(26)
    step = [1.0] * 14 + [271 / 82] * 16
    results = designs.results(dice, 30, "a", environment=step)
    (found,) = drift.environment_steps(results.frame)
    assert abs(found.block - 14) <= 1
    assert 2.8 < found.ratio.low < 271 / 82 < found.ratio.high < 3.9
    outcome = verdict(*compare.around(results, found), resamples=DRAWS)
    assert outcome.environment.verdict == "changed"
    assert not outcome.changed


@pytest.mark.parametrize(("blocks", "repetitions", "trials"), [(30, 1, 200), (10, 1, 100), (12, 3, 100)])
def test_equal_measurements_raise_an_alarm_in_at_most_one_of_twenty(
    blocks: int, repetitions: int, trials: int
) -> None:
    """An alarm is *any* of six arms called changed; intervals are simultaneous, so 5 % holds for all together."""
    dice = np.random.default_rng(27)
    alarms = environment_alarms = 0
    for trial in range(trials):
        before, after = (designs.side(dice, blocks, repetitions=repetitions) for _ in range(2))
        environment, changes = judge(before, after, resamples=DRAWS, seed=trial)
        alarms += any(one.verdict in ("slower", "faster") for one in changes)
        environment_alarms += environment.verdict != "same"
    assert alarms <= 0.05 * trials
    assert environment_alarms <= 0.05 * trials


def test_equal_halves_of_a_real_measurement_raise_an_alarm_in_at_most_one_of_twenty() -> None:
    """The blocks of the recorded figures, dealt into two halves at random, are measurements of the same thing."""
    recorded = load_recorded("figures")
    dice = np.random.default_rng(28)
    whole = Side.of(recorded.frame, "total_ns")
    alarms, trials = 0, 60
    for trial in range(trials):
        order = [whole.blocks[i] for i in dice.permutation(len(whole.blocks))]
        halves = (order[: len(order) // 2], order[len(order) // 2 :])
        sides = [Side(half, {arm: own.only(half) for arm, own in whole.arms.items()}) for half in halves]
        _, changes = judge(*sides, resamples=DRAWS, seed=trial)
        alarms += any(one.verdict in ("slower", "faster") for one in changes)
    # All deals are of one recording: at a rate of 5 %, 60 of them give more than 8 alarms once in 200 recordings.
    assert alarms <= 8


def test_a_slowdown_planted_into_real_rows_is_found() -> None:
    recorded = load_recorded("figures")
    odd, even = split(recorded, lambda block: block % 2 == 1)
    arm = Arm("local", "wasmtime", "warm", "hello")
    assert not verdict(odd, even, resamples=DRAWS).changed
    found = verdict(odd, slowed(even, arm, 1.10), resamples=DRAWS)
    assert [one.arm for one in found.slower] == [arm] and not found.faster
    # And the whole machine at once, as a runner that changes overnight does it.
    everything = dataclasses.replace(
        even, rows=[row | {"total_ns": int(row["total_ns"] * 271 / 82)} for row in even.rows]
    )
    found = verdict(odd, everything, resamples=DRAWS)
    assert found.environment.verdict == "changed" and not found.changed


def test_a_change_too_small_to_matter_is_none_however_sure_it_is() -> None:
    dice = np.random.default_rng(29)
    before, after = designs.side(dice, 2500), designs.side(dice, 2500, factors={ARMS[0]: 1.025})
    _, changes = judge(before, after, resamples=150, margin=0.08)
    assert changes[0].adjusted.low > 1
    assert changes[0].verdict == "same"
    _, changes = judge(before, after, resamples=150, margin=0.001)
    assert changes[0].verdict == "slower"


def test_without_a_control_nothing_is_blamed() -> None:
    dice = np.random.default_rng(30)
    before = designs.side(dice, 60, arms=ARMS)
    environment, changes = judge(before, designs.side(dice, 60, arms=ARMS, environment=2.0), resamples=DRAWS)
    assert environment.verdict == "unknown" and environment.ratio is None
    assert set(outcomes(changes).values()) == {"unclear"}
    assert "may as well be the machine" in changes[0].why
    assert changes[0].adjusted is None and changes[0].ratio.low > 1.5


def test_blocks_that_lost_a_control_or_all_of_them_count_all_the_same() -> None:
    dice = np.random.default_rng(37)
    before, after = designs.results(dice, 60, "a"), designs.results(dice, 60, "b", factors={ARMS[0]: 1.5})
    for row in after.rows:
        # One control fails in every second block, the other in every third: some blocks have none.
        every = {"true": 2, "python": 3}.get(row["workload"])
        row["ok"] = every is None or row["block"] % every != 0
    found = verdict(before, after, resamples=DRAWS)
    assert found.environment.verdict == "same" and found.environment.ratio.n == 30
    assert [one.arm for one in found.slower] == [ARMS[0]] and not found.faster
    assert found.slower[0].n_after == 60


def test_too_few_blocks_and_failed_arms_are_said_and_not_guessed() -> None:
    dice = np.random.default_rng(31)
    before, after = designs.results(dice, 20, "a"), designs.results(dice, 20, "b")
    for row in after.rows:
        row["ok"] = row["mode"] != "cold"
    after.rows = [row for row in after.rows if row["mode"] != "cached" or row["block"] < 3]
    found = verdict(before, after, resamples=DRAWS)
    by_arm = {one.arm: one for one in found.arms}
    cold, cached = by_arm[ARMS[0]], by_arm[ARMS[1]]
    assert (cold.verdict, cold.why, cold.failed_after, cold.n_after) == (
        "unclear", "every run failed after", 20, 0,
    )  # fmt: skip
    assert cached.verdict == "unclear" and cached.why.startswith("20 blocks before and 3 after; 8")
    assert cached.ratio is None
    assert by_arm[SLOWER].adjusted is not None
    assert not found.is_same


def test_what_differs_refuses_a_comparison_and_is_named() -> None:
    dice = np.random.default_rng(32)
    before, after = designs.results(dice, 10, "a"), designs.results(dice, 10, "b")
    for row in after.rows:
        row["engine_version"], row["module_digest"] = "51", "sha256:b"
    for row in before.rows:
        row["engine_version"], row["module_digest"] = "50", "sha256:a"
    after.environment |= {"cores": 4, "wasmlab": "9"}
    after.plan = {"settings": {"memory_mib": 64}}
    found = verdict(before, after)
    assert found.arms == () and not found.is_same
    text = "\n".join(found.refused)
    assert "host: cores is 2 here and 4 there" in text
    assert "engines: wasmtime is '50' here and '51' there" in text
    assert "settings: memory_mib is None here and 64 there" in text
    assert "workloads: hello is 'sha256:a' here and 'sha256:b' there" in text
    assert "wasmlab" not in text  # what is compared is most often two versions of it
    allowed = verdict(before, after, across={"host", "engines", "settings", "workloads"}, resamples=DRAWS)
    assert not allowed.refused and len(allowed.arms) == len(ARMS)
    assert {one.kind for one in allowed.differences} == {"host", "engines", "settings", "workloads", "lab"}


def test_two_machines_are_compared_by_their_controls() -> None:
    dice = np.random.default_rng(33)
    one = designs.results(dice, 60, "a")
    other = designs.results(dice, 60, "b", environment=0.5, factors={ARMS[0]: 2.0})
    other.environment |= {"cpu_model": "two"}
    assert "cpu_model is 'one' here and 'two' there" in verdict(one, other).refused[0]
    found = verdict(one, other, across={"host"}, resamples=DRAWS)
    assert found.environment.verdict == "changed" and found.environment.ratio.high < 0.6
    # The one that did not become faster with everything else.
    assert [change.arm for change in found.slower] == [ARMS[0]]


def test_questions_without_an_answer() -> None:
    dice = np.random.default_rng(34)
    one = designs.results(dice, 10, "a")
    assert "both sides hold the same runs" in verdict(one, one).refused
    other = designs.results(dice, 10, "b", arms=CONTROLS)
    assert "no arm was measured on both sides" in verdict(one, other).refused
    with pytest.raises(BenchmarkError, match="nothing is called moon"):
        verdict(one, other, across={"moon"})


def test_notes_and_json() -> None:
    dice = np.random.default_rng(35)
    before = designs.results(dice, 10, "a")
    after = designs.results(dice, 10, "b", arms=(*ARMS[1:], *CONTROLS))
    after.plan = {"interrupted": True}
    found = verdict(before, after, resamples=DRAWS)
    assert "only before: local/wasmtime/cold/hello" in found.notes
    assert "the measurement after was interrupted" in found.notes
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert {one["arm"] for one in said["arms"]} == {str(arm) for arm in ARMS[1:]}
    assert set(said["environment"]["controls"]) == {str(arm) for arm in CONTROLS}
    assert said["arms"][0]["adjusted"]["level"] == 0.95


def test_the_same_seed_gives_the_same_verdict() -> None:
    dice = np.random.default_rng(36)
    before, after = designs.side(dice, 20), designs.side(dice, 20)
    assert judge(before, after, seed=4, resamples=200) == judge(before, after, seed=4, resamples=200)
    assert judge(before, after, seed=4, resamples=200) != judge(before, after, seed=5, resamples=200)
