"""Workers that need no Python: what they are given, what becomes of them, and what when their template is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.sandbox.conftest import SpecFactory, alive, children, until
from wasmlab.engines import CompileCache, wasmtime_runner
from wasmlab.errors import PrerequisiteError
from wasmlab.modules import hostprogram
from wasmlab.sandbox import AsyncSandbox, RunSpec, Sandbox, template

ENGINE = wasmtime_runner.NAME


def request(spec: RunSpec, **fields: object) -> dict[str, object]:
    return {"spec": spec.to_json(), "artifact": "/x.cwasm", "t0": 7, **fields}


def test_a_request_is_what_the_program_reads() -> None:
    raw = template.encode(
        request(
            RunSpec("m", "d", ("a", "bc"), (("N", "v"),), memory_bytes=5, oom_score_adj=-3), log_path="/l"
        )
    )
    assert raw is not None
    assert struct.unpack_from("=qqqq", raw) == (7, 5, -3, 1)
    assert raw[32:].startswith(
        b"/x.cwasm\0" + struct.pack("=q", 2) + b"a\0bc\0" + struct.pack("=q", 1) + b"N\0"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"cold": True},
        {"artifact": "/x.component.cwasm"},
        {"spec": RunSpec("m", "d", ("a",), fuel=0).to_json()},
        {"spec": RunSpec("m", "d", ("a",), data_bytes=0).to_json()},
        {"spec": RunSpec("m", "d", ("a",)).to_json() | {"something_new": [1]}},
        {"spec": RunSpec("m", "d", ("a" * 50_000,)).to_json()},
    ],
)
def test_what_it_does_not_know_is_for_another_worker(fields: dict[str, object]) -> None:
    assert template.encode(request(RunSpec("m", "d", ("a",)))) is not None
    assert template.encode(request(RunSpec("m", "d", ("a",))) | fields) is None


def test_without_the_program_there_is_no_such_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostprogram, "path_of", lambda *_, **__: Path("/nowhere"))
    with pytest.raises(PrerequisiteError, match="not compiled") as caught:
        wasmtime_runner.WasmtimeRunnerEngine()
    assert "wasmtime_runner" in (caught.value.remedy or "")


def test_of_another_wasmtime_there_is_no_such_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasmtime_runner, "package_version", lambda _: "51.0.0")
    with pytest.raises(PrerequisiteError, match=r"51\.0\.0"):
        wasmtime_runner.find()


@pytest.fixture
async def sandbox(tmp_path: Path, cache: CompileCache) -> AsyncIterator[AsyncSandbox]:
    wasmtime_runner.build()
    one = await AsyncSandbox.connect(ENGINE, tmp_path / "sandbox", cache=cache)
    yield one
    await one.shutdown()


async def usable(sandbox: AsyncSandbox) -> None:
    """Wait until runs go to workers of the template."""
    while not (await sandbox.stats())["runner"]:
        pass


def template_of(sandbox: AsyncSandbox) -> int:
    """The template's process id."""
    # A worker bears the template's name until it has taken its own.
    deadline = time.monotonic() + 30
    while len(every := [pid for pid in children(sandbox.pid) if comm(pid) == "wasm-template"]) != 1:
        assert time.monotonic() < deadline, every
        time.sleep(0.01)
    (found,) = every
    return found


def files_of(pid: int) -> list[str]:
    """The files that a process holds besides its standard streams."""
    targets = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed just now
            targets += [os.readlink(f"/proc/{pid}/fd/{fd}")] if int(fd) > 2 else []
    return [one for one in targets if one.startswith("/")]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


async def test_a_worker_is_a_small_process_of_its_own(
    sandbox: AsyncSandbox, spec: SpecFactory, tmp_path: Path
) -> None:
    await usable(sandbox)
    run = await sandbox.start("sleeps", spec("sleep", "60"), log_path=tmp_path / "log")
    assert "runner" in os.readlink(f"/proc/{run.pid}/exe")
    assert run.pid in children(sandbox.pid)
    # Of files only its own module, which its memory is mapped from; the rest are its socket and its pipe.
    until(lambda: all(one.endswith(".cwasm") for one in files_of(run.pid)) and len(files_of(run.pid)) <= 1)
    await run.kill(signal.SIGKILL)
    assert (await run.wait()).exit_code == 137


async def test_a_run_outlives_the_template_and_later_ones_have_the_next(
    sandbox: AsyncSandbox, spec: SpecFactory, tmp_path: Path
) -> None:
    await usable(sandbox)
    first = await sandbox.start("first", spec("sleep", "60"), log_path=tmp_path / "first")
    gone = template_of(sandbox)
    os.kill(gone, signal.SIGKILL)
    until(lambda: not alive(gone))
    # Nobody is refused meanwhile.
    outcome = await (await sandbox.start("second", spec("hello"), log_path=tmp_path / "second")).wait()
    assert outcome.exit_code == 0
    await usable(sandbox)
    assert template_of(sandbox) != gone
    third = await sandbox.start("third", spec("sleep", "60"), log_path=tmp_path / "third")
    assert "runner" in os.readlink(f"/proc/{third.pid}/exe")
    assert alive(first.pid)
    for run in (first, third):
        await run.kill(signal.SIGKILL)
        assert (await run.wait()).exit_code == 137


async def test_what_waits_for_a_lost_template_runs_all_the_same(
    sandbox: AsyncSandbox, spec: SpecFactory, tmp_path: Path
) -> None:
    await usable(sandbox)
    pid = template_of(sandbox)
    os.kill(pid, signal.SIGSTOP)
    starts = [
        asyncio.create_task(sandbox.start(f"run-{number}", spec("hello"), log_path=tmp_path / f"{number}"))
        for number in range(8)
    ]
    # The idle workers serve the first of them, if there are any yet; all others wait for the template.
    await asyncio.wait(starts, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
    with contextlib.suppress(ProcessLookupError):  # given up by the zygote already
        os.kill(pid, signal.SIGKILL)
    assert [(await (await start).wait()).exit_code for start in starts] == [0] * 8


def test_modules_are_kept_and_do_not_mix(
    cache: CompileCache, spec: SpecFactory, wat: Callable[[str], Path]
) -> None:
    wasmtime_runner.build()
    made = [
        wat(
            f"""(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1) (data (i32.const 0) "\\{number:02x}")
                (func (export "_start") (call $exit (i32.load8_u (i32.const 0)))))"""
        )
        for number in range(1, 11)
    ]
    with Sandbox(ENGINE, cache=cache) as one:
        for _ in range(3):
            codes = [one.run(spec(path)).exit_code for path in made]
            assert codes == list(range(1, 11))
