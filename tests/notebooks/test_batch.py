"""Batches: refused early, resumed, never repeated, with an index, also to where only papermill can write."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import toys
from wasmlab.errors import NotebookError
from wasmlab.notebooks import batch, batchplan, conventions

# Each call starts an interpreter and a kernel for every run of its plan.
pytestmark = pytest.mark.timeout(600)

PARAMETERS = 'word: str = "hi"  # w\nlog: str = ""  # where it says that it ran\nmany: list[int] = [1]  # m'
NOTES = "with open(log, 'a') as stream:\n    print(word, file=stream)\nprint(word, many)"
FAILS = "assert word != 'bad', 'it was bad'"


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    return toys.write(tmp_path / "nb", n07_toy=toys.notebook(NOTES, FAILS, parameters=PARAMETERS))


def command(notebooks: Path, plan: Any, out: str | Path, *more: str) -> list[str]:
    path = notebooks.parent / "plan.yaml"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    words = ["batch", str(path), "--notebooks", str(notebooks), "--out", str(out), *more]
    return [sys.executable, "-m", "wasmlab.cli", *words]


def call(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )


def words(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


# ---- the plan ----


def test_a_matrix_is_every_combination_and_names_are_readable() -> None:
    plan = {"runs": [{"notebook": 7, "matrix": {"engines": [["wasmtime"], ["wasmer", "x"]], "n": [1, 2]}}]}
    runs = batchplan.parse(plan)
    assert [run.name for run in runs] == [
        "07-wasmtime-n-1",
        "07-wasmtime-n-2",
        "07-wasmer-x-n-1",
        "07-wasmer-x-n-2",
    ]
    assert runs[3].parameters == {"engines": ["wasmer", "x"], "n": 2}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([], "is a mapping"),
        ({}, "has no runs"),
        ({"runs": []}, "has no runs"),
        ({"runs": [7]}, r"runs\[0\] is not a mapping"),
        ({"run": [], "runs": [{"notebook": 7}]}, "unknown key 'run'.*did you mean runs"),
        ({"runs": [{"notebook": 7, "paramters": {}}]}, "unknown key 'paramters'.*did you mean parameters"),
        ({"runs": [{"parameters": {}}]}, "names no notebook"),
        ({"runs": [{"notebook": True}]}, "names no notebook"),
        ({"runs": [{"notebook": 7, "matrix": {"n": 3}}]}, "matrix.n is not a list"),
        ({"runs": [{"notebook": 7, "matrix": {"n": [1]}, "parameters": {"n": 1}}]}, "gives n twice"),
        ({"runs": [{"notebook": 7}, {"notebook": "07"}]}, "two runs are called 07"),
        ({"runs": [{"notebook": 7, "name": "../x"}]}, "cannot be the name of a directory"),
        ({"runs": [{"notebook": 7}], "defaults": [1]}, "defaults is not a mapping"),
    ],
)
def test_what_is_no_plan_is_refused(plan: Any, says: str) -> None:
    with pytest.raises(NotebookError) as caught:
        batchplan.parse(plan)
    assert re.search(says, str(caught.value), re.DOTALL)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("wrod", "x", "no parameter 'wrod'"),
        ("word", 3, "wants str"),
        ("many", [1, "x"], "wants list"),
        ("many", [True], "wants list"),
        ("count", True, "wants int"),
        ("share", "1", "wants float"),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, value: Any, says: str) -> None:
    cell = 'word: str = "x"  # w\nmany: list[int] = [1]  # m\ncount: int = 1  # c\nshare: float = 0.5  # s'
    declared = conventions.parameters(toys.notebook(parameters=cell))
    run = batchplan.Run("one", "07", {name: value}, {"elsewhere": 1, "share": 1})
    with pytest.raises(NotebookError, match=says):
        run.values(declared)
    assert batchplan.Run("one", "07", {}, run.defaults).values(declared) == {"share": 1}


def test_nothing_runs_if_anything_is_wrong(notebooks: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    plan = {
        "defaults": {"log": str(log)},
        "runs": [{"notebook": 7}, {"notebook": 7, "name": "b", "parameters": {"x": 1}}],
    }
    done = call(notebooks, plan, tmp_path / "out")
    assert done.returncode == 1
    assert "no parameter 'x'" in done.stderr and "word, log, many" in done.stderr
    assert not words(log) and not (tmp_path / "out").exists()
    broken = call(notebooks, "runs: [", tmp_path / "out")
    assert broken.returncode == 1 and "cannot be read" in broken.stderr and "Traceback" not in broken.stderr


# ---- running ----


def test_a_failure_is_told_and_only_it_runs_again(notebooks: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    runs = [{"notebook": 7, "name": word, "parameters": {"word": word}} for word in ("one", "bad", "two")]
    plan = {"defaults": {"log": str(log)}, "runs": runs}
    first = call(notebooks, plan, out)
    assert first.returncode == 1
    assert "1 of 3 runs failed: bad" in first.stderr and "it was bad" in first.stderr
    assert words(log) == ["one", "bad", "two"]
    page = (out / "index.html").read_text()
    assert 'href="one/07_toy.html"' in page and "2 of 3 runs succeeded" in page and "it was bad" in page
    assert "two [1]" in toys.outputs(out / "two" / "07_toy.ipynb")

    second = call(notebooks, plan, out)
    assert second.returncode == 1 and "1 of 3 runs, 2 are finished" in second.stderr
    assert words(log)[3:] == ["bad"]

    runs[0]["parameters"]["many"] = [2, 3]  # another parameter set is another run
    (out / "two" / "07_toy.ipynb").unlink()  # and what is gone is not finished
    listed = call(notebooks, plan, out, "--list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [["to", "do"]] * 3
    runs[1]["parameters"]["word"] = "good"
    third = call(notebooks, plan, out)
    assert third.returncode == 0, third.stderr
    assert words(log)[4:] == ["one", "good", "two"]
    assert "one [2, 3]" in toys.outputs(out / "one" / "07_toy.ipynb")


def test_a_killed_batch_goes_on_where_it_was(notebooks: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    hang = "import os, time\nif word == 'hang' and not os.path.exists(log + '.go'):\n    time.sleep(300)"
    toys.write(notebooks, n07_toy=toys.notebook(NOTES, hang, parameters=PARAMETERS))
    runs = [{"notebook": 7, "name": word, "parameters": {"word": word}} for word in ("one", "hang", "two")]
    plan = {"defaults": {"log": str(log)}, "runs": runs}
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed run cannot clean up
    started = subprocess.Popen(
        command(notebooks, plan, out), stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 150
    try:
        while "hang" not in words(log):
            assert time.monotonic() < deadline and started.poll() is None
            time.sleep(0.05)
    finally:
        started.send_signal(signal.SIGKILL)
        started.communicate(timeout=60)
    (tmp_path / "log.go").write_text("")
    done = call(notebooks, plan, out, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert words(log) == ["one", "hang", "hang", "two"]


@pytest.fixture
def store() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A place that takes PUT requests, as object stores do; papermill writes to it over http."""
    kept: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(507 if "full" in self.path else 200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/lab", kept
    server.shutdown()
    server.server_close()


def test_any_path_that_papermill_can_write_to(
    notebooks: Path, tmp_path: Path, store: tuple[str, dict[str, bytes]]
) -> None:
    where, kept = store
    log = tmp_path / "log"
    plan = {"defaults": {"log": str(log)}, "runs": [{"notebook": 7}]}
    done = call(notebooks, plan, where, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert set(kept) == {"/lab/07/07_toy.ipynb", "/lab/batch.json"}  # over http papermill sends JSON alone
    assert json.loads(kept["/lab/batch.json"])["07"]["status"] == "ok"
    assert json.loads(kept["/lab/07/07_toy.ipynb"])["cells"]
    again = call(notebooks, plan, where, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert again.returncode == 0 and words(log) == ["hi"]
    full = call(notebooks, plan, f"{where}/full", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert full.returncode == 1 and "cannot write" in full.stderr and "Traceback" not in full.stderr


def test_a_damaged_state_is_not_overwritten(notebooks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "batch.json").write_text("{")
    with pytest.raises(NotebookError, match=r"batch\.json cannot be read"):
        batch.prepare({"runs": [{"notebook": 7}]}, notebooks, batch.Output.of(str(out)))
    assert (out / "batch.json").read_text() == "{"
