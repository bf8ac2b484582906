"""The loop of zygotes and shims."""

from __future__ import annotations

import os

import pytest

from wasmlab.sandbox.loop import READ, WRITE, Loop


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_calls_handlers_and_timers_until_told_to_end(pipe):
    loop, seen = Loop(), []
    read, write = pipe
    loop.watch(read, lambda event: seen.append((os.read(read, 9), bool(event & READ))))
    loop.after(0.0, lambda: os.write(write, b"x"))
    loop.after(0.02, lambda: setattr(loop, "ending", True))
    loop.run()
    loop.close()
    assert seen == [(b"x", True)]


def test_a_handler_may_unwatch_another_that_is_ready_too(pipe):
    loop, seen = Loop(), []
    copies = [os.dup(pipe[1]) for _ in range(2)]

    def only_one(mine: int) -> None:
        seen.append(mine)
        for fd in copies:
            loop.unwatch(fd)

    for fd in copies:
        loop.watch(fd, lambda _, fd=fd: only_one(fd), WRITE)
    assert loop.step(1.0) is True
    assert len(seen) == 1
    assert not any(loop.watches(fd) for fd in copies)
    loop.close()
    for fd in copies:
        os.close(fd)


@pytest.mark.parametrize("source", ["descriptor", "timer"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_what_a_handler_raises_ends_the_loop_unless_it_is_tolerant(pipe, capfd, source, tolerant):
    def bad(*_: int) -> None:
        raise KeyError("some trouble")

    loop = Loop(tolerant=tolerant)
    if source == "timer":
        loop.after(0.0, bad)
    else:
        loop.watch(pipe[1], bad, WRITE)
    if tolerant:
        loop.step(0.0)
        assert "some trouble" in capfd.readouterr().err
    else:
        with pytest.raises(KeyError):
            loop.step(0.0)
    loop.close()


def test_every_comes_again():
    loop, count = Loop(), []
    loop.every(0.001, lambda: count.append(1))
    while len(count) < 3:
        loop.step(0.1)
    loop.close()
