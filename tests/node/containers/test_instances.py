"""Another instance of a running container's module: on a real sandbox, with both engines."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wasmlab.node.containers import instances
from wasmlab.node.runtime.runs import RunId, Runtime
from wasmlab.node.status.records import ContainerRecord
from wasmlab.sandbox import Preopen, RunSpec

FIXTURES = Path(__file__).resolve().parents[3] / "data" / "wasm" / "fixtures"


class Lab:
    """A runtime, and containers that run in it."""

    def __init__(self, directory: Path) -> None:
        self.runtime = Runtime(directory / "sandbox", workers=1, compiles=1)
        self.directory = directory
        self.runs: list[Any] = []

    async def container(self, module: str, *args: str, engine: str = "wasmtime", **spec: Any) -> Any:
        """Start `module` as a container; it is expected to go on for a while."""
        path = FIXTURES / f"{module}.wasm"
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        wanted = RunSpec(str(path), digest, (module, *args), **spec)
        run_id = RunId("uid", f"c{len(self.runs)}", 0)
        artifact = await self.runtime.prepare(engine, wanted)
        run = await self.runtime.start(engine, run_id, wanted, artifact, self.directory / f"{run_id}.log")
        self.runs.append(run)
        return SimpleNamespace(
            record=ContainerRecord(run_id.container, "image"),
            engine=engine,
            current=run_id,
            instances=set(),
            spent_ns=0,
        )


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.runtime.aclose(kill=True)


async def left(sandbox: Any, runs: int) -> None:
    """Wait until so many modules run."""
    async with asyncio.timeout(20):
        while len((await sandbox.stats())["running"]) != runs:  # noqa: ASYNC110 (it tells only when asked)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("engine", ["wasmtime", "wasmer"])
async def test_it_runs_with_the_given_arguments_in_the_containers_sandbox(
    lab: Lab, tmp_path: Path, engine: str
) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "note").write_text("from the volume\n")
    mounts = (Preopen(str(tmp_path / "v"), "/data", read_only=True),)
    # It ends at once; what an instance needs of it is its record.
    container = await lab.container("readfile", "/data/note", engine=engine, preopens=mounts)
    answer = await instances.run(lab, container, ["/data/note"], timeout_s=30)
    assert answer.outcome is not None
    assert (answer.outcome.exit_code, answer.output) == (0, b"from the volume\n")
    missing = await instances.run(lab, container, ["/data/other"], timeout_s=30)
    assert missing.outcome is not None
    assert missing.outcome.exit_code == 2
    assert b"cannot read /data/other" in missing.output  # stderr counts too


async def test_the_environment_is_the_containers(lab: Lab) -> None:
    container = await lab.container("env", env=(("COLOR", "red"),))
    answer = await instances.run(lab, container, ["-x"], timeout_s=30)
    assert b"COLOR=red" in answer.output
    assert b"-x" in answer.output
    assert answer.output.count(b"COLOR") == 1


async def test_one_that_takes_too_long_is_ended(lab: Lab) -> None:
    container = await lab.container("loop")
    answer = await instances.run(lab, container, [], timeout_s=0.5)
    assert answer.outcome is None
    sandbox = await lab.runtime.sandbox("wasmtime")
    await left(sandbox, 1)
    assert not lab.runs[0].done


async def test_who_asked_may_give_up_and_nothing_stays(lab: Lab) -> None:
    container = await lab.container("loop")
    asking = asyncio.create_task(instances.run(lab, container, [], timeout_s=None))
    sandbox = await lab.runtime.sandbox("wasmtime")
    await left(sandbox, 2)
    assert len(container.instances) == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await left(sandbox, 1)


async def test_output_beyond_what_is_kept_is_dropped_and_does_not_block(lab: Lab) -> None:
    container = await lab.container("spam", "1")
    answer = await instances.run(lab, container, ["20000"], timeout_s=30, most_bytes=100)
    assert answer.outcome is not None
    assert answer.outcome.exit_code == 0
    assert len(answer.output) == 100


async def test_they_end_with_their_container(lab: Lab) -> None:
    container = await lab.container("loop")
    asking = asyncio.create_task(instances.run(lab, container, [], timeout_s=None))
    sandbox = await lab.runtime.sandbox("wasmtime")
    await left(sandbox, 2)
    await instances.end_all(container)
    answer = await asyncio.wait_for(asking, 20)
    assert answer.outcome is not None
    assert answer.outcome.exit_code == 137
    assert container.instances == set()


async def test_a_container_that_does_not_run_has_no_sandbox(lab: Lab) -> None:
    container = await lab.container("loop")
    container.current = None
    with pytest.raises(instances.NotRunning, match="c0 does not run"):
        await instances.run(lab, container, [], timeout_s=5)


async def test_what_runs_beside_is_not_on_record(lab: Lab) -> None:
    container = await lab.container("loop")
    await instances.run(lab, container, [], timeout_s=0.1)
    assert list(await lab.runtime.recorded()) == [RunId("uid", "c0", 0)]
    await lab.runs[0].kill(signal.SIGKILL)
