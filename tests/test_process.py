from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wasmlab import process
from wasmlab.errors import PrerequisiteError, ProcessError


def gone(pid: int, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while process.start_time_ticks(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def shell(script: str, log: Path, **options: object) -> process.Child:
    return process.Child(["/bin/sh", "-c", script], log=log, **options)  # type: ignore[arg-type]


def test_a_child_that_ends_early_shows_its_exit_code_and_last_lines(tmp_path: Path) -> None:
    child = shell("echo first; echo the disk is full >&2; exit 7", tmp_path / "log")
    with pytest.raises(ProcessError, match="exit code 7") as caught:
        child.wait_ready(lambda: False, 60, what="etcd")
    assert "etcd ended before it was ready" in str(caught.value)
    assert "the disk is full" in caught.value.log_tail


def test_a_child_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    child = shell("exec sleep 60", tmp_path / "log")
    with pytest.raises(ProcessError, match=r"not ready after 0\.2 s"):
        child.wait_ready(lambda: False, 0.2)
    assert not child.alive


def test_a_missing_program_is_a_prerequisite(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no-such-program"):
        process.Child(["no-such-program"], log=tmp_path / "log")


def test_stop_ends_one_that_ignores_sigterm_and_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = shell("trap '' TERM; sleep 60 & echo $!; while :; do sleep 0.1; done", log)
    child.wait_ready(lambda: bool(child.tail().strip()), 60)
    grandchild = int(child.tail())
    assert child.stop(grace_s=0.3) == -signal.SIGKILL
    assert gone(grandchild)


def test_stop_of_a_polite_child_is_quick(tmp_path: Path) -> None:
    child = shell("exec sleep 60", tmp_path / "log")
    assert child.stop() == -signal.SIGTERM


PARENT = """
import sys
from pathlib import Path
from wasmlab.process import Child
child = Child(["sleep", "60"], log=Path(sys.argv[1]), die_with_parent=sys.argv[2] == "yes")
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("bound", ["yes", "no"])
def test_a_child_dies_with_a_killed_parent_only_if_asked(tmp_path: Path, bound: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), bound],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    if bound == "yes":
        assert gone(pid)
    else:
        assert not gone(pid, within_s=0.3)
        os.kill(pid, signal.SIGKILL)


def test_the_log_is_private(tmp_path: Path) -> None:
    child = shell("true", tmp_path / "log")
    child.wait(60)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_tail_of_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert process.tail(tmp_path / "none") == ""


def test_tail_reads_only_the_end(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert process.tail(big, 2) == "line 99998\nline 99999"


def test_free_ports_are_distinct_and_free() -> None:
    ports = process.free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_a_reaped_process_has_no_start_time() -> None:
    assert process.start_time_ticks(os.getpid()) is not None
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert process.start_time_ticks(ended.pid) is None
