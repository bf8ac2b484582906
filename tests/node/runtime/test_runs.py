"""Starting and following runs through lost zygotes and lost answers, against a sandbox that a test plays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from wasmlab.errors import SandboxError, WorkerLost
from wasmlab.node.runtime import runs as module
from wasmlab.node.runtime.runs import NotRecorded, RunId, Runtime
from wasmlab.sandbox import Outcome

RUN = RunId("u", "c", 0)
OUTCOME = Outcome(0, None, "", started_at=1.0, finished_at=2.0)


class FakeRun:
    def __init__(self, end: Any) -> None:
        self.end = end

    async def wait(self) -> Outcome:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


class FakeSandbox:
    """Answers from lists; an exception in a list is raised."""

    alive = True

    def __init__(
        self,
        *,
        start: list[Any] = (),  # type: ignore[assignment]
        attach: list[Any] = (),  # type: ignore[assignment]
        forget: list[Any] = (),  # type: ignore[assignment]
        listed: list[Any] = (),  # type: ignore[assignment]
    ) -> None:
        self.listed = list(listed)
        self.starts, self.attaches, self.forgets = list(start), list(attach), list(forget)
        self.started = 0

    async def start(self, *_: Any, **__: Any) -> Any:
        self.started += 1
        return _next(self.starts)

    async def attach(self, *_: Any) -> Any:
        return _next(self.attaches)

    async def forget(self, *_: Any) -> None:
        _next(self.forgets)

    async def list(self) -> Any:
        return _next(self.listed)


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(module, "_AGAIN_S", 0.001)
    return Runtime(tmp_path, workers=1, compiles=1)


def use(runtime: Runtime, sandbox: FakeSandbox) -> None:
    runtime._sandboxes["wasmtime"] = sandbox  # type: ignore[assignment]


async def start(runtime: Runtime) -> Any:
    async with asyncio.timeout(10):
        return await runtime.start("wasmtime", RUN, None, Path("a"), Path("l"))  # type: ignore[arg-type]


async def test_a_lost_zygote_that_had_begun_the_run_is_asked_for_it(runtime: Runtime) -> None:
    sandbox = FakeSandbox(start=[WorkerLost("gone")], attach=["run"])
    use(runtime, sandbox)
    assert await start(runtime) == "run"
    assert sandbox.started == 1


async def test_a_lost_zygote_that_had_not_is_asked_again_as_often_as_it_takes(runtime: Runtime) -> None:
    lost, unknown = [WorkerLost("gone")] * 4, [KeyError("u"), WorkerLost("gone"), KeyError("u")]
    use(runtime, FakeSandbox(start=[*lost[:3], "run"], attach=[*unknown, KeyError("u")]))
    assert await start(runtime) == "run"


async def test_a_run_that_exists_is_taken_up_and_never_begun_again(runtime: Runtime) -> None:
    sandbox = FakeSandbox(start=[SandboxError("exists", kind="FileExistsError")], attach=["run"])
    use(runtime, sandbox)
    assert await start(runtime) == "run"
    assert sandbox.started == 1


@pytest.mark.parametrize("kind", ["OSError", "PermissionError"])
async def test_what_the_machine_forbids_may_be_tried_again(runtime: Runtime, kind: str) -> None:
    use(runtime, FakeSandbox(start=[SandboxError("No space left on device", kind=kind)]))
    with pytest.raises(NotRecorded, match="No space left"):
        await start(runtime)


async def test_what_the_sandbox_refuses_is_final(runtime: Runtime) -> None:
    use(runtime, FakeSandbox(start=[SandboxError("no such id", kind="ValueError")]))
    with pytest.raises(SandboxError) as caught:
        await start(runtime)
    assert not isinstance(caught.value, NotRecorded)


async def test_an_outcome_is_found_through_two_lost_zygotes(runtime: Runtime) -> None:
    use(runtime, FakeSandbox(attach=[FakeRun(WorkerLost("gone again")), FakeRun(OUTCOME)]))
    async with asyncio.timeout(10):
        found = await runtime.outcome("wasmtime", RUN, FakeRun(WorkerLost("gone")))  # type: ignore[arg-type]
    assert found == OUTCOME


async def test_a_run_that_is_on_no_record_is_lost(runtime: Runtime) -> None:
    use(runtime, FakeSandbox(attach=[KeyError("u")]))
    with pytest.raises(WorkerLost):
        await runtime.outcome("wasmtime", RUN, FakeRun(WorkerLost("gone")))  # type: ignore[arg-type]


async def test_a_record_is_removed_through_lost_zygotes(runtime: Runtime) -> None:
    """Else it stays when its pod has gone, until the next agent."""
    sandbox = FakeSandbox(forget=[WorkerLost("gone"), WorkerLost("gone"), None])
    use(runtime, sandbox)
    async with asyncio.timeout(10):
        await runtime.forget("wasmtime", RUN)
    assert sandbox.forgets == []


async def test_a_record_that_may_not_go_is_left(runtime: Runtime) -> None:
    sandbox = FakeSandbox(forget=[SandboxError("has not ended"), None])
    use(runtime, sandbox)
    async with asyncio.timeout(10):
        await runtime.forget("wasmtime", RUN)
    assert sandbox.forgets == [None]


async def test_an_agent_starts_while_its_zygote_dies(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / str(RUN)).write_text("{}")
    use(runtime, FakeSandbox(listed=[WorkerLost("gone"), [str(RUN), "not-one-of-ours"]]))
    runtime.names = ("wasmtime",)
    async with asyncio.timeout(10):
        assert await runtime.recorded() == {RUN: "wasmtime"}


async def test_an_agent_starts_while_zygotes_die_but_not_for_ever(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    async def sandbox(engine: str) -> Any:
        tries.append(engine)
        raise SandboxError("it did not start")

    monkeypatch.setattr(runtime, "sandbox", sandbox)
    with pytest.raises(SandboxError, match="did not start"):
        await runtime.warm("wasmtime")
    assert len(tries) > 1
