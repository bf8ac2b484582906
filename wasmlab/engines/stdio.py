"""A guest's standard streams, as an engine adapter sees them.

Either three descriptors that are the guest's own, or (for logs) one pipe that carries both output streams as frames:
two pipes would lose the order in which a guest wrote to stdout and stderr.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

STDOUT, STDERR = 1, 2
HEADER = struct.Struct("=BI")


class Stdio(NamedTuple):
    """Descriptors for stdin, stdout and stderr; `framed` if the two outputs are one framed pipe."""

    stdin: int
    stdout: int
    stderr: int
    framed: bool = False


def write_frame(fd: int, stream: int, data: bytes) -> int:
    """Write `data` of `stream` (1 or 2) as one frame; return its length, or minus an errno."""
    if not data:
        return 0
    frame = memoryview(HEADER.pack(stream, len(data)) + data)
    try:
        while frame:
            frame = frame[os.write(fd, frame) :]
    except OSError as error:
        return -(error.errno or errno.EIO)
    return len(data)
