"""Lowering the maximum of a module's memories, byte for byte."""

from __future__ import annotations

import pytest
import wasmtime

from wasmlab.engines.module_limits import initial_bytes, with_memory_limit
from wasmlab.errors import InvalidModule

PAGE = 65536


def limits(wasm: bytes) -> list[tuple[int, int | None]]:
    """Minimum and maximum of each exported or imported memory, as wasmtime reads them."""
    module = wasmtime.Module(wasmtime.Engine(), wasm)
    types = [one.type for one in (*module.imports, *module.exports)]
    return [(one.limits.min, one.limits.max) for one in types if isinstance(one, wasmtime.MemoryType)]


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


@pytest.mark.parametrize(
    ("declared", "pages", "expected"),
    [("1", 10, (1, 10)), ("1 5", 10, (1, 5)), ("1 50", 10, (1, 10)), ("20", 10, (20, 20)), ("0", 0, (0, 0))],
)
def test_own_memory(declared, pages, expected):
    wasm = wat(f'(module (memory (export "m") {declared}) (data (i32.const 0) "") (func (export "f")))')
    limited = with_memory_limit(wasm, pages * PAGE + 100)
    assert limits(limited) == [expected]


def test_imported_memory_among_other_imports():
    wasm = wat(
        '(module (import "a" "f" (func (param i32))) (import "a" "t" (table 1 2 funcref)) (import "a" "m" (memory 2))'
        '(import "a" "g" (global i32)) (import "a" "h" (func)) (func (export "x")))'
    )
    assert limits(with_memory_limit(wasm, 7 * PAGE)) == [(2, 7)]
    assert initial_bytes(wasm) == 2 * PAGE


def test_module_without_memory_is_unchanged():
    wasm = wat('(module (func (export "f")))')
    assert with_memory_limit(wasm, PAGE) == wasm
    assert initial_bytes(wasm) == 0


def test_large_maximum_changes_the_section_size():
    wasm = wat('(module (memory (export "m") 1) (func (export "f") (result i32) (i32.const 7)))')
    limited = with_memory_limit(wasm, 60000 * PAGE)
    assert len(limited) > len(wasm)
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, limited), [])
    assert instance.exports(store)["f"](store) == 7


@pytest.mark.parametrize(
    "bad", [b"", b"\0asm", b"\0asm\x0d\0\x01\0", b"\0asm\x01\0\0\0\x05\xff", b"\0asm\x01\0\0\0\x05\x7f\x01"]
)
def test_broken_modules_are_named(bad):
    with pytest.raises(InvalidModule):
        with_memory_limit(bad, PAGE)
