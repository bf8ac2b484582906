from __future__ import annotations

import os
import subprocess
import sys

from wasmlab.bench import cpu

BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_children_count_once_they_were_waited_for() -> None:
    before = cpu.seconds(os.getpid())
    subprocess.run([sys.executable, "-I", "-S", "-c", BURN], check=True, timeout=60)
    assert 0.25 <= cpu.seconds(os.getpid()) - before < 30


def test_a_process_that_is_gone() -> None:
    assert cpu.seconds(1 << 30) == 0.0
    assert cpu.roots([1 << 30]) == set()


def test_roots_leave_out_children() -> None:
    child = subprocess.Popen(["sleep", "30"])
    try:
        assert cpu.roots([os.getpid(), child.pid]) == {os.getpid()}
        assert cpu.roots([child.pid]) == {child.pid}
    finally:
        child.kill()
        child.wait()
