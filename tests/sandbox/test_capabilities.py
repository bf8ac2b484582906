"""Every cell of the table of capabilities, tried on every adapter: what it has it does, what it lacks it does not."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ports import answer, free_port
from wasmlab.engines import table
from wasmlab.engines.base import Capabilities
from wasmlab.errors import Unsupported
from wasmlab.sandbox import AsyncSandbox, Preopen

# Leaves with the number of pages it could get.
GROW = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $exit (memory.size))))"""
# Writes a byte, then waits for the end of its input.
WRITE_AND_WAIT = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00") (data (i32.const 16) "x")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


class Probes:
    """One method per capability: whether the engine of `sandbox` does it."""

    def __init__(self, sandbox, spec, wat, tmp_path, helpers) -> None:
        self.sandbox, self.spec, self.wat, self.path, self.helpers = sandbox, spec, wat, tmp_path, helpers
        (tmp_path / "old").write_text("content")

    def memory_limit(self) -> bool:
        return self.sandbox.run(self.spec(self.wat(GROW), memory_bytes=20 << 16)).exit_code == 20

    def deadline(self) -> bool:
        return self.sandbox.run(self.spec("loop", deadline_s=0.2)).trap == "deadline"

    def fuel(self) -> bool:
        return self.sandbox.run(self.spec("loop", fuel=1000)).trap == "out_of_fuel"

    def directories(self) -> bool:
        spec = self.spec("writefile", "/d/new", "text", preopens=(Preopen(str(self.path), "/d"),))
        return self.sandbox.run(spec).ok and (self.path / "new").read_text() == "text\n"

    def read_only_dirs(self) -> bool:
        preopens = (Preopen(str(self.path), "/d", read_only=True),)
        read = self.sandbox.run(self.spec("readfile", "/d/old", preopens=preopens))
        self.sandbox.run(self.spec("writefile", "/d/new", "text", preopens=preopens))
        return read.stdout == b"content" and os.listdir(self.path) == ["old"]

    def stdin(self) -> bool:
        return self.sandbox.run(self.spec("cat"), stdin=b"to and fro").stdout == b"to and fro"

    def streaming(self) -> bool:
        (feed, stop), (out, into) = os.pipe(), os.pipe()
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(
                self.sandbox.run, self.spec(self.wat(WRITE_AND_WAIT)), stdin=feed, stdout=into
            )
            came = bool(select.select([out], [], [], 30)[0]) and not ended.done()
            os.close(stop)
            ended.result(30)
        for fd in (feed, out, into):
            os.close(fd)
        return came

    def stream_order(self) -> bool:
        async def order() -> list[str]:
            sandbox = await AsyncSandbox.connect(
                self.sandbox.engine.name, self.path / "z", cache=self.sandbox.cache
            )
            try:
                run = await sandbox.start("r", self.spec("hello"), log_path=self.path / "log")
                await run.wait()
            finally:
                await sandbox.shutdown()
                await sandbox.aclose()
            return [line.split()[1] for line in (self.path / "log").read_text().splitlines()]

        return asyncio.run(order()) == ["stdout", "stderr", "stdout"]

    def argv0(self) -> bool:
        spec = self.spec("env")
        named = type(spec)(**{**vars(spec), "argv": ("/a dir/näme", "one")})
        return self.sandbox.run(named).stdout.startswith("arg 0=/a dir/näme\n".encode())

    def exit_codes_above_125(self) -> bool:
        return [self.sandbox.run(self.spec("exit", str(code))).exit_code for code in (126, 255)] == [126, 255]

    def trap_reason(self) -> bool:
        return self.sandbox.run(self.spec("trap")).trap == "unreachable"

    def zero_timeouts(self) -> bool:
        # One that lacks it never comes back; one that has it may be slow on a busy machine.
        patience_s = 30.0 if self.sandbox.engine.capabilities.zero_timeouts else 0.5
        return self.sandbox.run(self.spec("sleep", "0", deadline_s=patience_s)).stdout.endswith(b"awake\n")

    def components(self) -> bool:
        path = self.helpers.root / "data/wasm/components/hello.wasm"
        return self.sandbox.run(self.spec(path)).stdout.startswith(b"hello from stdout!")

    def listens(self) -> bool:
        port = free_port()
        serve = self.spec(self.helpers.root / "data/wasm/serve.wasm", str(port), "me", listen=(port,))
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(self.sandbox.run, serve)
            said = [answer(port, path, unless=ended.done) for path in ("/", "/exit/7")]
            return (said, ended.result(30).exit_code) == (["me says hello, request 1\n", "bye\n"], 7)

    def phases(self) -> bool:
        told = {span.phase for span in self.sandbox.run(self.spec("hello"), cold=True).spans}
        return told >= {"read", "validate", "compile", "serialize", "load", "instantiate", "run"}


@pytest.mark.parametrize("capability", table.TITLES)
def test_the_table_is_true(sandbox, spec, wat, tmp_path, helpers, capability):
    claimed = getattr(sandbox.engine.capabilities, capability)
    probe: Callable[[], bool] = getattr(Probes(sandbox, spec, wat, tmp_path, helpers), capability)
    if capability == "stream_order" and not claimed:
        pytest.skip("what keeps no order may keep it by chance")
    try:
        found = probe()
    except Unsupported as refused:
        # The way to lack something: say so, by its name.
        found = refused.capability != capability
    assert found is claimed


def test_the_table_forgets_nothing():
    fields = {name for name, value in vars(Capabilities()).items() if isinstance(value, bool)}
    assert set(table.TITLES) == fields
    made = table.table()
    assert [row[0] for row in made.rows] == ["compiler", *table.TITLES.values()]
    for number in range(1, len(made.notes) + 1):
        assert any(f"({number})" in cell for row in made.rows for cell in row)
    assert all(f"\n{number}. {note}\n" in table.markdown() for number, note in enumerate(made.notes, 1))
    assert "no" in table.text()


def test_what_the_table_says_of_an_adapter_is_what_the_adapter_says(engine):
    from wasmlab import engines

    assert table.capabilities(engine) is engines.get(engine).capabilities
    compilers = dict(zip(table.table().head, table.table().rows[0], strict=True))
    assert engines.get(engine).settings()["compiler"] == compilers[engine]
