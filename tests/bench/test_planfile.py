from __future__ import annotations

import json

import pytest

from wasmlab.bench import planfile
from wasmlab.bench.plan import CONTROLS, Arm, Plan
from wasmlab.bench.stopping import Stopping
from wasmlab.bench.store import Results, load_recorded
from wasmlab.errors import BenchmarkError
from wasmlab.modules import workloads

HELLO = Arm("local", "wasmtime", "warm", "hello")


def read(text: str) -> Plan:
    return planfile.from_yaml(text, workloads.get)


def test_the_example_is_a_plan() -> None:
    plan = read(planfile.EXAMPLE)
    assert len(plan.arms) == 4 + len(CONTROLS) and set(CONTROLS) <= set(plan.arms)
    assert plan.stopping == Stopping(precision=0.05, max_seconds=600)
    assert plan.factors == {
        "path": ["local"], "engine": ["wasmtime", "wasmer"], "mode": ["cold", "warm"], "workload": ["hello"],
    }  # fmt: skip


def test_a_plan_survives_the_results_file(tmp_path) -> None:
    plan = Plan((HELLO, *CONTROLS), 12, 7, {"containerd": 2}, 3, {"limit_mib": 64}, 2, Stopping(max_runs=50))
    outcome = {"repeats": 12, "interrupted": False, "stopped": {"because": "runs"}, "warmup_blocks": 2}
    path = Results([], {"engines": {}}, [], plan.as_dict() | outcome).save(tmp_path / "a.parquet")
    assert planfile.of(Results.load(path).plan) == [plan]
    assert planfile.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_recorded_results_tell_their_plans() -> None:
    plans = planfile.of(load_recorded().plan)
    assert len(plans) >= 2
    assert all(plan.blocks >= 1 and plan.repetitions == 1 for plan in plans)
    arms = {arm for plan in plans for arm in plan.arms}
    assert {tuple(row[key] for key in Arm._fields) for row in load_recorded().rows} == set(arms)


def test_arms_one_by_one() -> None:
    plan = read("arms: [local/wasmtime/warm/boolector/factor, [control, native, exec, 'true']]\nblocks: 2\n")
    assert plan.arms == (Arm("local", "wasmtime", "warm", "boolector/factor"), CONTROLS[0])
    assert plan.warmup == "settle" and plan.stopping is None
    assert read("arms: [local/wasmtime/warm/hello]\ncontrols: true\nblocks: 1").arms == (HELLO, *CONTROLS)
    assert read("arms: [local/wasmtime/warm/hello]\nblocks: 1").arms == (HELLO,)


def test_a_container_path_brings_runc_as_its_control() -> None:
    text = "factors: {path: containerd, engine: wasmtime, mode: cached, workload: hello}\nblocks: 2\n"
    assert read(text).arms == (
        Arm("containerd", "wasmtime", "cached", "hello"), Arm("containerd", "runc", "cached", "hello"), *CONTROLS,
    )  # fmt: skip
    assert read(text + "controls: false").arms == (Arm("containerd", "wasmtime", "cached", "hello"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no YAML"),
        ("[1]", "a mapping"),
        ("blocks: 3", "needs arms"),
        ("arms: [local/wasmtime/warm/hello]", "blocks is None"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: many", "blocks is 'many'"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: true", "blocks is True"),
        ("arms: [local/wasmtime]\nblocks: 3", "is no arm"),
        ("arms: [moon/wasmtime/warm/hello]\nblocks: 3", "unknown path 'moon'"),
        ("arms: 5\nblocks: 3", "not understood"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nrepeat: 3", "has no repeat"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nstopping: {speed: 3}", "not understood"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nstopping: {precision: wide}", "not understood"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nwarmup: long", "'long' is no warm-up"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nwarmup: 3", "3 is no warm-up for 3 blocks"),
        ("arms: [local/wasmtime/warm/hello]\nblocks: 3\nevery: {control: 2}", "into every block"),
        ("factors: {path: local}\nblocks: 3", "needs arms"),
        ("factors: {path: local, engine: wasmtime, mode: warm, workload: helo}\nblocks: 3", "no workload 'helo'"),
    ],
)  # fmt: skip
def test_nothing_is_guessed(text: str, said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        read(text)


def test_repetitions_are_interleaved_in_their_block() -> None:
    plan = Plan((HELLO, *CONTROLS), 4, repetitions=3)
    runs = plan.runs()
    assert len(runs) == len(plan) == 4 * 3 * 3
    for block, own in enumerate(plan.by_block()):
        assert {run.block for run in own} == {block}
        assert sorted(run.arm for run in own) == sorted((HELLO, *CONTROLS) * 3)
    assert any(a.arm != b.arm for a, b in zip(runs[::3], runs[1::3], strict=False))
    assert [run for own in plan.by_block() for run in own] == runs
