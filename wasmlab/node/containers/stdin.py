"""A container's own standard input (``stdin: true``): a FIFO in the pod's directory that `kubectl attach` writes to.

The sandbox keeps a writing end of it open, so that neither a client that leaves nor an agent that is restarted looks
like the end of the input to the module. With ``stdinOnce: true`` the first client's leaving *is* the end.

References
----------
v1.Container ``stdin``, ``stdinOnce``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.errors import SandboxError
from wasmlab.node.api.kubeapi import Json
from wasmlab.node.runtime import pipes
from wasmlab.node.runtime.runs import RunId, Runtime

if TYPE_CHECKING:
    from wasmlab.node.containers.container import ContainerTask


def path_of(directory: Path, container: str) -> Path:
    """Where a container's input comes in."""
    return directory / f"{container}.stdin"


@contextlib.contextmanager
def given(spec: Json, directory: Path) -> Iterator[Sequence[int]]:
    """Make the FIFO of a new attempt, if the container is to have input; give what `Runtime.start` takes.

    Raises
    ------
    OSError
        It cannot be made.
    """
    fds = _make(path_of(directory, spec["name"])) if spec.get("stdin") else ()
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def _make(path: Path) -> tuple[int, int]:
    path.unlink(missing_ok=True)  # whoever still writes to an earlier attempt must not write to this one
    os.mkfifo(path, 0o600)
    # Without O_NONBLOCK each would wait for the other; the module's end must block, or reads would fail.
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        keeping = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os.close(reading)
        raise
    os.set_blocking(reading, True)
    return reading, keeping


class Stdin:
    """The input of a running container, for one client.

    Parameters
    ----------
    runtime : Runtime
        Where it runs.
    container : ContainerTask
        The container.
    run_id : RunId
        Its present run.
    """

    def __init__(self, runtime: Runtime, container: ContainerTask, run_id: RunId) -> None:
        self._runtime = runtime
        self._container = container
        self._run_id = run_id
        self._fd = -1
        self._over = False
        self.wanted = bool(container.spec.get("stdin"))

    async def write(self, data: bytes, *, given_up: Callable[[], Awaitable[bool]]) -> None:
        """Give bytes to the module; nothing if it reads no more."""
        if self._over:
            return
        try:
            if self._fd < 0:
                path = path_of(self._container.log_path(self._run_id.attempt).parent, self._run_id.container)
                self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            await pipes.write(self._fd, data, given_up=given_up)
        except OSError:
            self._over = True  # the module has closed its input, or has ended

    async def end(self) -> None:
        """The client gives no more: with ``stdinOnce`` nobody will."""
        self._over = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.wanted and self._container.spec.get("stdinOnce"):
            with contextlib.suppress(SandboxError, KeyError):
                await self._runtime.close_stdin(self._container.engine, self._run_id)
