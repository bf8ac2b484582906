"""Processes on record: recognised, ended, and never confused with others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wasmlab.cluster import processes


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*argv: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv or ("sleep", "60"), stdout=subprocess.PIPE)
        running.append(child)
        return child

    yield start
    for child in running:
        child.kill()
        child.wait()


def test_a_record_of_another_start_is_not_that_process(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = spawn()
    real = processes.identify(child.pid)
    assert real is not None
    assert real.alive
    stranger = processes.Recorded(child.pid, real.start_ticks - 1)
    assert not stranger.alive
    stranger.signal(signal.SIGKILL)
    processes.end([stranger], 0)
    time.sleep(0.1)
    assert child.poll() is None, "a process that only has the same pid was ended"


def test_end_asks_first_and_kills_what_does_not_listen(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    polite = spawn()
    deaf = spawn(
        sys.executable, "-c",
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)",
    )  # fmt: skip
    assert deaf.stdout is not None
    deaf.stdout.readline()
    both = [found for child in (polite, deaf) if (found := processes.identify(child.pid))]
    killed = processes.end(both, 3.0)
    assert polite.wait(60) == -signal.SIGTERM
    assert deaf.wait(60) == -signal.SIGKILL
    assert [one.pid for one in killed] == [deaf.pid]


def test_an_ended_process_is_not_alive_even_as_a_zombie(
    spawn: Callable[..., subprocess.Popen[bytes]],
) -> None:
    child = spawn("true")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not waited for
    assert processes.identify(child.pid) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 5}'])
def test_a_damaged_record_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert processes.recorded(processes.read_record(path)) is None


def test_only_sandboxes_of_this_directory_are_found(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    def zygote(directory: Path) -> subprocess.Popen[bytes]:
        code = "import time; print('x', flush=True); time.sleep(60)"
        child = spawn(sys.executable, "-c", code, "-m", "wasmlab.sandbox.zygote", "--dir", str(directory))
        assert child.stdout is not None
        child.stdout.readline()
        return child

    ours = zygote(tmp_path / "lab" / "nodes" / "n" / "sandbox")
    zygote(tmp_path / "lab2" / "nodes" / "n" / "sandbox")
    found = processes.sandboxes_under(tmp_path / "lab")
    assert [one.pid for one in found] == [ours.pid]
