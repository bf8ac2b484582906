"""`wasmlab run` as people and scripts use it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.engines.adapters import BINDINGS, chosen
from wasmlab import engines
from wasmlab.engines import native_binding
from wasmlab.sandbox import commands


@pytest.fixture(params=BINDINGS)
def wasmlab(request, tmp_path_factory, helpers):
    """wasmlab("exit", "--", "3") -> CompletedProcess of `wasmlab run FIXTURE ...` on each binding."""
    cache = tmp_path_factory.getbasetemp() / "run-cache"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with chosen(request.param) as engine:
        library = native_binding.find()
    if library is not None:
        built = cache / "wasmlab" / "native" / native_binding.key()
        built.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            built.symlink_to(library.parent)

    def run(name: str, *args: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        path = name if "/" in name or not name else str(helpers.fixtures / f"{name}.wasm")
        argv = [sys.executable, "-m", "wasmlab.cli", "run", "--engine", engine, path, *args]
        if options.pop("start", False):
            return subprocess.Popen(argv, env=environment, **options)
        return subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=False, **options)

    run.engine = engine
    run.capabilities = engines.get(engine).capabilities
    return run


def test_a_component_runs_where_the_engine_has_components(wasmlab, helpers):
    path = str(helpers.fixtures.parent / "components" / "hello.wasm")
    done = wasmlab(path, "--", "a", "b")
    if wasmlab.capabilities.components:
        assert (done.returncode, done.stderr) == (0, b"hello from stderr!\n")
        assert done.stdout == b'hello from stdout!\nArgs are: ["a", "b"]\n'
    else:
        assert done.returncode == 1 and done.stdout == b""
        assert b"wasmer cannot run this component" in done.stderr and b"use engine wasmtime" in done.stderr


def test_stdio_and_exit_code_pass_through(wasmlab):
    done = wasmlab("cat", input=b"to and fro\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"to and fro\n", b"")
    assert wasmlab("exit", "--", "137").returncode == 137
    assert wasmlab("exit", "255").returncode == 255


def test_options_after_the_file_and_arguments_after_dashes(wasmlab):
    done = wasmlab("env", "--env", "A=b=c", "--env", "E=", "--", "-x", "--engine", "none")
    lines = done.stdout.decode().splitlines()
    assert lines[:4] == ["arg 0=env.wasm", "arg 1=-x", "arg 2=--engine", "arg 3=none"]
    assert sorted(lines[4:]) == ["env A=b=c", "env E="]  # wasmer keeps no order


def test_traps_deadlines_and_limits_have_codes_and_messages(wasmlab):
    done = wasmlab("trap")
    assert done.returncode == 134
    assert b"unreachable" in done.stderr
    assert done.stderr.count(b"\n") == 1  # ours, and nothing of the engine's chatter
    done = wasmlab("loop", "--timeout", "300ms")
    assert done.returncode == 124
    assert b"deadline" in done.stderr
    done = wasmlab("eatmem", "--memory", "32Mi")
    assert done.returncode == 0
    assert 28 <= int(done.stdout.split()[1]) <= 31
    done = wasmlab("eatmem", "--memory", "64Ki")
    assert done.returncode == 137
    assert b"out_of_memory" in done.stderr


def test_directories(wasmlab, tmp_path):
    (tmp_path / "a.txt").write_text("hi\n")
    assert wasmlab("readfile", "--dir", f"{tmp_path}::/d:ro", "/d/a.txt").stdout == b"hi\n"
    done = wasmlab("writefile", "--dir", f"{tmp_path}::/d", "/d/b.txt", "text")
    if wasmlab.capabilities.directories:
        assert done.returncode == 0
        assert (tmp_path / "b.txt").read_text() == "text\n"
    else:
        assert done.returncode == 1
        assert b"wasmtime" in done.stderr
        assert not (tmp_path / "b.txt").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--memory", "much"], ["--memory", "0"], ["--timeout", "soon"], ["--env", "novalue"], ["--dir", "/tmp"],
        ["--dir", "/nowhere-at-all::/d"], ["--engine", "v8"], ["--unknown"], ["--fuel", "-1"],
    ],
)  # fmt: skip
def test_wrong_usage_is_2(wasmlab, wrong):
    if wasmlab.engine != "wasmtime":
        pytest.skip("the same for all")
    done = wasmlab("exit", *wrong)
    assert done.returncode == 2
    assert done.stdout == b""


def test_what_cannot_be_started_is_1_with_a_message(wasmlab, tmp_path):
    bad = tmp_path / "bad.wasm"
    bad.write_bytes(b"#!/bin/sh\n")
    done = wasmlab(str(bad))
    assert done.returncode == 1
    assert b"not a WASM binary" in done.stderr
    assert b"Traceback" not in done.stderr
    assert wasmlab(str(tmp_path / "missing.wasm")).returncode == 1


def test_ctrl_c_ends_the_guest(wasmlab, helpers):
    child = wasmlab("loop", start=True, stderr=subprocess.PIPE)
    helpers.until(lambda: helpers.guests(child.pid), 60, what="the worker")
    (worker,) = helpers.guests(child.pid)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=20)
    assert child.returncode == 130
    assert b"Traceback" not in stderr
    assert not helpers.alive(worker)


def test_killed_command_takes_the_guest_with_it(wasmlab, helpers):
    child = wasmlab("loop", start=True)
    helpers.until(lambda: helpers.guests(child.pid), 60, what="the worker")
    (worker,) = helpers.guests(child.pid)
    child.kill()
    child.wait(20)
    helpers.until(lambda: not helpers.alive(worker))


def test_terminal_is_passed_through(wasmlab):
    master, slave = pty.openpty()
    child = wasmlab("cat", start=True, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"typed\n")
    seen = b""
    deadline = time.monotonic() + 30
    while seen.count(b"typed") < 2:  # the terminal's echo, and the guest's answer
        assert time.monotonic() < deadline
        seen += os.read(master, 1000)
    os.write(master, b"\x04")  # end of file
    assert child.wait(30) == 0
    os.close(master)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("1G", 10**9), ("65536", 65536), ("5k", 5000), ("2MiB", 2 << 20)],
)
def test_sizes(text, size):
    assert commands._size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1.5", 1.5)])
def test_times(text, seconds):
    assert commands._time(text) == seconds


def test_fuel(wasmlab):
    done = wasmlab("loop", "--fuel", "1000000")
    if wasmlab.capabilities.fuel:
        assert done.returncode == 134
        assert b"out_of_fuel" in done.stderr
    else:
        assert done.returncode == 1
        assert b"wasmtime" in done.stderr
