from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.node.api.times import parse_time
from wasmlab.node.runtime.crilog import LogFilter, tail_offset

LINES = (
    b"2026-11-24T09:00:00.000000001Z stdout F one\n"
    b"2026-11-24T09:00:01.5Z stderr F two\n"
    b"2026-11-24T09:00:02Z stdout P thr\n"
    b"2026-11-24T09:00:02Z stdout F ee\n"
    b"2026-11-24T09:00:03Z stdout F \n"
)


def test_plain() -> None:
    assert LogFilter().feed(LINES) == b"one\ntwo\nthree\n\n"


def test_timestamps_stand_in_front() -> None:
    got = LogFilter(timestamps=True).feed(LINES[: LINES.index(b"\n") + 1])
    assert got == b"2026-11-24T09:00:00.000000001Z one\n"


def test_since() -> None:
    since = parse_time("2026-11-24T09:00:01.5Z")
    assert LogFilter(since_unix_s=since).feed(LINES) == b"two\nthree\n\n"
    assert LogFilter(since_unix_s=since + 0.001).feed(LINES) == b"three\n\n"


def test_one_stream_only() -> None:
    assert LogFilter(streams=frozenset({"stderr"})).feed(LINES) == b"two\n"


@pytest.mark.parametrize("limit", [1, 4, 6, 1000])
def test_limit_bytes_cuts_exactly(limit: int) -> None:
    view = LogFilter(limit_bytes=limit)
    whole = b"one\ntwo\nthree\n\n"
    assert view.feed(LINES) == whole[:limit]
    assert view.exhausted == (limit <= len(whole))


@given(st.lists(st.integers(min_value=1, max_value=len(LINES)), max_size=6))
def test_however_the_file_is_cut_into_reads(cuts: list[int]) -> None:
    view, out, last = LogFilter(), b"", 0
    for cut in [*sorted(cuts), len(LINES)]:
        out += view.feed(LINES[last:cut])
        last = cut
    assert out == b"one\ntwo\nthree\n\n"


def test_garbage_of_a_crash_is_left_out() -> None:
    assert LogFilter().feed(b"garbage\n" + LINES[:45] + b"\n")[:3] == b"one"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, b""),
        (1, b"\n"),
        (2, b"three\n\n"),
        (3, b"two\nthree\n\n"),
        (4, b"one\ntwo\nthree\n\n"),
        (99, b"one\ntwo\nthree\n\n"),
    ],
)
def test_tail(lines: int, expected: bytes) -> None:
    file = io.BytesIO(LINES)
    file.seek(tail_offset(file, lines))
    assert LogFilter().feed(file.read()) == expected


def test_tail_of_a_large_file_reads_only_its_end() -> None:
    body = b"".join(b"2026-11-24T09:00:00Z stdout F line %d\n" % i for i in range(20_000))
    file = io.BytesIO(body)
    file.seek(tail_offset(file, 3))
    assert LogFilter().feed(file.read()) == b"line 19997\nline 19998\nline 19999\n"


def test_tail_of_one_line_longer_than_a_block() -> None:
    long = b"x" * 200_000
    file = io.BytesIO(b"2026-11-24T09:00:00Z stdout F a\n2026-11-24T09:00:00Z stdout F " + long + b"\n")
    file.seek(tail_offset(file, 1))
    assert LogFilter().feed(file.read()) == long + b"\n"


def test_tail_of_an_empty_file() -> None:
    assert tail_offset(io.BytesIO(b""), 5) == 0
