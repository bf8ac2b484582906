"""The node's side of the sandbox: engines by name, compiled modules, runs that outlive the agent.

An attempt of a container has one id, ``<pod uid>.<container>.<attempt>``, and the sandbox writes it down before the
module starts and refuses it afterwards. So the sandbox's records are the node's ledger: what ran is known to a new
agent, and nothing runs twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wasmlab.engines import wasmtime_runner
from wasmlab.errors import SandboxError, Unsupported, WasmlabError, WorkerLost
from wasmlab.node import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wasmlab.engines.cache import CompileCache
    from wasmlab.sandbox import AsyncSandbox, Outcome, Run, RunSpec

# Failures of the machine and not of the run: the types that an OSError has by its errno.
_MACHINE = frozenset(
    {"OSError", "FileNotFoundError", "PermissionError", "BlockingIOError", "InterruptedError"}
)
_AGAIN_S = 0.2
_FORGET_TRIES = 20
_START_TRIES = 5

T = TypeVar("T")


@dataclass(frozen=True)
class RunId:
    """One attempt of one container."""

    uid: str
    container: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.uid}.{self.container}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> RunId | None:
        """Read it back; None for an id that somebody else made."""
        parts = text.split(".")
        if len(parts) != 3 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]))


class NotRecorded(SandboxError):
    """The sandbox could not take a run because the machine would not let it (a full disk, no descriptors): nothing was
    begun, and the same run may be tried again."""


class Runtime:
    """Engines of this node.

    Parameters
    ----------
    directory : Path
        Where the sandboxes keep their sockets and records.
    workers : int
        Idle workers per engine.
    compiles : int
        How many modules may be compiled at once.
    """

    def __init__(self, directory: Path, *, workers: int, compiles: int, starts: int = 16) -> None:
        from wasmlab.engines import CompileCache, pod_names

        self.names: tuple[str, ...] = pod_names()
        self._directory = directory
        self._workers = workers
        self._cache: CompileCache = CompileCache()
        self._compiling = asyncio.Semaphore(compiles)
        self._starting = asyncio.Semaphore(starts)
        self._sandboxes: dict[str, AsyncSandbox] = {}
        self._connecting: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in self.names}

    async def sandbox(self, engine: str) -> AsyncSandbox:
        """The sandbox of an engine, started or found running.

        Raises
        ------
        Unsupported
            There is no such engine here.
        """
        if engine not in self._connecting:
            raise Unsupported(
                f"this node has no engine {engine!r}",
                remedy=f"one of {', '.join(self.names)}",
                capability="engine",
            )
        found = self._sandboxes.get(engine)
        if found is not None and found.alive:
            return found
        from wasmlab.sandbox import AsyncSandbox  # looked up only when there is something to make

        async with self._connecting[engine]:
            found = self._sandboxes.get(engine)
            if found is None or not found.alive:
                found = await AsyncSandbox.connect(
                    engine, self._directory, workers=self._workers, cache=self._cache
                )
                self._sandboxes[engine] = found
            return found

    async def prepare(self, engine: str, spec: RunSpec) -> Path:
        """Return the compiled form of the spec's module, compiling it if need be; the loop goes on meanwhile.

        Raises
        ------
        InvalidModule, Unsupported
            The engine refuses the module, or cannot do what the spec asks for.
        """
        from wasmlab.engines import get

        adapter = get(engine)
        adapter.check(spec)
        found = self._cache.peek(adapter, spec)
        if found is not None:
            return found
        async with self._compiling:
            return await asyncio.to_thread(self._cache.artifact, adapter, spec.module, spec.digest, spec=spec)

    async def start(
        self,
        engine: str,
        run_id: RunId,
        spec: RunSpec,
        artifact: Path,
        log_path: Path,
        *,
        stdin: Sequence[int] = (),
    ) -> Run:
        """Start a run that has never been started before; `stdin` as `wasmlab.node.containers.stdin.given` has it.

        Raises
        ------
        NotRecorded
            Nothing was begun; it may be tried again.
        SandboxError
            The sandbox refuses it.
        """
        while True:
            sandbox = await self._sandbox_now(engine)
            try:
                async with self._starting:
                    return await sandbox.start(
                        str(run_id), spec, log_path=log_path, fds=stdin, artifact=artifact
                    )
            except WorkerLost:
                # The zygote died under it. Whether the run was begun is on record; only if not may it be begun again.
                with contextlib.suppress(KeyError, WorkerLost):
                    return await self.attach(engine, run_id)
            except SandboxError as error:
                kind = error.context.get("kind")
                if kind == "FileExistsError":
                    # Begun by a request whose answer was lost. It is never begun twice: go on with the one there is.
                    with contextlib.suppress(KeyError, WorkerLost):
                        return await self.attach(engine, run_id)
                elif kind in _MACHINE:
                    raise NotRecorded(error.message, remedy=error.remedy, kind=kind) from error
                else:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def _sandbox_now(self, engine: str) -> AsyncSandbox:
        try:
            return await self.sandbox(engine)
        except (SandboxError, OSError) as error:
            raise NotRecorded(f"the {engine} sandbox cannot be had: {error}") from error

    async def start_beside(self, engine: str, spec: RunSpec, fds: tuple[int, int, int]) -> Run:
        """Start a run that is not recorded: it ends with this agent (a probe, a hook, ``kubectl exec``).

        Raises
        ------
        WasmlabError
            It cannot be started.
        """
        artifact = await self.prepare(engine, spec)
        sandbox = await self.sandbox(engine)
        return await sandbox.start(
            f"beside-{uuid.uuid4().hex}", spec, fds=fds, record=False, artifact=artifact
        )

    def recorded_spec(self, run_id: RunId) -> RunSpec:
        """What a recorded run was told to run.

        Raises
        ------
        KeyError
            It is not on record, or the record cannot be read.
        """
        from wasmlab.sandbox import RunSpec, records

        try:
            return RunSpec.from_json(records.read(self._directory / "runs" / str(run_id))["spec"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KeyError(f"no record of the run {run_id}: {error}") from error

    async def outcome(self, engine: str, run_id: RunId, run: Run) -> Outcome:
        """Wait for a run's end, through the loss of its zygote (the next one knows what is known).

        Raises
        ------
        SandboxError
            Nothing is known.
        """
        while True:
            try:
                return await run.wait()
            except WorkerLost as error:
                log.warning("lost a zygote", engine=engine, run=run_id, error=error.message)
                try:
                    run = await self.attach(engine, run_id)
                except KeyError:
                    raise error from None

    def started_at(self, run_id: RunId) -> float | None:
        """When a recorded run began, unix seconds, if that was written down."""
        from wasmlab.sandbox import records

        try:
            return float(records.read(self._directory / "runs" / str(run_id))["started_at"])
        except (OSError, ValueError, KeyError):
            return None

    async def recorded(self) -> dict[RunId, str]:
        """All runs that are on record, with their engines."""
        found: dict[RunId, str] = {}
        runs = self._directory / "runs"
        # Only of engines that have runs: there is no reason to start a zygote for each.
        wanted = _engines_of(runs) if runs.is_dir() else set()
        for engine in self.names if None in wanted else [name for name in self.names if name in wanted]:
            for text in await self._listed(engine):
                run_id = RunId.parse(text)
                if run_id is None:
                    log.warning("a run that is not this node's", id=text, engine=engine)
                else:
                    found[run_id] = engine
        return found

    async def warm(self, engine: str) -> None:
        """Have an engine's sandbox up before the first pod asks for it, and the program of ``wasmtime-runner``.

        Raises
        ------
        Unsupported
            There is no such engine here.
        SandboxError
            It does not start, however often it is tried.
        """
        try:
            await asyncio.to_thread(wasmtime_runner.build)
        except WasmlabError as error:
            log.warning("pods cannot have an engine", engine=wasmtime_runner.NAME, error=error.message)
        await self._insist(engine, lambda sandbox: sandbox.stats())

    async def _listed(self, engine: str) -> list[str]:
        return await self._insist(engine, lambda sandbox: sandbox.list())

    async def _insist(self, engine: str, ask: Callable[[AsyncSandbox], Awaitable[T]]) -> T:
        """Ask a sandbox while an agent starts: a zygote that dies just then must not take the agent with it."""
        for left in reversed(range(_START_TRIES)):
            try:
                return await ask(await self.sandbox(engine))
            except SandboxError as error:
                if left == 0:
                    raise
                log.warning("the sandbox does not work; trying on", engine=engine, error=error.message)
            await asyncio.sleep(_AGAIN_S)
        raise AssertionError("unreachable")

    async def attach(self, engine: str, run_id: RunId) -> Run:
        """Take up a recorded run, through the loss of zygotes.

        Raises
        ------
        KeyError
            It is not on record.
        """
        while True:
            try:
                return await (await self._sandbox_now(engine)).attach(str(run_id))
            except WorkerLost as error:
                log.debug("lost a zygote while asking it", run=run_id, error=error.message)
            except NotRecorded as error:
                # No zygote can be had now: what became of the run will be known later.
                log.warning("cannot ask for a run; trying on", run=run_id, error=error.message)
            await asyncio.sleep(_AGAIN_S)

    async def reopen_log(self, engine: str, run_id: RunId) -> None:
        """Have a running module's output go to a new file under the name of its log."""
        await (await self.sandbox(engine)).reopen_log(str(run_id))

    async def close_stdin(self, engine: str, run_id: RunId) -> None:
        """Let a running module's input be at its end."""
        await (await self.sandbox(engine)).close_stdin(str(run_id))

    async def forget(self, engine: str, run_id: RunId) -> None:
        """Remove the record of a run that has ended. What cannot be removed now is removed by the next agent."""
        error: Exception | None = None
        for _ in range(_FORGET_TRIES):
            try:
                await (await self._sandbox_now(engine)).forget(str(run_id))
                return
            except (WorkerLost, NotRecorded) as lost:  # its zygote died; the next one keeps the same records
                error = lost
                await asyncio.sleep(_AGAIN_S)
            except (SandboxError, KeyError) as refused:
                error = refused
                break
        log.warning("cannot forget a run", id=run_id, error=error)

    @property
    def zygotes(self) -> tuple[int, ...]:
        """Process ids of the engines' zygotes that this agent is connected to."""
        return tuple(sandbox.pid for sandbox in self._sandboxes.values() if sandbox.alive)

    async def aclose(self, *, kill: bool) -> None:
        """Let go of the sandboxes; with `kill`, end whatever runs in them."""
        for sandbox in self._sandboxes.values():
            try:
                await (sandbox.shutdown() if kill else sandbox.aclose())
            except SandboxError as error:
                log.warning("closing a sandbox", error=error)


def _engines_of(runs: Path) -> set[str | None]:
    """The engines that have runs on record; None among them if a record does not say."""
    from wasmlab.sandbox import records

    found: set[str | None] = set()
    for path in runs.iterdir():
        try:
            found.add(records.read(path).get("engine"))
        except OSError:
            found.add(None)
    return found
