from __future__ import annotations

import io
import os

import numpy as np
import pytest

from wasmlab.bench import noise, planfile, runner
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.plan import CONTROLS, Arm, Plan
from wasmlab.bench.runner import Progress, carry_out, duration, stack_of
from wasmlab.bench.stopping import Stopping
from wasmlab.bench.store import Results
from wasmlab.errors import BenchmarkError, Trap

GOOD = Arm("local", "wasmtime", "warm", "hello")
BAD = Arm("local", "wasmer", "warm", "hello")
ENVIRONMENT = {"id": "abc"}


class Fake:
    def __init__(self, raises: BaseException | None = None, after: int = 0) -> None:
        self.raises = raises
        self.after = after
        self.runs = 0

    def run(self, arm: Arm) -> dict:
        self.runs += 1
        if self.raises and arm == BAD and self.runs > self.after:
            raise self.raises
        return {"ok": True, "total_ns": self.runs, "exit_code": 0}


def test_rows_say_what_was_run() -> None:
    seen = []
    results = carry_out(Plan((GOOD,), 3), {"local": Fake()}, ENVIRONMENT, quiet=True, on_row=seen.append)
    assert [row["total_ns"] for row in results.rows] == [1, 2, 3]
    assert seen == results.rows
    assert len({row["run_id"] for row in results.rows}) == 3
    assert {row["fingerprint"] for row in results.rows} == {"abc"}
    assert results.plan["interrupted"] is False and results.plan["seed"] == 1
    assert results.conditions[0]["ended_at"] >= results.conditions[0]["started_at"]


@pytest.mark.parametrize(
    "error", [Trap("the guest trapped", kind="unreachable"), RuntimeError("broken"), OSError(28, "full")]
)
def test_a_failing_run_is_a_row_and_the_others_go_on(error: Exception) -> None:
    results = carry_out(Plan((GOOD, BAD), 4), {"local": Fake(error)}, ENVIRONMENT, quiet=True)
    assert len(results.rows) == 8
    assert len(results.failures) == 4
    for row in results.failures:
        assert row["engine"] == "wasmer"
        assert row["error"].startswith(type(error).__name__)
    assert results.frame["ok"].sum() == 4


def test_a_wrong_answer_without_a_reason_is_still_a_failure() -> None:
    class Silent:
        def run(self, arm: Arm) -> dict:
            return {"ok": False, "total_ns": 1}

    results = carry_out(Plan((GOOD,), 1), {"local": Silent()}, ENVIRONMENT, quiet=True)
    assert results.rows[0]["error"] == "failed without saying why"


def test_ctrl_c_keeps_the_rows_so_far() -> None:
    results = carry_out(
        Plan((GOOD, BAD), 10), {"local": Fake(KeyboardInterrupt(), after=7)}, ENVIRONMENT, quiet=True
    )
    assert 7 <= len(results.rows) < 20
    assert all(row["ok"] for row in results.rows)
    assert results.plan["interrupted"] is True
    assert results.plan["stopped"]["because"] == "interrupted"
    assert results.conditions


def test_a_path_without_executor_runs_nothing() -> None:
    fake = Fake()
    with pytest.raises(BenchmarkError, match="nobody can run the path control"):
        carry_out(Plan((GOOD, *CONTROLS), 1), {"local": fake}, ENVIRONMENT, quiet=True)
    assert fake.runs == 0


def test_noise_is_kept_beside_every_block_and_survives_the_file(tmp_path) -> None:
    results = carry_out(
        Plan((GOOD, *CONTROLS), 3), {"local": Fake(), "control": Fake()}, ENVIRONMENT, quiet=True
    )
    again = Results.load(results.save(tmp_path / "a.parquet"))
    frame = noise.by_block(again.conditions)
    assert frame["block"].tolist() == [0, 1, 2]
    assert set(frame["session"]) == {results.rows[0]["session"]}
    assert (frame["seconds"] >= 0).all()
    assert frame["load_1min"].notna().all()


class Timed:
    """Takes as long as it is told, without taking it."""

    def __init__(self, milliseconds) -> None:
        self.milliseconds = iter(milliseconds)

    def run(self, arm: Arm) -> dict:
        return {"ok": True, "total_ns": int(next(self.milliseconds) * 1e6)}


def test_it_ends_when_the_medians_are_known_well_enough() -> None:
    dice = np.random.default_rng(71)
    plan = Plan((GOOD,), 200, stopping=Stopping(precision=0.05, min_blocks=20))
    results = carry_out(plan, {"local": Timed(dice.lognormal(3, 0.1, 200))}, ENVIRONMENT, quiet=True)
    stopped = results.plan["stopped"]
    assert stopped["because"] == "precision" and stopped["precision"] == 0.05
    assert 20 <= stopped["blocks"] < 60 and stopped["runs"] == len(results.rows) == stopped["blocks"]
    assert stopped["relative_half_width"] <= 0.05 and stopped["widest_arm"] == "local/wasmtime/warm/hello"


def test_it_ends_when_the_budget_is_spent_and_says_how_wide_the_intervals_are() -> None:
    dice = np.random.default_rng(72)
    plan = Plan((GOOD,), 200, repetitions=4, stopping=Stopping(precision=0.001, max_runs=50))
    results = carry_out(plan, {"local": Timed(dice.lognormal(3, 0.3, 200))}, ENVIRONMENT, quiet=True)
    stopped = results.plan["stopped"]
    assert (stopped["because"], stopped["runs"], stopped["blocks"]) == ("runs", 48, 12)
    assert stopped["relative_half_width"] > 0.01


