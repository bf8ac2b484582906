"""Where processes listen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from wasmlab.node.host import sockets
from wasmlab.node.host.sockets import Listener

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 99 1 0 100
   1: B80D01200000000000000000010000FE:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 98 1 0 100
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the samples are from a little-endian machine")
def test_the_kernels_tables() -> None:
    assert list(sockets.parse(TCP)) == [Listener("127.0.0.1", 8080, 4711), Listener("0.0.0.0", 80, 4712)]
    assert [(one.host, one.port) for one in sockets.parse(TCP6)] == [("::1", 80), ("2001:db8::fe00:1", 81)]
    assert Listener("0.0.0.0", 1, 1).reachable == "127.0.0.1"
    assert Listener("::", 1, 1).reachable == "::1"
    assert Listener("192.0.2.1", 1, 1).reachable == "192.0.2.1"


def test_a_process_listens_where_it_holds_the_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        assert {port, other.getsockname()[1]} <= {one.port for one in sockets.listening([os.getpid()])}
        # A child that was given one of the two listens on that one, as a worker that is handed a socket does.
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[server.fileno()]
        )
        try:
            assert [(one.host, one.port) for one in sockets.listening([child.pid])] == [("127.0.0.1", port)]
        finally:
            child.communicate(b"\n", timeout=30)
        assert sockets.listening([child.pid]) == []
