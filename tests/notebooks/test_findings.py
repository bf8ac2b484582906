"""Sentences follow the data: other data, other sentences; too little data, no claim."""

from __future__ import annotations

import random
import re

import pytest

from wasmlab.bench.phases import LABELS
from wasmlab.bench.store import Results
from wasmlab.notebooks import findings

ENGINES = ["wasmtime", "wasmer"]


def rows(path: str, engine: str, mode: str, workload: str, ms: float, n: int = 25, **more: int) -> list[dict]:
    dice = random.Random(f"{path}{engine}{mode}{workload}")
    made = []
    for index in range(n):
        took = int(ms * 1e6 * dice.uniform(0.97, 1.03))
        made.append(
            {
                "run_id": f"{path}-{engine}-{mode}-{workload}-{index}",
                "path": path,
                "engine": engine,
                "mode": mode,
                "workload": workload,
                "ok": True,
                "error": None,
                "first_byte_ns": took,
                "total_ns": took,
                **{f"{phase}_ns": value for phase, value in more.items()},
            }
        )
    return made


@pytest.fixture
def results() -> Results:
    made = []
    for engine, factor in (("wasmtime", 1.0), ("wasmer", 2.0)):
        for mode, ms in (("cold", 200.0), ("cached", 100.0), ("warm", 1.0)):
            phases = {"import": 60, "compile": 140} if mode == "cold" else {"import": 90}
            made += rows("local", engine, mode, "hello", ms * factor, **phases)
        made += rows("node", engine, "warm", "hello", 10 * factor)
    made += rows("control", "native", "exec", "true", 0.5) + rows("control", "native", "exec", "python", 10)
    return Results(made)


def test_starts_are_told_with_what_each_step_saves(results: Results) -> None:
    first, second = findings.about_starts(results, ENGINES)
    assert first.startswith("On **wasmtime**, compiling ahead makes the first byte come **2.0 times** sooner")
    (factor,) = re.findall(r"with an idle worker makes the first byte come \*\*([\d.]+) times", first)
    assert float(factor) == pytest.approx(100, rel=0.05)
    assert "takes 10.0 ms" in first and "the rest, 90%" in first
    assert second.startswith("On **wasmer**")


def test_a_difference_within_chance_is_not_claimed(results: Results) -> None:
    for row in results.rows:
        if row["mode"] == "cached":
            row["first_byte_ns"] *= 2
    assert "compiling ahead makes no difference beyond chance" in findings.about_starts(results, ENGINES)[0]


def test_an_engine_whose_runs_failed_is_not_compared(results: Results) -> None:
    for row in results.rows:
        if row["engine"] == "wasmer" and row["mode"] == "warm":
            row |= {"ok": False, "error": "no"}
    assert "nothing to compare" in findings.about_starts(results, ENGINES)[1]
    assert findings.about_failures(results) == (
        f"50 of {len(results.rows)} runs failed; the first was local/wasmer/warm/hello: no"
    )


def test_no_failure_is_said_too(results: Results) -> None:
    assert findings.about_failures(results) == f"none of {len(results.rows)} runs failed"


def test_the_largest_phase_is_named(results: Results) -> None:
    assert findings.about_phases(results, ["wasmtime"]) == [
        f"On **wasmtime** the largest part of a cold start is to *{LABELS['compile']}*: 70% of it."
    ]


def test_the_table_is_in_the_order_of_the_story(results: Results) -> None:
    table = findings.starts(results)
    assert next(iter(table.itertuples(index=False, name=None)))[:3] == ("local", "wasmtime", "cold")
    assert list(table["mode"][:6]) == ["cold", "cold", "cached", "cached", "warm", "warm"]
    assert list(table["engine"][:2]) == ENGINES
    assert "control" not in set(table["path"])


def test_controls_are_compared_arm_by_arm(results: Results) -> None:
    found = findings.against_control(results, ["wasmtime"])
    assert [row["start"] for row in found] == ["cold", "cached", "warm"]
    assert found[2]["times as long as /bin/true"].startswith(("1.9", "2.0"))


def test_execution_sides_are_taken_only_where_the_interval_allows() -> None:
    made = rows("local", "wasmtime", "warm", "a", 10) + rows("local", "wasmer", "warm", "a", 20)
    made += rows("local", "wasmtime", "warm", "b", 10) + rows("local", "wasmer", "warm", "b", 10)
    made += rows("local", "wasmtime", "warm", "c", 30) + rows("local", "wasmer", "warm", "c", 10)
    ratios = findings.execution_ratios(Results(made), ENGINES, ["a", "b", "c"])
    assert findings.about_execution(ratios, ENGINES) == [
        "**wasmtime** is faster on a.",
        "**wasmer** is faster on c.",
        "There is no difference beyond chance on b.",
    ]


def test_a_workload_that_one_engine_cannot_run_has_no_ratio() -> None:
    made = rows("local", "wasmtime", "warm", "a", 10) + rows("local", "wasmtime", "warm", "a/component", 12)
    assert findings.execution_ratios(Results(made), ENGINES, ["a", "a/component", "never measured"]) == {}


def test_components_are_compared_with_their_kernels() -> None:
    made = rows("local", "wasmtime", "warm", "a", 10) + rows("local", "wasmtime", "warm", "a/component", 20)
    made += rows("local", "wasmer", "warm", "a", 5) + rows("local", "wasmtime", "warm", "b/component", 20)
    (row,) = findings.components(Results(made))
    assert row["kernel"] == "a" and row["times as long"].startswith(("1.9", "2.0"))


def test_programs_have_a_row_for_each_engine_that_ran_them() -> None:
    made = rows("local", "wasmtime", "warm", "p", 10, run=4) + rows("local", "wasmer", "warm", "q", 10)
    found = findings.programs(Results(made), ["p", "q"], ENGINES, ["run"])
    assert [(row["program"], row["engine"]) for row in found] == [("p", "wasmtime"), ("q", "wasmer")]


def test_cutting_down_leaves_the_original_whole(results: Results) -> None:
    some = findings.only(results, path="node", mode="warm")
    assert {row["path"] for row in some.rows} == {"node"}
    assert len(some.rows) < len(results.rows)


@pytest.mark.parametrize(
    ("items", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_phrases(items: list[str], text: str) -> None:
    assert findings.phrase(items) == text


def test_every_capability_of_every_engine_has_a_row_and_every_no_a_reason() -> None:
    table = findings.capabilities(ENGINES)
    assert len(table) > 5
    for row in table:
        if "no" in (row["wasmtime"], row["wasmer"]):
            assert row["why, or what is special"], row
