"""Which log a request of ``kubectl logs`` means, from where, and how it is read on while it grows and is rotated.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (``getContainerLogs``: query parameters and messages).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from wasmlab.node.api.times import parse_time
from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.pods.worker import PodWorker
from wasmlab.node.runtime.crilog import LogFilter, tail_offset
from wasmlab.node.status.states import State

_CHUNK_BYTES = 256 * 1024


class Tail:
    """Reads a log on and on, also when it is rotated meanwhile: to the end of the old file, then the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def skip_to_last(self, lines: int) -> None:
        """Begin with the last so many lines."""
        self._file.seek(tail_offset(self._file, lines))

    def read(self) -> bytes:
        """Return what is new; nothing if nothing is."""
        data = self._file.read(_CHUNK_BYTES)
        if data:
            return data
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return b""
        if now.st_ino == os.fstat(self._file.fileno()).st_ino:
            return b""
        # The writer may have written to the old file between the read and the look at the new one.
        data = self._file.read(_CHUNK_BYTES)
        if not data:
            self._file.close()
            self._file = self._path.open("rb")
            data = self._file.read(_CHUNK_BYTES)
        return data


class Options:
    """Query parameters of a log request."""

    def __init__(self, query: object) -> None:
        get: Callable[..., str | None] = getattr(query, "get")  # noqa: B009 (a multidict)
        self.follow = get("follow") == "true"
        self.previous = get("previous") == "true"
        self.timestamps = get("timestamps") == "true"
        tail = get("tail") or get("tailLines")  # `tail` is what it was called before v1
        self.tail = _integer(None if tail == "all" else tail, "tailLines")
        self.limit = _integer(get("limitBytes"), "limitBytes", least=1)
        seconds, moment = _integer(get("sinceSeconds"), "sinceSeconds", least=1), get("sinceTime")
        self.since: float | None = time.time() - seconds if seconds is not None else None
        if moment:
            if seconds is not None:
                raise ValueError("at most one of sinceTime and sinceSeconds may be given")
            try:
                self.since = parse_time(moment)
            except ValueError:
                raise ValueError(f"sinceTime {moment!r} is not an RFC 3339 time") from None
        stream = get("stream") or "All"
        streams = {"All": {"stdout", "stderr"}, "Stdout": {"stdout"}, "Stderr": {"stderr"}}
        if stream not in streams:
            raise ValueError(f"stream {stream!r} is not one of All, Stdout, Stderr")
        if self.tail is not None and stream != "All":
            raise ValueError("tailLines and a specific stream are mutually exclusive")
        self.streams = frozenset(streams[stream])

    def filter(self) -> LogFilter:
        """What to show of the lines."""
        return LogFilter(self.timestamps, self.since, self.limit, self.streams)


def _integer(text: str | None, name: str, least: int = 0) -> int | None:
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if value < least:
        raise ValueError(f"{name} must be {least} or more")
    return value


def choose(worker: PodWorker, container: ContainerTask, previous: bool) -> tuple[Path | None, str]:
    """The log file to read, or why there is none, in the kubelet's words."""
    record = container.record
    which = f'container "{record.name}" in pod "{worker.pod["metadata"]["name"]}"'
    # While a container waits for its restart its last attempt is what people want to read.
    attempt = record.restarts - 1 if previous else record.restarts
    if previous and record.state is State.CRASH_BACKOFF:
        attempt = record.restarts
    path = container.log_path(attempt)
    if attempt < 0 or (previous and not path.exists()):
        return None, f"previous terminated {which} not found"
    if not path.exists() and record.restarts > 0 and not previous and not record.running:
        earlier = container.log_path(record.restarts - 1)
        if earlier.exists():
            return earlier, ""
    if not path.exists():
        if record.running or record.terminated or worker.over:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # it has printed nothing yet
            return path, ""
        if record.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
            return None, f"{which} is waiting to start: trying and failing to pull image"
        return None, f"{which} is waiting to start: {record.reason}"
    return path, ""


def has_ended(worker: PodWorker, container: ContainerTask, run_id: str) -> bool:
    """Whether a run writes no more."""
    record = container.record
    return worker.over or record.run_id != run_id or not record.running
