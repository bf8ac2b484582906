"""The parser says what is in a binary, and where it stopped when it is damaged."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.errors import InvalidModule
from wasmlab.modules import Module
from wasmlab.modules.files import data_dir, fixture

HEADER = b"\0asm\1\0\0\0"


@pytest.fixture(scope="module")
def hello() -> Module:
    return Module.from_file(data_dir("wasm", "hello.wasm"))


def test_hello_is_a_core_command(hello: Module) -> None:
    assert hello.kind == "core"
    assert hello.is_command
    assert "wasi_snapshot_preview1.fd_write" in hello.imports
    assert set(hello.exports) == {"memory", "_start"}
    assert hello.name == "hello"
    assert hello.size_bytes == len(hello.data)
    assert hello.digest.startswith("sha256:") and len(hello.digest) == 71
    # zig's 16 MiB default stack must not creep back: it would count against every pod's memory limit.
    assert hello.memory_bytes is not None and hello.memory_bytes < 1 << 20


def test_sections_cover_the_file(hello: Module) -> None:
    assert [section.name for section in hello.sections][:2] == ["type", "import"]
    last = hello.sections[-1]
    assert last.offset + last.size_bytes == hello.size_bytes
    assert hello.functions > 1


def test_agrees_with_an_engine(hello: Module) -> None:
    import wasmtime

    compiled = wasmtime.Module(wasmtime.Engine(), hello.data)
    assert tuple(f"{one.module}.{one.name}" for one in compiled.imports) == hello.imports
    assert tuple(one.name for one in compiled.exports) == hello.exports


def test_all_kinds_of_imports_agree_with_an_engine() -> None:
    import wasmtime

    binary = bytes(
        wasmtime.wat2wasm(
            """(module (import "a" "f" (func (param i32))) (import "a" "t" (table 1 2 funcref))
            (import "a" "m" (memory 1 5)) (import "b" "g" (global (mut i64))) (func (export "run")))"""
        )
    )
    assert Module(binary).imports == ("a.f", "a.t", "a.m", "b.g")
    assert Module(binary).exports == ("run",)


def test_component() -> None:
    import wasmtime

    component = Module(
        bytes(
            wasmtime.wat2wasm(
                """(component (import "host" (func $f (param "x" u32)))
                (import "wasi:cli/environment@0.2.0" (instance)) (core module)
                (export "again" (func $f)))"""
            )
        ),
        name="c",
    )
    assert component.kind == "component"
    assert component.imports == ("host", "wasi:cli/environment@0.2.0")
    assert component.exports == ("again",)
    assert "component" in component._repr_html_()


def test_every_truncation_is_an_error_that_names_an_offset(hello: Module) -> None:
    whole_sections = {8} | {section.offset + section.size_bytes for section in hello.sections}
    for length in range(hello.size_bytes):
        if length in whole_sections:
            Module(hello.data[:length])  # ends between sections: still a well-formed binary
            continue
        with pytest.raises(InvalidModule) as caught:
            Module(hello.data[:length])
        assert 0 <= caught.value.offset <= length
        assert f"of {length:,}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message", "offset"),
    [
        (b"", "is empty", 0),
        (b"\0as", "inside its magic number", 3),
        (b"\0asm\1\0", "inside its version word", 6),
        (b"\0asm\2\0\0\0", "unknown version word 02 00 00 00", 4),
        (b"\x7fELF\2\1\1\0", "a native Linux program", 0),
        (b"(module)", "text, which must be compiled", 0),
        (HEADER + b"\x0e\x00", "unknown id 14", 8),
        (HEADER + b"\x01\x05\x00", "ends inside the type section: 5 bytes announced, 1 there", 11),
        (HEADER + b"\x03\x01\x00\x01\x01\x00", "type section twice or out of order", 11),
        (HEADER + b"\x01\xff\xff\xff\xff\xff\x01", "too long a number", 9),
        (HEADER + b"\x01\xff\xff\xff\xff\x7f", "too large a number", 9),
        (HEADER + b"\x07\x06\x01\x02\xff\xfe\x00\x00", "not UTF-8", 12),
        (HEADER + b"\x07\x05\x01\x01a\x09\x00", "unknown kind", 13),
        (HEADER + b"\x02\x01\x01", "ends where the length of an import's module name", 11),
    ],
)
def test_bad_bytes(data: bytes, message: str, offset: int) -> None:
    with pytest.raises(InvalidModule) as caught:
        Module(data, name="bad")
    assert message in str(caught.value)
    assert caught.value.offset == offset
    assert isinstance(caught.value, ValueError)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(junk: bytes) -> None:
    for data in (junk, HEADER + junk, b"\0asm\x0d\0\1\0" + junk):
        with contextlib.suppress(InvalidModule):  # anything else fails the test
            Module(data)


def test_html_is_small_and_escaped() -> None:
    text = Module(fixture("env").read_bytes(), name="<b>x")._repr_html_()
    assert "<b>&lt;b&gt;x</b>" in text
    assert len(text) < 4000


def test_pickles(hello: Module) -> None:
    again = pickle.loads(pickle.dumps(hello))
    assert again == hello and again.digest == hello.digest


def test_a_salted_module_is_another_one_that_does_the_same(hello: Module) -> None:
    import wasmtime

    from wasmlab.modules.salt import salted

    one, other = salted(hello), salted(hello)
    assert len({hello.digest, one.digest, other.digest}) == 3
    assert salted(hello, b"x").digest == salted(hello, b"x").digest
    assert one.imports == hello.imports and one.sections[:-1] == hello.sections
    assert one.sections[-1].name == "custom"
    wasmtime.Module.validate(wasmtime.Engine(), one.data)
