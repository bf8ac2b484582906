"""ttrpc frames: the only part of the protocol that is not protobuf. Pure.

A frame is a header of ten bytes (length, stream id, type, flags; big endian) and the message.

References
----------
containerd/ttrpc ``PROTOCOL.md`` and ``channel.go`` (header layout, 4 MiB limit).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

REQUEST, RESPONSE, DATA = 1, 2, 3
MAX_MESSAGE_BYTES = 4 << 20
_HEADER = struct.Struct(">IIBB")


class Frame(NamedTuple):
    """One frame. `oversized` if the message was longer than allowed (its bytes were skipped and `payload` is empty)."""

    stream: int
    kind: int
    flags: int
    payload: bytes
    oversized: bool = False


def encode(stream: int, kind: int, payload: bytes, flags: int = 0) -> bytes:
    """Return the frame as bytes.

    Raises
    ------
    ValueError
        If the message is longer than ttrpc allows.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"a ttrpc message has at most {MAX_MESSAGE_BYTES} bytes, this one has {len(payload)}"
        )
    return _HEADER.pack(len(payload), stream, kind, flags) + payload


class Decoder:
    """Turns bytes, in whatever pieces they come, into frames.

    An oversized message is skipped and reported, as the Go implementation does: the connection stays usable.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; return the frames that are complete now."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= _HEADER.size:
            length, stream, kind, flags = _HEADER.unpack_from(buffer, at)
            if length > MAX_MESSAGE_BYTES:
                at += _HEADER.size
                here = min(length, len(buffer) - at)
                self._skip = length - here
                at += here
                frames.append(Frame(stream, kind, flags, b"", oversized=True))
                continue
            end = at + _HEADER.size + length
            if len(buffer) < end:
                break
            frames.append(Frame(stream, kind, flags, bytes(buffer[at + _HEADER.size : end])))
            at = end
        del buffer[:at]
        return frames
