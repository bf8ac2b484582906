from __future__ import annotations

from collections import Counter

import pytest

from wasmlab.bench.plan import CONTROLS, Arm, Plan, cross
from wasmlab.errors import BenchmarkError
from wasmlab.modules import workloads

ARMS = cross(("local", "node"), ("wasmtime", "wasmer"), ("cold", "warm"), [workloads.get("hello")])


def test_every_block_holds_every_arm_once() -> None:
    runs = Plan(ARMS, 5, seed=3).runs()
    assert len(runs) == len(Plan(ARMS, 5)) == 5 * len(ARMS)
    assert [run.number for run in runs] == list(range(len(runs)))
    for block in range(5):
        assert Counter(run.arm for run in runs if run.block == block) == Counter(ARMS)
    assert [run.block for run in runs] == sorted(run.block for run in runs)


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    assert Plan(ARMS, 5, seed=3).runs() == Plan(ARMS, 5, seed=3).runs()
    assert Plan(ARMS, 5, seed=3).runs() != Plan(ARMS, 5, seed=4).runs()
    # A longer plan begins like a shorter one, so that an interrupted run can be understood.
    assert Plan(ARMS, 9, seed=3).runs()[: 5 * len(ARMS)] == Plan(ARMS, 5, seed=3).runs()


def test_arms_are_interleaved_not_grouped() -> None:
    """No arm keeps its place, and every arm has many different predecessors."""
    runs = Plan(ARMS, 40, seed=1).runs()
    places: dict[Arm, set[int]] = {arm: set() for arm in ARMS}
    before: dict[Arm, set[Arm]] = {arm: set() for arm in ARMS}
    for i, run in enumerate(runs):
        places[run.arm].add(i % len(ARMS))
        if i:
            before[run.arm].add(runs[i - 1].arm)
    assert all(len(seen) > len(ARMS) / 2 for seen in places.values())
    assert all(len(seen) > len(ARMS) / 2 for seen in before.values())


def test_controls_are_in_unless_left_out() -> None:
    assert set(CONTROLS) <= set(ARMS)
    assert not any(
        arm.path == "control" for arm in cross(("local",), ("wasmtime",), ("warm",), [], controls=False)
    )


def test_a_workload_with_input_is_left_out_on_the_node() -> None:
    arms = cross(
        ("local", "node"), ("wasmtime",), ("warm",), [workloads.get("boolector/factor")], controls=False
    )
    assert arms == (Arm("local", "wasmtime", "warm", "boolector/factor"),)


def test_a_component_is_left_out_on_wasmer() -> None:
    works = [workloads.get("hello"), workloads.get("hello/component")]
    arms = cross(("local",), ("wasmtime", "wasmer"), ("warm",), works, controls=False)
    assert [(arm.engine, arm.workload) for arm in arms] == [
        ("wasmtime", "hello"),
        ("wasmtime", "hello/component"),
        ("wasmer", "hello"),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan((), 3), "empty"),
        (lambda: Plan(ARMS, 0), "empty"),
        (lambda: Plan((*ARMS, ARMS[0]), 3), "names an arm twice: local/wasmtime/cold/hello"),
        (lambda: cross(("moon",), ("wasmtime",), ("warm",), []), "unknown path 'moon'"),
        (lambda: cross(("local",), ("wasmtime",), ("hot",), []), "unknown mode 'hot'"),
    ],
)
def test_plans_that_make_no_sense(make, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        make()


def test_a_slow_path_is_in_every_nth_block_only() -> None:
    slow = (Arm("containerd", "runc", "cached", "hello"), Arm("containerd", "wasmer", "cached", "hello"))
    plan = Plan((*ARMS, *slow), 7, every={"containerd": 3})
    runs = plan.runs()
    assert len(runs) == len(plan) == 7 * len(ARMS) + 3 * len(slow)
    assert {run.block for run in runs if run.arm in slow} == {0, 3, 6}
    assert [run.number for run in runs] == list(range(len(runs)))
    # Whoever is in a block does not change the order of the others.
    others = [(run.block, run.arm) for run in runs if run.arm not in slow]
    every = [(run.block, run.arm) for run in Plan((*ARMS, *slow), 7).runs() if run.arm not in slow]
    assert others == every
    with pytest.raises(BenchmarkError, match="counts blocks from 1"):
        Plan(ARMS, 1, every={"node": 0})


def test_a_container_node_knows_no_warm_start() -> None:
    arms = cross(("containerd",), ("wasmtime",), ("cached", "warm"), [workloads.get("hello")], controls=False)
    assert arms == (Arm("containerd", "wasmtime", "cached", "hello"),)
