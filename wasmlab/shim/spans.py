"""When what happened to a container, on CLOCK_MONOTONIC: one JSON line each in ``spans.jsonl`` of the shim's directory.

The file tells the same about this path as the node agent's tells about path 1, on the same clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wasmlab.shim.bundle import Bundle

NAME = "spans.jsonl"
# On a node that is not a lab nobody reads it: keep the last of it only.
_MAX_BYTES = 8 << 20

# Phases: what they are.
PHASES = {
    "shim_start": "containerd's `start` command asked, until the pod's shim answered",
    "shim_wait": "until containerd called Create",
    "create": "mount, find the module, look up or compile its code, hand it to a worker",
    "worker_ready": "the worker enters cgroup, network and mounts",
    "start_wait": "until containerd called Start",
    "start": "Start",
    "spawn": "the worker hears of it",
    "load": "load compiled code",
    "confine": "leave the host's files and privileges",
    "instantiate": "instantiate",
    "run": "run",
    "reaped": "the worker's process has ended",
    "deleted": "containerd has called Delete",
}


class Spans:
    """Collects the phases of one container."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._spans: list[tuple[str, int, int]] = []
        self.last_ns = 0

    def add(self, phase: str, start_ns: int, end_ns: int | None = None) -> None:
        """Add a phase; it ends now if no end is given."""
        end_ns = time.monotonic_ns() if end_ns is None else end_ns
        self._spans.append((phase, start_ns, end_ns))
        self.last_ns = max(self.last_ns, end_ns)

    def extend(self, spans: Iterable[tuple[str, int, int]]) -> None:
        """Add the phases that a worker reported."""
        for phase, start_ns, end_ns in spans:
            self.add(phase, start_ns, end_ns)

    def write(self, bundle: Bundle, engine: str, exit_code: int) -> None:
        """Append the line; a disk that does not take it is no reason to fail."""
        if not self._path:
            return
        about = bundle.annotations
        line = json.dumps(
            {
                "id": bundle.id,
                "uid": about.get("io.kubernetes.cri.sandbox-uid", ""),
                "namespace": about.get("io.kubernetes.cri.sandbox-namespace", ""),
                "name": about.get("io.kubernetes.cri.sandbox-name", ""),
                "container": about.get("io.kubernetes.cri.container-name", ""),
                "engine": engine,
                "exit_code": exit_code,
                "spans": self._spans,
            },
            separators=(",", ":"),
        )
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                # One write, so that lines of several shims do not mix.
                os.write(fd, line.encode() + b"\n")
                if os.fstat(fd).st_size > _MAX_BYTES:
                    os.replace(self._path, self._path + ".1")
            finally:
                os.close(fd)
