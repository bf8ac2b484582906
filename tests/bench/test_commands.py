"""The command line: what it prints, what it writes, and that Ctrl-C loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from wasmlab.bench.store import Results
from wasmlab.reference.documents import DOCUMENTS

WASMLAB = [sys.executable, "-m", "wasmlab.cli", "bench"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WASMLAB, *words], capture_output=True, text=True, timeout=120)


def test_local_writes_rows_tables_and_pictures(tmp_path: Path) -> None:
    words = ("local", "-e", "wasmtime", "-m", "warm", "-m", "cached", "-n", "3", "--out", str(tmp_path))
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "local wasmtime warm hello" in done.stdout
    assert "12 runs, 0 failed, measured 20" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "local.parquet", "local.json", "report.md", "report.html", "cold_start.png", "start_phases.png",
        "control_ratios.png",
    }  # fmt: skip
    # A second report of the same rows is made from the file alone.
    (tmp_path / "report.md").unlink()
    again = run("report", str(tmp_path), "--json")
    assert again.returncode == 0
    assert str(tmp_path / "report.md") in json.loads(again.stdout)["files"]
    assert (tmp_path / "report.md").exists()


def test_a_plan_file_is_carried_out_and_its_end_is_told(tmp_path: Path) -> None:
    example = run("plan")
    assert example.returncode == 0
    plan = tmp_path / "starts.yaml"
    text = example.stdout.replace("[cold, warm]", "[warm]").replace("[wasmtime, wasmer]", "[wasmtime]")
    plan.write_text(text.replace("precision: 0.05, max_seconds: 600", "max_runs: 7"))
    done = run("--plan", str(plan), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    assert "ended after 2 blocks, 6 runs" in done.stderr and "the budget of runs is spent" in done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(DOCUMENTS["bench"])
    assert (told["runs"], told["failed"], told["interrupted"]) == (6, 0, False)
    assert all(arm["low_ms"] <= arm["median_ms"] <= arm["high_ms"] for arm in told["arms"])
    results = Results.load(tmp_path / "out" / "starts.parquet")
    assert results.plan["stopped"]["because"] == "runs" and len(results.rows) == 6
    assert results.conditions[0]["blocks"]["block"] == [0, 1]


def test_ctrl_c_keeps_the_rows_so_far(tmp_path: Path) -> None:
    words = ["local", "-e", "wasmtime", "-m", "cached", "-n", "500", "--no-controls", "--out", str(tmp_path)]
    # A short path: sockets are in it.
    with tempfile.TemporaryDirectory(prefix="wl-") as scratch:
        child = subprocess.Popen(
            [*WASMLAB, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": scratch},
        )
        try:
            deadline = time.monotonic() + 120
            # Every run has a directory for its sandbox: with the third, two runs are over.
            while len(list(Path(scratch).glob("wasmlab-bench-*/wasmtime-*"))) < 3:
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130, said
    assert "interrupted: these are the runs so far" in said
    results = Results.load(tmp_path / "local.parquet")
    assert 1 <= len(results.rows) < 500
    assert results.plan["interrupted"] is True
    assert "Interrupted" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("local", "-w", "helo"), 1, "there is no workload 'helo'"),
        (("local", "-m", "hot"), 1, "unknown mode 'hot'"),
        (("node", "-w", "boolector/factor"), 1, "which a Pod does not have"),
        (("local", "-e", "wasmer", "-w", "hello/component"), 1, "wasmer cannot run components"),
        (("local", "-n", "0"), 2, "Error"),
        (("local", "-e", "wasmedge"), 1, "there is no engine called 'wasmedge'"),
        (("report", "/nonexistent"), 1, "there are no results"),
        (("--plan", "/nonexistent.yaml"), 1, "cannot read the plan /nonexistent.yaml"),
        (("--plan", "/nonexistent.yaml", "local"), 2, "leave out the command"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    done = run(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_workloads_are_listed() -> None:
    done = run("workloads")
    assert done.returncode == 0
    assert "boolector/factor" in done.stdout and "26,267,204" in done.stdout
    assert "wasmer has no component model" in done.stdout
    told = json.loads(run("workloads", "--json").stdout)["workloads"]
    hello = next(one for one in told if one["name"] == "hello")
    assert "node" in hello["paths"] and "wasmtime" in hello["engines"] and hello["size_bytes"] > 0
