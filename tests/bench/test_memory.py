from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from wasmlab.bench import memory

ROLLUP = """00400000-7ffd [rollup]
Rss:               10240 kB
Pss:                5120 kB
Pss_Dirty:          1000 kB
Private_Clean:       100 kB
Private_Dirty:      2948 kB
"""


def test_reads_a_rollup(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text(ROLLUP)
    found = memory.of(7, proc=tmp_path)
    assert found == memory.Memory(uss_bytes=3048 * 1024, pss_bytes=5120 * 1024, rss_bytes=10240 * 1024)


def test_a_process_that_is_gone() -> None:
    assert memory.of(1 << 30) is None
    assert memory.total([1 << 30]) == memory.Memory()


def test_a_real_process_and_its_children() -> None:
    code = "import sys; block = bytearray(b'x') * (32 << 20); print('up', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        assert child.pid in memory.children(os.getpid())
        found = memory.of(child.pid)
        assert found is not None
        assert found.uss_bytes > 32 << 20
        assert found.uss_bytes <= found.pss_bytes <= found.rss_bytes
    finally:
        child.communicate(timeout=10)


def test_running_workers_are_those_without_an_outcome(tmp_path: Path) -> None:
    for name, pid, ended in (("a", 11, False), ("b", 12, True), ("c", None, False)):
        run = tmp_path / "sandbox" / "runs" / name
        run.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"pid": pid}) if pid else "{", *(['{"outcome": {}}'] if ended else [])]
        run.write_text("\n".join(lines))
    assert memory.running_workers(tmp_path) == [11]
