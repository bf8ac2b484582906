"""FIFOs and terminals, with real ones."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from wasmlab.sandbox.loop import Loop
from wasmlab.shim import kernel
from wasmlab.shim.stdio import Console, Streams


@pytest.fixture
def fifo(tmp_path: Path):
    def make(name: str) -> str:
        os.mkfifo(tmp_path / name)
        return str(tmp_path / name)

    return make


def turn(loop: Loop, seconds: float) -> None:
    """Run the loop for a while."""
    loop.ending = False
    loop.after(seconds, lambda: setattr(loop, "ending", True))
    loop.run()


def test_a_writer_is_seen_also_one_that_has_left_data(fifo):
    path = fifo("f")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert not kernel.has_writer(reader)
    writer = os.open(path, os.O_WRONLY)
    assert kernel.has_writer(reader)
    os.write(writer, b"x")
    os.close(writer)
    assert kernel.has_writer(reader)
    assert os.read(reader, 5) == b"x"
    assert not kernel.has_writer(reader)
    os.close(reader)


def until(loop, condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        loop.step(0.01)


def test_the_end_of_a_client_that_reads_nothing_is_told_all_the_same(fifo):
    out = fifo("out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    loop = Loop(tolerant=True)
    streams = Streams(loop, "", out, "")
    os.write(streams.guest[1], b"unread")
    done = []
    streams.finish(lambda: done.append(True))
    until(loop, lambda: done)
    os.close(reader)


def test_output_goes_into_the_fifo_without_the_shim(fifo):
    out, err = fifo("out"), fifo("err")
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in (out, err)]
    loop = Loop(tolerant=True)
    streams = Streams(loop, "", out, err)
    assert os.read(streams.guest[0], 10) == b""
    os.write(streams.guest[1], b"one")
    os.write(streams.guest[2], b"two")
    streams.handed_over()
    streams.say("three")
    done = []
    streams.finish(lambda: done.append(True))
    assert os.read(readers[0], 100) == b"one"
    assert done == [], "its stderr has not been read: containerd would throw it away"
    assert os.read(readers[1], 100) == b"twothree\n"
    until(loop, lambda: done)
    # The end: nobody has them open for writing any more.
    assert [os.read(reader, 1) for reader in readers] == [b"", b""]
    for reader in readers:
        os.close(reader)


def test_a_guest_outlives_the_reader_of_its_output(fifo):
    out = fifo("out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    streams = Streams(Loop(tolerant=True), "", out, "")
    os.close(reader)
    os.write(streams.guest[1], b"kept")  # no EPIPE, no wait
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 10) == b"kept"
    os.close(reader)
    streams.close()


def test_stdin_of_a_client_that_is_there_is_the_fifo_itself(fifo):
    path = fifo("in")
    opened: list[int] = []
    client = threading.Thread(target=lambda: opened.append(os.open(path, os.O_WRONLY)))
    client.start()
    time.sleep(0.1)  # it waits for a reader
    streams = Streams(Loop(tolerant=True), path, "", "")
    client.join(5)
    os.write(opened[0], b"data")
    os.close(opened[0])
    assert os.read(streams.guest[0], 10) == b"data"
    assert os.read(streams.guest[0], 10) == b""
    streams.close()


def test_stdin_waits_for_a_client_that_comes_late(fifo):
    path, loop = fifo("in"), Loop(tolerant=True)
    streams = Streams(loop, path, "", "")
    os.set_blocking(streams.guest[0], False)
    turn(loop, 0.05)
    with pytest.raises(BlockingIOError):
        os.read(streams.guest[0], 10)
    client = os.open(path, os.O_WRONLY)
    os.write(client, b"late")
    turn(loop, 0.05)
    assert os.read(streams.guest[0], 10) == b"late"
    os.close(client)
    turn(loop, 0.05)
    assert os.read(streams.guest[0], 10) == b""
    streams.close()


def test_a_late_client_may_send_more_than_a_pipe_holds(fifo):
    path, loop = fifo("in"), Loop(tolerant=True)
    streams = Streams(loop, path, "", "")
    text, got = os.urandom(1 << 20), bytearray()

    def send() -> None:
        with open(path, "wb") as client:
            client.write(text)

    def receive() -> None:
        while part := os.read(streams.guest[0], 65536):
            got.extend(part)
        loop.after(0, lambda: None)

    threads = [threading.Thread(target=work) for work in (send, receive)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while threads[1].is_alive() and time.monotonic() < deadline:
        turn(loop, 0.05)
    assert bytes(got) == text
    streams.close()


def test_close_io_ends_the_input_of_a_client_that_never_came(fifo):
    loop = Loop(tolerant=True)
    streams = Streams(loop, fifo("in"), "", "")
    streams.close_stdin()
    assert os.read(streams.guest[0], 10) == b""
    streams.close()


def test_output_to_a_file_is_appended(tmp_path):
    for text in (b"one\n", b"two\n"):
        streams = Streams(Loop(tolerant=True), "", f"file://{tmp_path}/deep/log", "")
        os.write(streams.guest[1], text)
        streams.close()
    assert (tmp_path / "deep/log").read_text() == "one\ntwo\n"


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for stdout in ("binary:///bin/logger", f"{tmp_path}/nothing/here"):
        with pytest.raises(OSError):
            Streams(Loop(tolerant=True), "", stdout, "")
        loop = Loop(tolerant=True)
        with pytest.raises(OSError):
            Console(loop, "", stdout)
        loop.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_console_carries_both_ways_and_tells_the_size(fifo):
    loop, path_in, path_out = Loop(tolerant=True), fifo("in"), fifo("out")
    reader = os.open(path_out, os.O_RDONLY | os.O_NONBLOCK)
    console = Console(loop, path_in, path_out)
    console.resize(132, 43)
    slave = os.dup(console.guest[0])
    assert tuple(os.get_terminal_size(slave)) == (132, 43)
    console.handed_over()
    client = os.open(path_in, os.O_WRONLY)
    os.write(client, b"typed\n")
    turn(loop, 0.05)
    assert os.read(slave, 100) == b"typed\n"
    os.write(slave, b"printed\n")
    turn(loop, 0.05)
    assert os.read(reader, 100) == b"typed\r\nprinted\r\n"
    # The client's end of input is the terminal's.
    os.close(client)
    turn(loop, 0.05)
    assert os.read(slave, 100) == b""
    os.close(slave)
    done = []
    console.finish(lambda: done.append(True))
    turn(loop, 0.1)
    assert done == [True]
    os.close(reader)


def test_a_console_loses_nothing_when_the_client_is_slow(fifo):
    loop, path_out = Loop(tolerant=True), fifo("out")
    reader = os.open(path_out, os.O_RDONLY | os.O_NONBLOCK)
    console = Console(loop, "", path_out)
    slave = os.dup(console.guest[1])
    console.handed_over()
    text = b"x" * 300_000

    def guest() -> None:
        view = memoryview(text)
        while view:
            view = view[os.write(slave, view) :]
        os.close(slave)

    thread = threading.Thread(target=guest)
    thread.start()
    turn(loop, 0.2)
    got, done = bytearray(), []
    ending = False
    deadline = time.monotonic() + 20
    while not done and time.monotonic() < deadline:
        turn(loop, 0.01)
        if not thread.is_alive() and not ending:
            ending = True
            console.finish(lambda: done.append(True))
        try:
            got += os.read(reader, 20_000)
        except BlockingIOError:
            pass
    while part := os.read(reader, 65536):
        got += part
    thread.join(5)
    assert len(got) == len(text)
    os.close(reader)
