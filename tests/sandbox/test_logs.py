"""CRI lines out of frames."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from wasmlab.sandbox.logs import Formatter, LogPump, timestamp
from wasmlab.sandbox.stdio import HEADER, STDERR, STDOUT, write_frame

NOW = 1_795_510_800_123_456_789


def frame(stream: int, data: bytes) -> bytes:
    return HEADER.pack(stream, len(data)) + data


def parse(log: bytes) -> dict[bytes, bytes]:
    out = {b"stdout": b"", b"stderr": b""}
    for line in log.split(b"\n")[:-1]:
        _, stream, tag, content = line.split(b" ", 3)
        assert tag in (b"F", b"P")
        assert len(content) <= 16 * 1024
        out[stream] += content + (b"\n" if tag == b"F" else b"")
    return out


def test_timestamp_is_rfc3339_with_nanoseconds():
    assert timestamp(NOW) == b"2026-11-24T09:00:00.123456789Z"
    assert timestamp(1_795_510_800_000_000_005) == b"2026-11-24T09:00:00.000000005Z"


def test_lines_and_streams():
    one = Formatter()
    log = one.feed(frame(STDOUT, b"a\nb\n") + frame(STDERR, b"c\n"), NOW)
    stamp = timestamp(NOW)
    assert log == b"%s stdout F a\n%s stdout F b\n%s stderr F c\n" % (stamp, stamp, stamp)
    assert one.flush(NOW) == b""


def test_unfinished_line_waits_and_is_a_piece_at_the_end():
    one = Formatter()
    assert one.feed(frame(STDOUT, b"abc"), NOW) == b""
    assert one.pending
    assert one.flush(NOW).endswith(b" stdout P abc\n")
    assert not one.pending


def test_empty_line_is_a_line():
    assert Formatter().feed(frame(STDOUT, b"\n"), NOW).endswith(b" stdout F \n")


def test_long_line_is_cut_into_pieces():
    line = bytes(range(32, 127)) * 1000
    log = Formatter().feed(frame(STDOUT, line + b"\n"), NOW)
    assert log.count(b" stdout P ") == len(line) // (16 * 1024)
    assert parse(log)[b"stdout"] == line + b"\n"


PIECES = st.binary(max_size=40) | st.sampled_from([b"x\n" * 300, b"y" * 20_000, b"\n"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), PIECES), max_size=8), st.integers(3, 5000))
def test_no_byte_is_lost_however_it_is_cut(frames, step):
    raw = b"".join(frame(stream, data) for stream, data in frames)
    one = Formatter()
    log = b"".join(one.feed(raw[at : at + step], NOW) for at in range(0, len(raw), step)) + one.flush(NOW)
    seen = parse(log)
    assert seen[b"stdout"] == b"".join(data for stream, data in frames if stream == STDOUT)
    assert seen[b"stderr"] == b"".join(data for stream, data in frames if stream == STDERR)


def test_pump_ends_with_the_pipe_and_keeps_the_last_bytes(tmp_path):
    pump = LogPump(str(tmp_path / "log"))
    write_frame(pump.guest_end, STDOUT, b"last words")
    pump.close_guest_end()
    while not pump.ended:
        pump.pump()
    pump.close()
    assert (tmp_path / "log").read_bytes().endswith(b" stdout P last words\n")
    assert pump.lost_bytes == 0
    assert pump.first_byte_ns is not None


def test_pump_is_blocked_by_a_full_disk_and_reads_no_more():
    pump = LogPump("/dev/full")
    write_frame(pump.guest_end, STDOUT, b"line\n")
    assert pump.pump() is False
    assert pump.blocked
    write_frame(pump.guest_end, STDOUT, b"more\n")
    assert pump.pump() is False
    pump.close()
    assert pump.lost_bytes > 0


def test_frames_of_a_closed_pipe_are_an_errno():
    read, write = os.pipe()
    os.close(read)
    assert write_frame(write, STDOUT, b"x") < 0
    os.close(write)
