"""ttrpc framing, by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.shim.frames import MAX_MESSAGE_BYTES, Decoder, Frame, encode

FRAMES = st.lists(
    st.builds(
        Frame,
        stream=st.integers(0, 2**32 - 1),
        kind=st.integers(0, 255),
        flags=st.integers(0, 255),
        payload=st.binary(max_size=300),
        oversized=st.just(False),
    ),
    max_size=8,
)


def _wire(frames: list[Frame]) -> bytes:
    return b"".join(encode(one.stream, one.kind, one.payload, one.flags) for one in frames)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cutting(frames, cuts):
    wire, decoder, found, at, turn = _wire(frames), Decoder(), [], 0, 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        found += decoder.feed(wire[at : at + step])
        at, turn = at + step, turn + 1
    assert found == frames
    assert decoder.feed(encode(9, 1, b"")) == [Frame(9, 1, 0, b"")]  # nothing was left over


@given(FRAMES, st.integers(1, 9))
def test_a_part_of_a_header_waits(frames, cut):
    decoder, last = Decoder(), encode(9, 1, b"last")
    assert decoder.feed(_wire(frames) + last[:cut]) == frames
    assert decoder.feed(last[cut:]) == [Frame(9, 1, 0, b"last")]


@given(st.integers(MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES + 50), st.integers(1, 1 << 20))
def test_an_oversized_message_is_reported_and_skipped(length, step):
    header = length.to_bytes(4, "big") + (7).to_bytes(4, "big") + b"\x01\x00"
    wire = header + bytes(length) + encode(9, 1, b"after")
    decoder, found = Decoder(), []
    for at in range(0, len(wire), step) if step > 4096 else (0,):
        found += decoder.feed(wire[at : at + (step if step > 4096 else len(wire))])
    assert found == [Frame(7, 1, 0, b"", oversized=True), Frame(9, 1, 0, b"after")]


def test_the_header_is_as_containerd_writes_it():
    assert encode(1, 1, b"ab") == bytes([0, 0, 0, 2, 0, 0, 0, 1, 1, 0]) + b"ab"


def test_too_long_to_send():
    with pytest.raises(ValueError, match="at most"):
        encode(1, 1, bytes(MAX_MESSAGE_BYTES + 1))
