from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from wasmlab.node.containers import stdin
from wasmlab.node.runtime import pipes
from wasmlab.node.runtime.pipes import Pipe


async def never() -> bool:
    return False


async def test_what_goes_in_comes_out_also_more_than_a_pipe_holds() -> None:
    pipe = Pipe(True)
    data = os.urandom(1 << 20)
    got = bytearray()

    async def read() -> None:
        async for portion in pipe.portions():
            got.extend(portion)

    reading = asyncio.create_task(read())
    os.set_blocking(pipe.theirs, False)  # here this process plays the module, too
    await pipes.write(pipe.theirs, data, given_up=never)
    pipe.handed_over()
    await asyncio.wait_for(reading, 10)
    pipe.close()
    assert bytes(got) == data


async def test_the_modules_end_blocks_and_ours_does_not() -> None:
    for to_module in (True, False):
        pipe = Pipe(True, to_module=to_module)
        assert (os.get_blocking(pipe.theirs), os.get_blocking(pipe.ours)) == (True, False)
        pipe.close()


async def test_a_stream_that_nobody_wants_is_dev_null() -> None:
    pipe = Pipe(False)
    assert os.write(pipe.theirs, b"x") == 1
    assert os.read(pipe.theirs, 1) == b""
    assert [portion async for portion in pipe.portions()] == []
    pipe.close()


async def test_a_writer_is_given_up_when_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_LOOK_S", 0.01)
    pipe = Pipe(True, to_module=True)
    asked = []

    async def given_up() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(BrokenPipeError, match="nobody waits"):
        await asyncio.wait_for(pipes.write(pipe.ours, b"x" * (1 << 20), given_up=given_up), 10)
    pipe.close()


async def test_a_reader_that_has_gone_is_noticed() -> None:
    pipe = Pipe(True, to_module=True)
    pipe.handed_over()  # nobody has it
    with pytest.raises(BrokenPipeError):
        await pipes.write(pipe.ours, b"x", given_up=never)
    pipe.close()


def test_a_containers_input_is_made_anew_for_each_attempt(tmp_path: Path) -> None:
    spec = {"name": "c", "stdin": True}
    with stdin.given(spec, tmp_path) as (reading, keeping):
        assert os.get_blocking(reading)
        first = os.open(stdin.path_of(tmp_path, "c"), os.O_WRONLY | os.O_NONBLOCK)
        os.write(first, b"for the first")
        os.close(first)
        assert os.read(reading, 100) == b"for the first"
        del keeping
    with stdin.given(spec, tmp_path) as (reading, _):
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):  # nothing is left of the first, and no end either
            os.read(reading, 1)
    with stdin.given({"name": "c"}, tmp_path) as fds:
        assert fds == ()
    assert stdin.path_of(tmp_path, "c").stat().st_mode & 0o077 == 0
