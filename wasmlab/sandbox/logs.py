"""From a guest's output to a log file in the CRI format, with memory that is bounded whatever the guest prints.

``2026-11-24T09:00:00.123456789Z stdout F a whole line`` and ``... stdout P a piece of a line``: a line longer than
16 KiB is cut into pieces, and what stands without a newline for 0.2 s, or at the end, is a piece too. So joining
pieces gives exactly the bytes that the guest wrote.

References
----------
Kubernetes ``design-proposals/node/kubelet-cri-logging.md``; containerd ``internal/cri/io/logger.go`` (16 KiB).
"""

from __future__ import annotations

import os
import time

from wasmlab.engines.stdio import HEADER, STDERR, STDOUT

_MAX_LINE_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024
_NAMES = {STDOUT: b"stdout", STDERR: b"stderr"}


def timestamp(now_ns: int) -> bytes:
    """Return `now_ns` (unix time) as RFC 3339 with nanoseconds, in UTC."""
    seconds, fraction = divmod(now_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % fraction


class Formatter:
    """Makes CRI lines of frames; pure but for the clock that is given to it."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._partial = {STDOUT: b"", STDERR: b""}

    @property
    def pending(self) -> bool:
        """Whether a piece of a line waits for its end."""
        return any(self._partial.values())

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """Take bytes of the framed pipe, return finished log lines."""
        raw = self._raw
        raw += data
        stamp = timestamp(now_ns)
        out: list[bytes] = []
        at, size = 0, len(raw)
        header = HEADER.size
        while size - at >= header:
            stream, length = HEADER.unpack_from(raw, at)
            # A frame may be larger than what has arrived: its bytes are taken as they come.
            available = min(length, size - at - header)
            if available < length and available == 0:
                break
            content = bytes(raw[at + header : at + header + available])
            self._lines(stream, content, stamp, out)
            if available < length:
                at += header + available
                del raw[:at]
                raw[:0] = HEADER.pack(stream, length - available)
                return b"".join(out)
            at += header + length
        del raw[:at]
        return b"".join(out)

    def flush(self, now_ns: int) -> bytes:
        """Return what waits for the end of its line, as pieces."""
        stamp = timestamp(now_ns)
        out = []
        for stream, partial in self._partial.items():
            if partial:
                out.append(b"%s %s P %s\n" % (stamp, _NAMES[stream], partial))
                self._partial[stream] = b""
        return b"".join(out)

    def _lines(self, stream: int, content: bytes, stamp: bytes, out: list[bytes]) -> None:
        name = _NAMES.get(stream, b"stdout")
        *lines, rest = (self._partial[stream] + content).split(b"\n")
        for line in lines:
            while len(line) > _MAX_LINE_BYTES:
                out.append(b"%s %s P %s\n" % (stamp, name, line[:_MAX_LINE_BYTES]))
                line = line[_MAX_LINE_BYTES:]
            out.append(b"%s %s F %s\n" % (stamp, name, line))
        while len(rest) > _MAX_LINE_BYTES:
            out.append(b"%s %s P %s\n" % (stamp, name, rest[:_MAX_LINE_BYTES]))
            rest = rest[_MAX_LINE_BYTES:]
        self._partial[stream] = rest


class LogPump:
    """Reads one run's framed pipe, writes its log file.

    When the disk is full the pump is `blocked`: it keeps what it has (64 KiB or so), reads no more, so that the guest
    waits in its write, and is tried again by the zygote.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost_bytes = 0
        self.first_byte_ns: int | None = None
        self.file = self._open()
        self.pipe, self.guest_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.pipe, False)
        self.ended = False
        self._format = Formatter()
        self._waiting = b""

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    @property
    def blocked(self) -> bool:
        """Whether the log file does not take what was read."""
        return bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """How much was read that the log file has not taken; more may be in the pipe."""
        return len(self._waiting)

    @property
    def pending(self) -> bool:
        """Whether a piece of a line waits for its end."""
        return self._format.pending

    def pump(self) -> bool:
        """Move one portion; returns False when there is nothing more to read now (see `ended`)."""
        if self._waiting and not self.retry():
            return False
        try:
            data = os.read(self.pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            self._write(self._format.flush(time.time_ns()))
            return False
        if self.first_byte_ns is None:
            self.first_byte_ns = time.monotonic_ns()
        self._write(self._format.feed(data, time.time_ns()))
        return not self._waiting

    def flush(self) -> None:
        """Write the unfinished line as a piece."""
        if not self._waiting:
            self._write(self._format.flush(time.time_ns()))

    def retry(self) -> bool:
        """Try again to write what the disk did not take; True if all of it is written."""
        self._write(b"")
        return not self._waiting

    def reopen(self) -> None:
        """Go on in a new file of the same name (the old one was renamed)."""
        fresh = self._open()
        os.close(self.file)
        self.file = fresh

    def _write(self, data: bytes) -> None:
        data = self._waiting + data
        while data:
            try:
                data = data[os.write(self.file, data) :]
            except OSError:
                break
        self._waiting = data

    def close_guest_end(self) -> None:
        """Close our copy of the guest's end, or the pipe would never end."""
        if self.guest_end >= 0:
            os.close(self.guest_end)
            self.guest_end = -1

    def close(self) -> None:
        """Give up what is still unwritten (counted) and close."""
        self.lost_bytes += len(self._waiting)
        self._waiting = b""
        self.close_guest_end()
        os.close(self.pipe)
        os.close(self.file)
