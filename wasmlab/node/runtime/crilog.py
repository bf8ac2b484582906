"""The CRI log format, read: the sandbox writes it, ``kubectl logs`` shows it. Pure.

One line is ``<RFC 3339 time> <stdout|stderr> <P|F>[:tags] <text>``; P (partial) lines are joined by leaving out the
newline. What a reader asks for (since, timestamps, a limit in bytes) is a filter over lines; how many lines from the
end is a position in the file (`tail_offset`).

References
----------
``k8s.io/cri-client/pkg/logs/logs.go``; the design proposal "kubelet-cri-logging".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

_BLOCK_BYTES = 1 << 16


@dataclass
class LogFilter:
    """Turn raw CRI lines into what the reader asked for.

    Parameters
    ----------
    timestamps : bool
        Keep the time in front of each line.
    since_unix_s : float or None
        Leave out what is older.
    limit_bytes : int or None
        Stop after so many bytes; the last line may be cut, as the kubelet does.
    streams : frozenset of str
        Which of stdout and stderr.
    """

    timestamps: bool = False
    since_unix_s: float | None = None
    limit_bytes: int | None = None
    streams: frozenset[str] = frozenset({"stdout", "stderr"})
    exhausted: bool = False
    _rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> bytes:
        """Take more of the file, give back what of it is to be shown. An unfinished line is kept for the next call."""
        data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        out = b"".join(self._shown(line) for line in lines)
        return self._limited(out)

    def _limited(self, out: bytes) -> bytes:
        if self.limit_bytes is None:
            return out
        out = out[: self.limit_bytes]
        self.limit_bytes -= len(out)
        self.exhausted = self.limit_bytes <= 0
        return out

    def _shown(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) < 4:
            return b""  # truncated by a crash: nothing of it can be trusted
        time, stream, tag, text = parts
        if stream.decode("ascii", "replace") not in self.streams:
            return b""
        if self.since_unix_s is not None and _unix(time) < self.since_unix_s:
            return b""
        if tag.split(b":", 1)[0] == b"F":
            text += b"\n"
        return time + b" " + text if self.timestamps else text


@dataclass
class StreamSplitter:
    """Give back what the module wrote, stream by stream: what ``kubectl attach`` shows of a growing log."""

    _rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Take more of the file; return (``stdout`` or ``stderr``, bytes) in order, neighbors of one stream joined."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        found: list[tuple[str, bytes]] = []
        for line in lines:
            parts = line.split(b" ", 3)
            if len(parts) < 4:
                continue  # as in LogFilter
            stream = parts[1].decode("ascii", "replace")
            text = parts[3] + (b"\n" if parts[2].split(b":", 1)[0] == b"F" else b"")
            if found and found[-1][0] == stream:
                text = found.pop()[1] + text
            found.append((stream, text))
        return found


def _unix(time: bytes) -> float:
    text = time.decode("ascii", "replace")
    try:
        # Python reads up to six decimals; nanoseconds are cut, not rounded.
        head, _, tail = text.partition(".")
        digits = "".join(c for c in tail if c.isdigit())
        zone = tail[len(digits) :] if tail else ""
        whole = datetime.fromisoformat((head + (zone or "")).replace("Z", "+00:00"))
        return whole.timestamp() + (float("0." + digits) if digits else 0.0)
    except ValueError:
        return float("inf")


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where in the file the last `lines` full lines begin (partial ones belong to the next full one)."""
    file.seek(0, 2)
    end = position = file.tell()
    if lines <= 0:
        return end
    # Candidates are newlines that end a line whose tag is F. Read backwards block by block, keeping what is cut.
    data = b""
    while position > 0:
        step = min(_BLOCK_BYTES, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
        starts = list(_full_line_ends(data, first_is_cut=position > 0))
        # `starts` are ends of full lines within data; the text after the (lines+1)-th from the end is what is wanted.
        if len(starts) > lines:
            return position + starts[-lines - 1]
    return 0


def _full_line_ends(data: bytes, *, first_is_cut: bool) -> Iterator[int]:
    begin = 0
    while (newline := data.find(b"\n", begin)) != -1:
        line = data[begin:newline]
        if not (begin == 0 and first_is_cut):
            parts = line.split(b" ", 3)
            if len(parts) < 4 or parts[2].split(b":", 1)[0] == b"F":
                yield newline + 1
        begin = newline + 1
