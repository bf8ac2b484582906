"""The binding's metering: a guest gets so much fuel and no more."""

from __future__ import annotations

import pytest

from tests.engines.test_native_crate import ROOT

ENDLESS = '(module (memory (export "memory") 1) {section} (func (export "_start") {body}))'
COUNT = """
def outcome(compiled, fuel):
    instance = compiled.instantiate(["m"], fuel=fuel)
    try:
        return [instance.run(), instance.fuel]
    except w.Trap as trap:
        return [trap.kind, instance.fuel]
"""


@pytest.mark.parametrize("compiler", ["cranelift", "singlepass"])
def test_a_loop_ends_when_its_fuel_does(script, wat, compiler):
    path = wat(ENDLESS.format(section="", body="(loop (br 0))"))
    code = (
        COUNT
        + """
with open(sys.argv[2], "rb") as stream:
    made = w.Engine(sys.argv[3], metering=True).compile(stream.read())
loaded = w.Engine(None).deserialize(made.serialize())
answer([made.metered, loaded.metered, outcome(made, 100_000), outcome(loaded, 0), outcome(loaded, 10)])
"""
    )
    assert script(code, path, compiler) == [True, True, *[["out_of_fuel", 0]] * 3]


def test_what_a_run_costs_does_not_depend_on_the_compiler_and_exactly_that_is_enough(script):
    code = (
        COUNT
        + """
found, plenty = [], 10**9
with open(sys.argv[2], "rb") as stream:
    wasm = stream.read()
for compiler in ("cranelift", "singlepass"):
    made = w.Engine(compiler, metering=True).compile(wasm)
    cost = plenty - outcome(made, plenty)[1]
    found.append([cost, outcome(made, cost), outcome(made, cost - 1)])
answer(found)
"""
    )
    one, other = script(code, ROOT / "data/wasm/hello.wasm")
    assert one == other
    assert one[0] > 100
    assert one[1] == [0, 0]
    assert one[2] == ["out_of_fuel", 0]


def test_the_start_section_counts(script, wat):
    path = wat(ENDLESS.format(section="(func $s (loop (br 0))) (start $s)", body=""))
    code = """
with open(sys.argv[2], "rb") as stream:
    made = w.Engine(metering=True).compile(stream.read())
answer(error(lambda: made.instantiate(["m"], fuel=1000)))
"""
    assert script(code, path)[:2] == ["Trap", "out_of_fuel"]


def test_a_trap_of_its_own_is_not_mistaken_for_it(script, wat):
    code = (
        COUNT
        + """
with open(sys.argv[2], "rb") as stream:
    made = w.Engine(metering=True).compile(stream.read())
answer(outcome(made, 1000)[0])
"""
    )
    assert script(code, wat(ENDLESS.format(section="", body="unreachable"))) == "unreachable"


def test_exports_that_are_called_as_the_meter_do_not_help(script, wat):
    section = """
      (global (export "wasmer_metering_remaining_points") (mut i64) (i64.const 0))
      (func (export "wasmer_native_start") unreachable)"""
    code = (
        COUNT
        + """
with open(sys.argv[2], "rb") as stream:
    made = w.Engine(metering=True).compile(stream.read())
answer(outcome(made, 1000))
"""
    )
    assert script(code, wat(ENDLESS.format(section=section, body="(loop (br 0))"))) == ["out_of_fuel", 0]


def test_fuel_needs_metering(script):
    code = """
compiled = module(sys.argv[2])
answer([error(lambda: compiled.instantiate(["m"], fuel=1)), compiled.metered, compiled.instantiate(["m"]).fuel])
"""
    refused, metered, fuel = script(code, ROOT / "data/wasm/hello.wasm")
    assert refused[0] == "ValueError"
    assert (metered, fuel) == (False, None)
