"""Another instance of a container's module, in the same sandbox: what ``kubectl exec``, probes and hooks run.

A module is one program: there is no shell beside it and nothing else to start. So "run a command in the container"
means here: run the module once more, with the command as its arguments, in a fresh process of the same engine, with the
environment, the directories and the limits that the container itself was given. Nothing is shared but the directories:
no memory, no descriptors. Such an instance is not on record; it ends when it is killed, and with the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from wasmlab.errors import SandboxError
from wasmlab.node.runtime.runs import RunId, Runtime
from wasmlab.node.status.records import ContainerRecord

if TYPE_CHECKING:
    from wasmlab.sandbox import Outcome, Run

_DRAIN_S = 1.0


class NotRunning(SandboxError):
    """The container whose module is to be run once more does not run."""


class Container(Protocol):
    """What is needed of the container."""

    record: ContainerRecord
    engine: str
    instances: set[Run]  # those that run beside it
    spent_ns: int  # the CPU time of those that have ended

    @property
    def current(self) -> RunId | None:
        """Its run, while it runs."""


class Node(Protocol):
    """What is needed of the node."""

    runtime: Runtime


async def start(
    node: Node, container: Container, command: Sequence[str], *, stdin: int, stdout: int, stderr: int
) -> Run:
    """Start another instance of a running container's module.

    Parameters
    ----------
    node : Services
        The node.
    container : ContainerTask
        The container; it must run.
    command : sequence of str
        The module's arguments: it sees ``(argv[0], *command)``, `argv[0]` as in the container.
    stdin, stdout, stderr : int
        Descriptors for it. The caller may close its own copies when this returns.

    Returns
    -------
    Run
        ``await run.wait()`` gives the `Outcome`, ``await run.kill(signal.SIGKILL)`` ends it.

    Raises
    ------
    NotRunning
        The container does not run.
    WasmlabError
        The instance cannot be started.
    """
    run_id = container.current
    if run_id is None:
        raise NotRunning(
            f"container {container.record.name} does not run",
            remedy="wait until it does: kubectl get pod shows its state",
        )
    try:
        # As it was started: its ConfigMaps may have changed since, its environment has not.
        spec = await asyncio.to_thread(node.runtime.recorded_spec, run_id)
    except KeyError as error:
        raise SandboxError(str(error.args[0]), remedy="delete the pod; a new one is on record") from error
    # The ports are the container's own module's.
    spec = replace(spec, argv=(*spec.argv[:1], *command), deadline_s=None, listen=())
    starting = asyncio.ensure_future(
        node.runtime.start_beside(container.engine, spec, (stdin, stdout, stderr))
    )
    try:
        run = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_unwanted)  # nobody may leave an instance behind that nobody knows
        raise
    container.instances.add(run)
    _keep(_discard_ended(container, run))
    if container.current != run_id:  # it ended meanwhile, and its end has seen none of this
        await _end(run)
    return run


async def end_all(container: Container) -> None:
    """End what runs beside a container; it has ended."""
    for run in list(container.instances):
        await _end(run)


def _unwanted(starting: asyncio.Future[Run]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _keep(_end(starting.result()))


def _keep(work: Coroutine[None, None, None]) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Future[None]] = set()


async def _discard_ended(container: Container, run: Run) -> None:
    with contextlib.suppress(SandboxError):
        container.spent_ns += round((await run.wait()).cpu_s * 1e9)
    container.instances.discard(run)


async def _end(run: Run) -> None:
    with contextlib.suppress(SandboxError):
        await run.kill(signal.SIGKILL)


@dataclass(frozen=True)
class Answer:
    """How an instance ended that was run to its end.

    Parameters
    ----------
    outcome : Outcome or None
        None if it was ended because its time was up.
    output : bytes
        The beginning of what it wrote to stdout and stderr.
    """

    outcome: Outcome | None
    output: bytes


async def run(
    node: Node,
    container: Container,
    command: Sequence[str],
    *,
    timeout_s: float | None,
    most_bytes: int = 10 << 10,
) -> Answer:
    """Run another instance to its end, or to the end of its time.

    Parameters
    ----------
    timeout_s : float or None
        It is killed after so long.
    most_bytes : int
        How much of its output is kept; the rest is read and dropped, so that it is never blocked.

    Raises
    ------
    NotRunning, WasmlabError
        As `start`.
    """
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)  # the guest's end: it must not see EAGAIN
    loop = asyncio.get_running_loop()
    kept = bytearray()
    ended = asyncio.Event()

    def readable() -> None:
        try:
            data = os.read(read, 1 << 16)
        except BlockingIOError:
            return
        kept.extend(data[: max(0, most_bytes - len(kept))])
        if not data:
            loop.remove_reader(read)
            ended.set()

    loop.add_reader(read, readable)
    run: Run | None = None
    try:
        try:
            async with asyncio.timeout(timeout_s):
                run = await start(node, container, command, stdin=null, stdout=write, stderr=write)
                os.close(write)
                write = -1
                outcome = await run.wait()
        except TimeoutError:
            return Answer(None, bytes(kept))
        # All it wrote is in the pipe by now; only reading it is left.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await ended.wait()
        return Answer(outcome, bytes(kept))
    finally:
        loop.remove_reader(read)
        for fd in (null, read, write):
            if fd >= 0:
                os.close(fd)
        if run is not None and not run.done:
            await asyncio.shield(_end(run))
