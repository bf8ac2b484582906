"""A limit of fuel, on every adapter that has one."""

from __future__ import annotations

import pytest

from wasmlab import engines
from wasmlab.errors import InvalidModule, Unsupported


def test_an_endless_loop_ends_when_its_fuel_does(sandbox, spec):
    if not engines.get(sandbox.engine.name).capabilities.fuel:
        with pytest.raises(Unsupported, match="fuel"):
            sandbox.run(spec("loop", fuel=1000))
        return
    outcome = sandbox.run(spec("loop", fuel=1_000_000))
    assert (outcome.exit_code, outcome.trap) == (None, "out_of_fuel")
    assert "fuel" in outcome.message


def test_enough_fuel_changes_nothing_and_a_cold_run_neither(sandbox, spec):
    if not engines.get(sandbox.engine.name).capabilities.fuel:
        pytest.skip("this engine has none")
    for cold in (False, True):
        outcome = sandbox.run(spec("hello", fuel=100_000, memory_bytes=1 << 20), cold=cold)
        assert (outcome.exit_code, outcome.trap) == (0, None)
        assert outcome.stdout.startswith(b"hello from stdout!")
        assert sandbox.run(spec("hello", fuel=10), cold=cold).trap == "out_of_fuel"


def test_a_module_that_is_no_command_is_told_so_in_the_same_words(sandbox, spec, wat):
    path = wat('(module (memory (export "memory") 1) (func (export "run")))')
    words = "the module exports no function _start: it is a library, not a command"
    if sandbox.engine.name == "wasmer-sdk":  # it looks before it compiles
        with pytest.raises(InvalidModule, match=words):
            sandbox.run(spec(path))
        return
    outcome = sandbox.run(spec(path))
    assert (outcome.trap, outcome.message) == ("link", words)


def test_a_sleep_of_no_time_ends(sandbox, spec):
    if not engines.get(sandbox.engine.name).capabilities.zero_timeouts:
        assert sandbox.run(spec("sleep", "0", deadline_s=0.5)).trap == "deadline"
        return
    assert sandbox.run(spec("sleep", "0", deadline_s=20.0)).stdout == b"sleeping\nawake\n"
