"""Many runs over one connection; clients and zygotes that die."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.engines.adapters import BINDINGS, chosen
from wasmlab.errors import SandboxError, Unsupported, WorkerLost
from wasmlab.sandbox import AsyncSandbox, Preopen, records


@pytest.fixture(scope="module", params=BINDINGS)
def engine(request):
    with chosen(request.param) as name:
        yield name


@pytest.fixture
async def connect(engine, cache, tmp_path):
    """connect() -> a connection to one zygote in tmp_path; everything is ended afterwards."""
    made = []

    async def make(**options) -> AsyncSandbox:
        one = await AsyncSandbox.connect(engine, tmp_path / "z", cache=cache, **{"linger_s": 5.0, **options})
        made.append(one)
        return one

    yield make
    for one in made:
        if one.alive:
            await one.shutdown()
            break
    for one in made:
        await one.aclose()


async def until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def contents(path: Path, stream: str = "stdout") -> bytes:
    """Join what a CRI log holds of a stream."""
    out = b""
    for line in path.read_bytes().splitlines(keepends=True):
        _, name, tag, rest = line.split(b" ", 3)
        if name == stream.encode():
            out += rest if tag == b"F" else rest[:-1]
    return out


async def test_log_has_the_order_of_the_guest(connect, spec, tmp_path):
    sandbox = await connect()
    for number in range(5):
        run = await sandbox.start(f"r{number}", spec("hello"), log_path=tmp_path / f"{number}.log")
        assert (await run.wait()).exit_code == 0
        lines = (tmp_path / f"{number}.log").read_text().splitlines()
        expected = [
            ["stdout", "F", "hello from stdout!"],
            ["stderr", "F", "hello from stderr!"],
            ["stdout", "F", "Args are: []"],
        ]
        seen = [line.split(" ", 3)[1:] for line in lines]
        if sandbox.engine.capabilities.stream_order:
            assert seen == expected
        else:
            assert sorted(seen) == sorted(expected)
            assert seen.index(expected[0]) < seen.index(expected[2])
        assert all(len(line.split()[0]) == len("2026-11-24T09:00:00.123456789Z") for line in lines)


async def test_outcome_is_on_disk_when_wait_returns(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("one", spec("exit", "3"), log_path=tmp_path / "log")
    outcome = await run.wait()
    path = tmp_path / "z" / "runs" / "one"
    record = records.read(path)
    assert record["outcome"]["exit_code"] == 3 == outcome.exit_code
    assert record["pid"] > 0
    assert record["spec"]["argv"] == ["exit.wasm", "3"]
    assert (path.stat().st_mode & 0o777) == 0o600
    assert (path.parent.stat().st_mode & 0o777) == 0o700
    assert {span.phase for span in outcome.spans} >= {"spawn", "run", "reaped"}


async def test_an_id_is_never_run_twice(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("same", spec("exit", "0"), log_path=tmp_path / "log")
    with pytest.raises(SandboxError, match="exists already"):
        await sandbox.start("same", spec("exit", "0"), log_path=tmp_path / "log2")
    await run.wait()
    with pytest.raises(SandboxError, match="exists already"):
        await sandbox.start("same", spec("exit", "0"), log_path=tmp_path / "log2")
    assert not (tmp_path / "log2").exists()
    await sandbox.forget("same")
    assert (
        await (await sandbox.start("same", spec("exit", "1"), log_path=tmp_path / "log")).wait()
    ).exit_code == 1


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "-x", ".x", "a\n", "x" * 201])
async def test_bad_ids_are_refused(connect, spec, tmp_path, bad):
    sandbox = await connect()
    with pytest.raises(SandboxError, match="run id"):
        await sandbox.start(bad, spec("exit", "0"), log_path=tmp_path / "log")


async def test_logs_can_be_followed_while_the_guest_runs(connect, spec, tmp_path):
    sandbox = await connect()
    log = tmp_path / "log"
    run = await sandbox.start("ticks", spec("ticker", "100", "50"), log_path=log)
    await until(lambda: log.read_bytes().count(b"\n") >= 3)
    assert not run.done
    await run.kill(signal.SIGTERM)
    outcome = await run.wait()
    assert (outcome.exit_code, outcome.trap, outcome.message) == (143, None, "terminated by SIGTERM")
    assert contents(log).startswith(b"tick 0\ntick 1\ntick 2\n")


async def test_kill_is_told_as_kill(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("sleeper", spec("sleep", "60"), log_path=tmp_path / "log")
    await run.kill(signal.SIGKILL)
    outcome = await run.wait()
    assert (outcome.exit_code, outcome.trap) == (137, None)
    await run.kill(signal.SIGKILL)  # it has ended: nothing happens


async def test_a_looping_guest_dies_of_sigterm(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("loop", spec("loop"), log_path=tmp_path / "log")
    await asyncio.sleep(0.2)
    await run.kill(signal.SIGTERM)
    assert (await run.wait()).exit_code == 143


async def test_much_output_is_logged_whole(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("spam", spec("spam", "20000"), log_path=tmp_path / "log")
    other = await sandbox.start("other", spec("exit", "0"), log_path=tmp_path / "log2")
    assert (await other.wait()).exit_code == 0
    assert (await run.wait()).exit_code == 0
    assert contents(tmp_path / "log").count(b"\n") == 20000


async def test_client_that_goes_away_finds_its_runs_again(connect, spec, tmp_path, helpers):
    first = await connect()
    running = await first.start("running", spec("sleep", "60"), log_path=tmp_path / "a")
    quick = await first.start("ended", spec("exit", "7"), log_path=tmp_path / "b")
    await quick.wait()
    pid = running.pid
    await first.aclose()
    with pytest.raises(WorkerLost):
        await running.wait()
    assert helpers.alive(pid)
    second = await connect()
    assert sorted(await second.list()) == ["ended", "running"]
    assert (await (await second.attach("ended")).wait()).exit_code == 7
    again = await second.attach("running")
    assert again.pid == pid
    assert not again.done
    await again.kill(signal.SIGTERM)
    assert (await again.wait()).exit_code == 143
    with pytest.raises(KeyError):
        await second.attach("unknown")
    await second.forget("ended")
    assert await second.list() == ["running"]


async def test_client_killed_in_its_process_leaves_the_run_running(
    engine, cache, spec, tmp_path, connect, helpers
):
    code = """
