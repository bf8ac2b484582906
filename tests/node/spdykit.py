"""The client's side of SPDY/3.1, as kubectl speaks it, for tests: written apart from the server's."""

from __future__ import annotations

import struct
import zlib

from wasmlab.node.portforward.spdy import DICTIONARY


class Client:
    """Makes frames, and reads those of a server."""

    def __init__(self) -> None:
        self._out = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
        self._in = zlib.decompressobj(zdict=DICTIONARY)
        self._left = b""

    def _block(self, plain: bytes) -> bytes:
        return self._out.compress(plain) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def _headers(self, headers: dict[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        for word in (word for pair in headers.items() for word in pair):
            plain += struct.pack(">I", len(word)) + word.encode()
        return self._block(plain)

    def open(self, stream: int, **headers: str) -> bytes:
        """SYN_STREAM."""
        body = struct.pack(">IIH", stream, 0, 0) + self._headers(headers)
        return struct.pack(">II", 0x80030001, len(body)) + body

    def block_frame(self, stream: int, plain: bytes) -> bytes:
        """SYN_STREAM with any header block."""
        body = struct.pack(">IIH", stream, 0, 0) + self._block(plain)
        return struct.pack(">II", 0x80030001, len(body)) + body

    def headers(self, stream: int, **headers: str) -> bytes:
        """HEADERS."""
        body = struct.pack(">I", stream) + self._headers(headers)
        return struct.pack(">II", 0x80030008, len(body)) + body

    def read(self, data: bytes) -> list[tuple[int, int, object]]:
        """(kind, stream, content): kind 0 is data with (bytes, end), 2 a reply with its headers, else the body."""
        self._left += data
        found: list[tuple[int, int, object]] = []
        while len(self._left) >= 8:
            first, second = struct.unpack(">II", self._left[:8])
            size = second & 0xFFFFFF
            if len(self._left) < 8 + size:
                break
            body, self._left = self._left[8 : 8 + size], self._left[8 + size :]
            if not first >> 31:
                found.append((0, first, (body, bool(second >> 24 & 1))))
                continue
            assert first >> 16 == 0x8003
            kind, stream = first & 0xFFFF, struct.unpack(">I", body[:4])[0]
            if kind == 2:
                plain = self._in.decompress(body[4:])
                assert plain == b"\0\0\0\0"
                found.append((kind, stream, {}))
            else:
                found.append((kind, stream, body[4:]))
        return found
