from __future__ import annotations

import pytest

from wasmlab.node.host import pressure
from wasmlab.node.host.pressure import Level, Pressure

GI = 1 << 30


def test_the_kubelets_thresholds() -> None:
    assert pressure.parse(pressure.DEFAULT) == {
        "memory.available": "100Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
        "imagefs.available": "15%",
        "imagefs.inodesFree": "5%",
    }
    assert pressure.parse("") == {}


@pytest.mark.parametrize(
    "text", ["memory.available", "memory.free<1Gi", "nodefs.available<much", "pid.available>5"]
)
def test_what_is_no_threshold(text: str) -> None:
    with pytest.raises(ValueError, match=r"threshold|quantity"):
        pressure.parse(text)


def test_lines() -> None:
    assert pressure.line("memory.available", "100Mi", 8 * GI) == 100 << 20
    assert pressure.line("nodefs.inodesFree", "5%", 1000) == 50
    assert pressure.line("nodefs.available", "10%", 50 * GI) == 5 * GI
    assert pressure.line("nodefs.available", "10%", 1000 * GI) == 10 * GI  # a large disk is not full yet
    assert pressure.line("nodefs.available", "20Gi", 1000 * GI) == 20 * GI
    assert pressure.line("nodefs.available", "100%", 1000 * GI) == 1000 * GI


def test_a_condition_stays_for_a_while() -> None:
    watch = Pressure({"memory.available": "100Mi", "pid.available": "10"}, hold_s=300)
    plenty, little = Level(GI, 8 * GI), Level(50 << 20, 8 * GI)
    assert watch.observe({"memory.available": plenty}, 0) == {}
    held = watch.observe({"memory.available": little, "pid.available": Level(9, 100)}, 10)
    assert set(held) == {"MemoryPressure", "PIDPressure"}
    assert "memory.available is 50Mi, below 100Mi" in held["MemoryPressure"]
    assert set(watch.observe({"memory.available": plenty}, 309)) == {"MemoryPressure", "PIDPressure"}
    assert watch.observe({"memory.available": plenty}, 310) == {}