import asyncio, sys
from pathlib import Path
from wasmlab.engines import CompileCache
from wasmlab.sandbox import AsyncSandbox
from wasmlab.sandbox.direct import module_spec
async def main(engine, directory, cache, module):
    sandbox = await AsyncSandbox.connect(engine, Path(directory), cache=CompileCache(Path(cache)), linger_s=5.0)
    await sandbox.start("survivor", module_spec(Path(module), ("sleep", "1.5")), log_path=directory + "/log")
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main(*sys.argv[1:]))
"""
    argv = [
        sys.executable,
        "-c",
        code,
        engine,
        str(tmp_path / "z"),
        str(cache.root),
        str(helpers.fixtures / "sleep.wasm"),
    ]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert await child.stdout.readline() == b"started\n"
    child.kill()
    await child.wait()
    sandbox = await connect()
    run = await sandbox.attach("survivor")
    assert (await run.wait()).exit_code == 0


async def test_unrecorded_run_ends_with_its_client(connect, spec, tmp_path, helpers):
    first = await connect()
    run = await first.start("brief", spec("sleep", "60"), log_path=tmp_path / "a", record=False)
    pid = run.pid
    await first.aclose()
    await until(lambda: not helpers.alive(pid))
    second = await connect()
    assert await second.list() == []
    assert not (tmp_path / "z" / "runs" / "brief").exists()


async def test_zygote_killed_takes_its_workers_and_says_what_was_lost(connect, spec, tmp_path, helpers):
    sandbox = await connect()
    ended = await sandbox.start("ended", spec("exit", "5"), log_path=tmp_path / "a")
    await ended.wait()
    run = await sandbox.start("doomed", spec("sleep", "60"), log_path=tmp_path / "b")
    pid = run.pid
    os.kill(sandbox.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost) as caught:
        await run.wait()
    assert caught.value.remedy
    await until(lambda: not helpers.alive(pid))
    assert not sandbox.alive
    with pytest.raises(WorkerLost):
        await sandbox.stats()
    second = await connect()
    assert second.lost == ("doomed",)
    outcome = await (await second.attach("doomed")).wait()
    assert outcome.trap == "lost"
    assert outcome.exit_code is None
    assert (await (await second.attach("ended")).wait()).exit_code == 5
    assert (
        await (await second.start("new", spec("exit", "0"), log_path=tmp_path / "c")).wait()
    ).exit_code == 0


async def test_shutdown_records_what_it_killed(connect, spec, tmp_path, helpers):
    sandbox = await connect()
    run = await sandbox.start("running", spec("sleep", "60"), log_path=tmp_path / "a")
    pid, zygote = run.pid, sandbox.pid
    await sandbox.shutdown()
    assert not helpers.alive(zygote)
    assert not helpers.alive(pid)
    second = await connect()
    assert second.lost == ()
    assert (await (await second.attach("running")).wait()).exit_code == 137


async def test_sigterm_to_the_zygote_records_too(connect, spec, tmp_path, helpers):
    sandbox = await connect()
    await sandbox.start("running", spec("sleep", "60"), log_path=tmp_path / "a")
    os.kill(sandbox.pid, signal.SIGTERM)
    await until(lambda: not helpers.alive(sandbox.pid))
    record = records.read(tmp_path / "z" / "runs" / "running")
    assert record["outcome"]["exit_code"] == 137


async def test_zygote_ends_by_itself_when_nobody_needs_it(connect, spec, tmp_path, helpers):
    sandbox = await connect(linger_s=0.3)
    zygote = sandbox.pid
    await asyncio.sleep(1.0)
    assert helpers.alive(zygote)  # a client is there
    run = await sandbox.start("only", spec("sleep", "60"), log_path=tmp_path / "a")
    await sandbox.aclose()
    await asyncio.sleep(0.6)
    assert helpers.alive(zygote)  # a run is there
    os.kill(run.pid, signal.SIGKILL)
    await until(lambda: not helpers.alive(zygote))
    assert not (tmp_path / "z").joinpath(f"{sandbox.engine.name}.sock").exists()


async def test_burst_of_200_none_lost(connect, spec, tmp_path):
    sandbox = await connect()
    wanted = {code: spec("exit", str(code)) for code in range(200)}
    runs = await asyncio.gather(
        *(sandbox.start(f"b{n}", wanted[n], log_path=tmp_path / f"{n}.log") for n in range(200))
    )
    outcomes = await asyncio.gather(*(run.wait() for run in runs))
    assert [outcome.exit_code for outcome in outcomes] == list(range(200))
    assert len(await sandbox.list()) == 200


async def test_start_in_a_directory_that_does_not_exist_leaves_no_record(connect, spec, tmp_path):
    sandbox = await connect()
    with pytest.raises(SandboxError, match="No such file"):
        await sandbox.start("nowhere", spec("exit", "0"), log_path=tmp_path / "missing" / "log")
    assert await sandbox.list() == []


async def test_unsupported_is_raised_before_anything_is_recorded(connect, spec, tmp_path):
    sandbox = await connect()
    if sandbox.engine.capabilities.directories:
        pytest.skip("this engine does it")
    wanted = spec("exit", "0", preopens=(Preopen(str(tmp_path), "/d"),))
    with pytest.raises(Unsupported):
        await sandbox.start("never", wanted, log_path=tmp_path / "log")
    assert await sandbox.list() == []


async def test_log_rotation(connect, spec, tmp_path):
    sandbox = await connect()
    log = tmp_path / "log"
    run = await sandbox.start("ticks", spec("ticker", "30", "30"), log_path=log)
    await until(lambda: log.read_bytes().count(b"\n") >= 3)
    log.rename(tmp_path / "log.1")
    await sandbox.reopen_log("ticks")
    await run.wait()
    joined = contents(tmp_path / "log.1") + contents(log)
    assert [line for line in joined.splitlines() if line.startswith(b"tick")] == [
        b"tick %d" % n for n in range(30)
    ] or (joined.count(b"\n") == 30)
    assert contents(log)


async def test_deep_directory_is_no_problem(engine, cache, spec, tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    sandbox = await AsyncSandbox.connect(engine, deep, cache=cache)
    try:
        assert (
            await (await sandbox.start("x", spec("exit", "4"), log_path=deep / "log")).wait()
        ).exit_code == 4
    finally:
        await sandbox.shutdown()


async def test_two_clients_start_one_zygote(engine, cache, tmp_path):
    clients = await asyncio.gather(
        *(AsyncSandbox.connect(engine, tmp_path / "z", cache=cache) for _ in range(5))
    )
    try:
        assert len({client.pid for client in clients}) == 1
    finally:
        await clients[0].shutdown()
        for client in clients:
            await client.aclose()


async def test_stale_socket_file_is_replaced(engine, cache, spec, tmp_path):
    folder = tmp_path / "z"
    folder.mkdir(mode=0o700)
    (folder / f"{engine}.sock").write_text("not a socket")
    sandbox = await AsyncSandbox.connect(engine, folder, cache=cache)
    try:
        assert (
            await (await sandbox.start("x", spec("exit", "4"), log_path=folder / "log")).wait()
        ).exit_code == 4
    finally:
        await sandbox.shutdown()


async def test_full_disk_for_the_log_is_told_and_costs_no_outcome(connect, spec):
    sandbox = await connect()
    run = await sandbox.start("full", spec("hello"), log_path="/dev/full")
    other = await sandbox.start("other", spec("exit", "2"), log_path="/dev/null")
    assert (await other.wait()).exit_code == 2  # nobody else waits for the disk
    outcome = await run.wait()
    assert outcome.exit_code == 0
    assert outcome.log_lost_bytes > 0
    assert "disk was full" in outcome.message


async def test_a_log_that_the_disk_did_not_take_is_written_when_it_has_room(connect, spec, tmp_path):
    sandbox = await connect()
    path = tmp_path / "log"
    run = await sandbox.start("late", spec("sleep", "3.0"), log_path=path)
    await until(lambda: b"sleeping" in path.read_bytes())
    _, hard = resource.prlimit(sandbox.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(sandbox.pid, resource.RLIMIT_FSIZE, (0, hard))  # as good as a full disk
    outcome = await run.wait()
    assert outcome.exit_code == 0
    assert outcome.log_lost_bytes > 0
    assert "the disk was full" in outcome.message
    assert b"awake" not in path.read_bytes()
    resource.prlimit(sandbox.pid, resource.RLIMIT_FSIZE, (hard, hard))
    await until(lambda: contents(path) == b"sleeping\nawake\n")
    await until(lambda: "outcome" in records.read(tmp_path / "z" / "runs" / "late"))


async def test_outcome_that_the_disk_refuses_is_kept_and_written_later(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("kept", spec("sleep", "0.5"), log_path=tmp_path / "log")
    path, aside = tmp_path / "z" / "runs" / "kept", tmp_path / "aside"
    await until(lambda: "pid" in records.read(path))
    path.rename(aside)
    path.symlink_to("/dev/full")
    assert (await run.wait()).exit_code == 0  # told all the same
    assert (await sandbox.stats())["unwritten"] == ["kept"]
    assert (await (await sandbox.attach("kept")).wait()).exit_code == 0
    path.unlink()
    with aside.open("ab") as torn:
        torn.write(b'{"outcome": {"exit_code": 1')  # what a full disk had cut short
    aside.rename(path)
    await until(lambda: records.read(path).get("outcome", {}).get("exit_code") == 0)
    assert (await sandbox.stats())["unwritten"] == []


async def test_record_removed_while_running_does_not_hold_the_zygote(connect, spec, tmp_path):
    sandbox = await connect()
    run = await sandbox.start("gone", spec("sleep", "0.5"), log_path=tmp_path / "log")
    await until((tmp_path / "z" / "runs" / "gone").exists)
    (tmp_path / "z" / "runs" / "gone").unlink()
    assert (await run.wait()).exit_code == 0
    assert (await sandbox.stats())["unwritten"] == []


async def test_zygote_of_another_version_is_replaced_when_idle(
    engine, cache, spec, tmp_path, monkeypatch, helpers
):
    from wasmlab.sandbox import launch

    folder = tmp_path / "z"
    old = await AsyncSandbox.connect(engine, folder, cache=cache)
    try:
        run = await old.start("busy", spec("sleep", "1"), log_path=tmp_path / "log")
        monkeypatch.setattr(launch, "_fits", lambda engine, answer: answer["pid"] != old.pid)
        with pytest.raises(SandboxError, match="another version") as caught:
            await AsyncSandbox.connect(engine, folder, cache=cache)
        assert str(old.pid) in caught.value.remedy
        await run.wait()
        new = await AsyncSandbox.connect(engine, folder, cache=cache)
        assert new.pid != old.pid
        assert not helpers.alive(old.pid)
        await new.shutdown()
    finally:
        if old.alive:
            await old.shutdown()
        await old.aclose()
