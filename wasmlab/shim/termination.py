"""The termination log of a Kubernetes container: where the kubelet looks for the reason of its end."""

from __future__ import annotations

import contextlib
import os

_LIMIT_BYTES = 4096


def leave_message(path: str | None, message: str) -> None:
    """Write the reason to the log at `path` (if the container has one), unless the guest wrote one itself."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size == 0:
                os.write(fd, message.encode()[:_LIMIT_BYTES])
        finally:
            os.close(fd)
