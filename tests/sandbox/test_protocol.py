"""Messages and descriptors over SOCK_SEQPACKET."""

from __future__ import annotations

import os
import socket

import pytest

from wasmlab.sandbox.protocol import close_all, pack, receive, send, short_path, valid_id


@pytest.fixture
def pair():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield here, there
    here.close()
    there.close()


@pytest.mark.parametrize("size", [0, 1000, 48 * 1024, 200_000, 3_000_000])
def test_messages_of_any_size_arrive_with_their_descriptors(pair, size):
    here, there = pair
    read, write = os.pipe()
    send(here, pack({"text": "x" * size}), [write])
    message, fds = receive(there)
    assert message == {"text": "x" * size}
    os.write(fds[0], b"through")
    assert os.read(read, 10) == b"through"
    close_all([read, write, *fds])


def test_peer_that_is_gone(pair):
    here, there = pair
    here.close()
    assert receive(there) == (None, [])


def test_ids():
    assert valid_id("0f9c-pod_1.container")
    for bad in ("", ".", "..", "a/b", "-a", "x" * 201, None, 3, "a\n"):
        assert not valid_id(bad)


def test_short_path_is_short_and_works(tmp_path):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with short_path(deep, "s") as path:
        assert len(path) < 60
        server.bind(path)
    assert (deep / "s").is_socket()
    server.close()
