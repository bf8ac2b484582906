"""SPDY/3.1 as Kubernetes speaks it inside a WebSocket to forward ports: frames to bytes and back. Pure.

What port forwarders do not go by is read over: settings, priorities, flow control (they have none; the connection of
the WebSocket has its own), the notice of an end that is seen anyway. Header blocks are one zlib stream per direction,
so each is decompressed, wanted or not.

References
----------
SPDY Protocol, draft 3.1, 2.2 (framing), 2.6 (control frames), 2.6.10 (name/value header block and its dictionary).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_VERSION = 3
_CONTROL = 0x80000000
_FIN = 0x01
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8
_STREAM_ID = 0x7FFFFFFF
# Larger than whatever a client sends at once, small enough for many clients.
MOST_BYTES = 1 << 20
_MOST_HEADER_BYTES = 1 << 16

PROTOCOL_ERROR, REFUSED = 1, 3  # why a stream is reset, or a connection ended

# The words that the protocol's designers expected, each with its length, and then their text without: 2.6.10.1.
_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status
""".split()  # noqa: SIM905 (a list would say the same in sixty lines)
_PAIRS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS, *_PAIRS)) + _TEXT.encode()
)


class ProtocolError(Exception):
    """What came is not SPDY/3.1; the connection cannot go on."""


@dataclass(frozen=True)
class Opened:
    """The client opened a stream."""

    stream: int
    headers: Mapping[str, str]
    end: bool


@dataclass(frozen=True)
class Data:
    """Bytes of a stream; with `end` the last ones."""

    stream: int
    data: bytes
    end: bool


@dataclass(frozen=True)
class Reset:
    """The client has given a stream up."""

    stream: int


@dataclass(frozen=True)
class Ping:
    """To be sent back as it is."""

    number: int


Event = Opened | Data | Reset | Ping


@dataclass
class Connection:
    """The server's side of one connection: what has come, and how to say what is to go."""

    _buffer: bytearray = field(default_factory=bytearray)
    _inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _deflate: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take in what came; frames may come in pieces, or many at once.

        Raises
        ------
        ProtocolError
            The connection is of no use any more.
        """
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            size = second & 0xFFFFFF
            if size > MOST_BYTES:
                raise ProtocolError(f"a frame of {size} bytes; {MOST_BYTES} are the most")
            if len(self._buffer) < 8 + size:
                return
            body = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            end = bool(second >> 24 & _FIN)
            if not first & _CONTROL:
                yield Data(first, body, end)
                continue
            if first >> 16 & 0x7FFF != _VERSION:
                raise ProtocolError(f"version {first >> 16 & 0x7FFF} of SPDY; it is to be {_VERSION}")
            event = self._control(first & 0xFFFF, body, end)
            if event is not None:
                yield event

    def _control(self, kind: int, body: bytes, end: bool) -> Event | None:
        try:
            if kind == _SYN_STREAM:
                stream = struct.unpack_from(">I", body)[0] & _STREAM_ID
                return Opened(stream, self._headers(body[10:]), end)
            if kind in (_SYN_REPLY, _HEADERS):
                self._headers(body[4:])
            elif kind == _RST_STREAM:
                return Reset(struct.unpack_from(">I", body)[0] & _STREAM_ID)
            elif kind == _PING:
                return Ping(struct.unpack(">I", body)[0])
        except struct.error:
            raise ProtocolError(f"a control frame of type {kind} is too short") from None
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _MOST_HEADER_BYTES)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be decompressed: {error}") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"a header block of more than {_MOST_HEADER_BYTES} bytes")
        (count,), at = struct.unpack_from(">I", plain), 4
        found = {}
        for _ in range(count):
            name, at = _text(plain, at)
            found[name.lower()], at = _text(plain, at)
        return found

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        # No header is wanted, but a block has to be there.
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _frame(_SYN_REPLY, struct.pack(">I", stream) + block)


def _text(plain: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from(">I", plain, at)
    if at + 4 + size > len(plain):
        raise ProtocolError("a header block ends within a header")
    return plain[at + 4 : at + 4 + size].decode("latin-1"), at + 4 + size


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", _CONTROL | _VERSION << 16 | kind, len(body)) + body


def data(stream: int, content: bytes, *, end: bool = False) -> bytes:
    """Bytes of a stream; with `end` its last."""
    return struct.pack(">II", stream, (_FIN if end else 0) << 24 | len(content)) + content


def reset(stream: int, why: int) -> bytes:
    """Give a stream up."""
    return _frame(_RST_STREAM, struct.pack(">II", stream, why))


def ping(number: int) -> bytes:
    """Answer a ping."""
    return _frame(_PING, struct.pack(">I", number))


def go_away(last: int, why: int) -> bytes:
    """Say that the connection ends."""
    return _frame(_GOAWAY, struct.pack(">II", last, why))
