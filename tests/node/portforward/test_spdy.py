from __future__ import annotations

import struct
import zlib

import pytest

from tests.node.spdykit import Client
from wasmlab.node.portforward import spdy
from wasmlab.node.portforward.spdy import Connection, Data, Opened, Ping, Reset


def test_the_dictionary_is_that_of_the_specification() -> None:
    # What zlib calls it: a stream begins with this number, and one made with any other cannot be read.
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_frames_come_in_any_pieces(size: int) -> None:
    client, server = Client(), Connection()
    sent = client.open(1, streamtype="error", port="80") + spdy.data(1, b"", end=True)
    sent += client.open(3, streamtype="data", port="80", requestid="0") + spdy.data(3, b"x" * 5000)
    sent += spdy.ping(7) + spdy.reset(3, 5)
    pieces = (sent[at : at + size] for at in range(0, len(sent), size))
    found = [event for piece in pieces for event in server.feed(piece)]
    assert found == [
        Opened(1, {"streamtype": "error", "port": "80"}, False),
        Data(1, b"", True),
        Opened(3, {"streamtype": "data", "port": "80", "requestid": "0"}, False),
        Data(3, b"x" * 5000, False),
        Ping(7),
        Reset(3),
    ]


def test_what_a_server_need_not_know_is_read_over() -> None:
    client, server = Client(), Connection()
    settings, window, goaway = (4, b"\0" * 12), (9, b"\0" * 8), (7, b"\0" * 8)
    sent = b"".join(
        struct.pack(">II", 0x80030000 | kind, len(body)) + body for kind, body in (settings, window, goaway)
    )
    # Headers of an open stream are not wanted; but they belong to the one stream of compressed blocks.
    sent += client.headers(1, some="thing") + client.open(1, port="1")
    assert list(server.feed(sent)) == [Opened(1, {"port": "1"}, False)]


def test_replies_are_one_compressed_stream() -> None:
    client, server = Client(), Connection()
    assert client.read(server.reply(1) + server.reply(3)) == [(2, 1, {}), (2, 3, {})]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (struct.pack(">II", 1, spdy.MOST_BYTES + 1), "are the most"),
        (struct.pack(">II", 0x80020001, 4) + b"\0\0\0\1", "version 2"),
        (struct.pack(">II", 0x80030003, 2) + b"\0\0", "too short"),
        (struct.pack(">II", 0x80030001, 16) + b"\0" * 16, "decompressed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "are the most"),
    ],
)
def test_what_is_not_spdy_ends_the_connection(sent: bytes, why: str) -> None:
    with pytest.raises(spdy.ProtocolError, match=why):
        list(Connection().feed(sent + b"\0" * 5_000_000))


def test_a_header_block_may_not_grow_without_end() -> None:
    with pytest.raises(spdy.ProtocolError, match="more than"):
        list(Connection().feed(Client().open(1, port="1" * 100_000)))


def test_a_header_block_that_lies_about_its_size() -> None:
    client = Client()
    block = struct.pack(">II", 1, 1000) + b"port"
    with pytest.raises(spdy.ProtocolError, match="ends within"):
        list(Connection().feed(client.block_frame(1, block)))