def test_a_budget_of_time_ends_it_between_blocks(monkeypatch) -> None:
    class Slow(Fake):
        def run(self, arm: Arm) -> dict:
            now[0] += 10.0
            return super().run(arm)

    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    plan = Plan((GOOD, BAD), 20, stopping=Stopping(max_seconds=70))
    results = carry_out(plan, {"local": Slow()}, ENVIRONMENT, quiet=True)
    # Blocks of 20 s: after three the fourth would end at 80 s.
    stopped = results.plan["stopped"]
    assert (stopped["because"], stopped["blocks"], stopped["seconds"]) == ("seconds", 3, 60.0)


def test_without_a_rule_all_blocks_are_done() -> None:
    results = carry_out(Plan((GOOD,), 1), {"local": Fake()}, ENVIRONMENT, quiet=True)
    stopped = results.plan["stopped"]
    assert stopped["because"] == "blocks" and stopped["relative_half_width"] is None
    assert results.plan["steps"] == [] and results.plan["warmup_blocks"] == 0


def test_warm_up_is_marked_and_kept() -> None:
    dice = np.random.default_rng(73)
    milliseconds = dice.lognormal(3, 0.05, 20)
    milliseconds[:3] *= 2
    results = carry_out(Plan((GOOD,), 20), {"local": Timed(milliseconds)}, ENVIRONMENT, quiet=True)
    assert results.plan["warmup_blocks"] == 3
    assert [row["block"] for row in results.rows if row["warmup"]] == [0, 1, 2]
    told = carry_out(Plan((GOOD,), 20, warmup=5), {"local": Timed(milliseconds)}, ENVIRONMENT, quiet=True)
    assert [row["block"] for row in told.rows if row["warmup"]] == [0, 1, 2, 3, 4]
    none = carry_out(Plan((GOOD,), 20, warmup=0), {"local": Timed(milliseconds)}, ENVIRONMENT, quiet=True)
    assert not any(row["warmup"] for row in none.rows)


def test_a_step_of_the_environment_is_told_with_the_results() -> None:
    dice = np.random.default_rng(74)
    arms = (GOOD, CONTROLS[0])
    milliseconds = np.repeat([82.0, 271.0], 30) * dice.lognormal(0, 0.05, 60)
    timed = Timed(milliseconds)
    results = carry_out(Plan(arms, 30), {"local": timed, "control": timed}, ENVIRONMENT, quiet=True)
    (step,) = results.plan["steps"]
    assert step["block"] == 15 and step["low"] < 271 / 82 < step["high"]
    from wasmlab.bench.commands import about

    assert any("not steady: from block 15 on everything, the control too" in line for line in about(results))


def test_a_plan_is_in_its_results() -> None:
    plan = Plan((GOOD,), 2, 5, settings={"limit_mib": 64})
    results = carry_out(plan, {"local": Fake()}, ENVIRONMENT, quiet=True)
    assert planfile.of(results.plan) == [plan]


def test_progress_tells_the_time_left() -> None:
    now = [0.0]
    out = io.StringIO()
    progress = Progress(10, stream=out, clock=lambda: now[0])
    now[0] = 20.0
    assert progress.line(2, 1, "x") == "   2/10 runs, 1 failed, about 1 min 20 s left  x"
    progress.update(2, 1)
    assert out.getvalue() == ""  # not a terminal: no line before 30 s
    now[0] = 31.0
    progress.update(3, 1)
    now[0] = 100.0
    progress.update(10, 1)
    assert out.getvalue().splitlines()[-1] == "   10/10 runs, 1 failed, 1 min 40 s"
    assert len(out.getvalue().splitlines()) == 2


def test_durations_for_people() -> None:
    assert [duration(s) for s in (0.4, 59.4, 60, 185)] == ["0 s", "59 s", "1 min 00 s", "3 min 05 s"]


def test_controls_really_run() -> None:
    results = carry_out(Plan(CONTROLS, 5), {"control": ControlExecutor()}, ENVIRONMENT, quiet=True)
    assert not results.failures
    by_name = {name: group["total_ns"].min() for name, group in results.frame.groupby("workload")}
    # An interpreter takes longer to start than /bin/true, on any machine and under any load.
    assert by_name["python"] > by_name["true"] > 10_000
    assert results.frame.query("workload == 'python'")["first_byte_ns"].notna().all()


def test_controls_leak_no_descriptors() -> None:
    executor = ControlExecutor()
    executor.run(CONTROLS[0])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        executor.run(CONTROLS[0])
    # One that leaked would leave twenty; what else lives in this process may open or close a few of its own.
    assert len(os.listdir("/proc/self/fd")) < before + 10
    with pytest.raises(BenchmarkError, match="no control"):
        executor.run(Arm("control", "native", "exec", "false"))


def test_executors_are_entered_and_left() -> None:
    trace = []

    class Managed(Fake):
        def __enter__(self):
            trace.append("in")
            return self

        def __exit__(self, *_):
            trace.append("out")

    with stack_of({"local": Managed(), "control": Fake()}) as ready:
        assert set(ready) == {"local", "control"}
    assert trace == ["in", "out"]
