"""The executor: refuses early, keeps what failed, runs in this interpreter, leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.notebooks import toys
from wasmlab.errors import NotebookError, WasmlabError
from wasmlab.notebooks import execute, html
from wasmlab.paths import file_lock

# The one cell that a Ctrl-C meets: it has a child, as the notebooks with a cluster have.
BUSY = """
import os, pathlib, time
from wasmlab.process import Child

child = Child(["sleep", "300"], log=pathlib.Path(mark).with_suffix(".log"))
pathlib.Path(mark + ".new").write_text(f"{os.getpid()} {child.pid}")
os.rename(mark + ".new", mark)
time.sleep(300)
"""


def run(directory: Path, out: Path, given: dict[str, str] | None = None) -> list[execute.Result]:
    return execute.run(execute.plan(execute.select(directory), given), out)


def test_every_notebook_becomes_a_page_and_a_failure_stops_only_itself(tmp_path: Path) -> None:
    directory = toys.write(
        tmp_path / "nb",
        n01_good=toys.notebook("print(word, 6 * 7)"),
        n02_bad=toys.notebook("print('until here')", "raise LookupError('nothing there')", "print('never')"),
        n03_good=toys.notebook("print('still runs')"),
    )
    out = tmp_path / "out"
    results = run(directory, out, {"word": "hello"})
    assert [(r.name, r.status) for r in results] == [
        ("01_good", "ok"),
        ("02_bad", "failed"),
        ("03_good", "ok"),
    ]
    assert "LookupError: nothing there" in results[1].error
    assert "raise LookupError" in results[1].error  # the source of the cell
    assert "hello 42" in toys.outputs(out / "01_good.ipynb")
    kept = toys.outputs(out / "02_bad.ipynb")
    assert "until here" in kept and "never" not in kept
    for name in ("01_good", "02_bad", "03_good", "index"):
        page = (out / f"{name}.html").read_text()
        # Nothing is fetched: no script, style, font or picture from elsewhere.
        assert 'src="http' not in page and "<link" not in page and "import(" not in page
    assert set(execute.durations(out)) == {"01_good", "03_good"}


def test_the_index_says_what_the_plots_say_of_themselves(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "plots").mkdir()
    about = {"Description": "What <it> shows", "Comment": "recorded somewhere"}
    Figure().savefig(tmp_path / "plots" / "01_told.png", metadata=about)
    (tmp_path / "plots" / "02_not_a_picture.png").write_text("no picture")
    run = {"title": "The title", "status": "failed", "duration_s": 1.0, "when": "now"}
    page = html.index(
        {"01_a": run}, ["01_told.png", "02_not_a_picture.png"], tmp_path / "index.html"
    ).read_text()
    assert page.count("What &lt;it&gt; shows") == 2, "for those who see it and for those who do not"
    assert "recorded somewhere" in page and 'href="01_a.html">01 The title' in page
    assert 'alt="not a picture"' in page and "✗ failed" in page and "0 of 1 notebooks ran through" in page


def test_executing_one_notebook_again_keeps_the_others_in_the_index(tmp_path: Path) -> None:
    directory = toys.write(tmp_path / "nb", n01_a=toys.notebook(), n02_b=toys.notebook())
    out = tmp_path / "out"
    run(directory, out)
    execute.run(execute.plan(execute.select(directory, ["02"])), out)
    index = (out / "index.html").read_text()
    assert "01_a.html" in index and "02_b.html" in index
    assert "01_a.html" in (out / "02_b.html").read_text()  # the link to the one before
    (out / "runs.json").write_text("[]")
    assert execute.durations(out) == {}


def test_the_kernel_is_this_interpreter_whatever_python3_means_to_jupyter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "jupyter" / "kernels" / "python3"
    impostor.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "impostor", "language": "python"}
    (impostor / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    profile = tmp_path / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "00.py").write_text("print = None")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    directory = toys.write(tmp_path / "nb", n01_who=toys.notebook("import sys\nprint(sys.executable)"))
    results = run(directory, tmp_path / "out")
    assert results[0].status == "ok", results[0].error
    assert sys.executable in toys.outputs(tmp_path / "out" / "01_who.ipynb")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"wrod": "x"}, "no selected notebook has the parameter wrod"),
        ({"count": "many"}, "count wants int"),
        ({"flag": "perhaps"}, "flag wants bool"),
    ],
)
def test_parameters_are_refused_before_anything_runs(
    given: dict[str, str], says: str, tmp_path: Path
) -> None:
    directory = toys.write(
        tmp_path / "nb",
        n01_toy=toys.notebook(parameters='word: str = "a"  # w\ncount: int = 1  # n\nflag: bool = True  # f'),
    )
    with pytest.raises(NotebookError, match=says) as caught:
        execute.plan(execute.select(directory), given)
    assert caught.value.remedy


def test_a_parameter_goes_to_every_notebook_that_has_it_and_presets_yield_to_it(tmp_path: Path) -> None:
    directory = toys.write(
        tmp_path / "nb",
        n01_a=toys.notebook(parameters="word: int = 5  # n", quick={"word": 1}, full={"word": 50}),
        n02_b=toys.notebook(parameters="other: int = 5  # n"),
    )
    paths = execute.select(directory)
    assert [job.parameters for job in execute.plan(paths)] == [{}, {}]
    assert [job.parameters for job in execute.plan(paths, preset="quick")] == [{"word": 1}, {}]
    assert [job.parameters for job in execute.plan(paths, {"word": "7"}, "full")] == [{"word": 7}, {}]


def test_selecting(tmp_path: Path) -> None:
    directory = toys.write(
        tmp_path / "nb", n01_a=toys.notebook(), n02_b=toys.notebook(), n10_c=toys.notebook()
    )
    assert [path.stem for path in execute.select(directory)] == ["01_a", "02_b", "10_c"]
    assert [path.stem for path in execute.select(directory, ["10", "01_a.ipynb"])] == ["01_a", "10_c"]
    with pytest.raises(NotebookError, match="'11'"):
        execute.select(directory, ["11"])
    with pytest.raises(NotebookError, match="no notebooks in"):
        execute.find_directory(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": []}', '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "01_broken.ipynb").write_text(content)
    with pytest.raises(NotebookError, match=r"01_broken\.ipynb"):
        execute.plan([tmp_path / "01_broken.ipynb"])


def test_a_cell_that_never_ends_is_given_up(tmp_path: Path) -> None:
    directory = toys.write(tmp_path / "nb", n01_slow=toys.notebook("import time\ntime.sleep(600)"))
    results = execute.run(execute.plan(execute.select(directory)), tmp_path / "out", cell_timeout_s=1)
    assert results[0].status == "failed" and "timed out" in results[0].error.lower()


def test_a_kernel_that_dies_is_a_failure(tmp_path: Path) -> None:
    directory = toys.write(tmp_path / "nb", n01_dies=toys.notebook("import os\nos._exit(3)"))
    results = run(directory, tmp_path / "out")
    assert results[0].status == "failed" and "kernel died" in results[0].error


def test_two_runs_never_write_to_one_directory(tmp_path: Path) -> None:
    directory = toys.write(tmp_path / "nb", n01_a=toys.notebook())
    out = tmp_path / "out"
    out.mkdir()
    with file_lock(out / ".lock", 0), pytest.raises(WasmlabError, match="in use"):
        run(directory, out)


def test_what_a_killed_run_left_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (
        f"wasmlab-lab-{ended.pid}-x",
        f"wasmlab-lab-{os.getpid()}-x",
        "wasmlab-lab-y-x",
        "other-1-x",
    ):
        (tmp_path / name / "inside").mkdir(parents=True)
    directory = toys.write(tmp_path / "nb", n01_a=toys.notebook())
    run(directory, tmp_path / "out")
    left = {path.name for path in tmp_path.glob("*-x")}
    assert left == {f"wasmlab-lab-{os.getpid()}-x", "wasmlab-lab-y-x", "other-1-x"}


def test_an_unwritable_report_directory_is_refused(tmp_path: Path) -> None:
    directory = toys.write(tmp_path / "nb", n01_a=toys.notebook())
    (tmp_path / "file").write_text("")
    with pytest.raises(NotebookError, match="cannot write reports"):
        run(directory, tmp_path / "file" / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    directory = toys.write(
        tmp_path / "nb",
        n01_busy=toys.notebook(BUSY, parameters='word: str = "x"  # w\nmark: str = ""  # where the pids go'),
        n02_next=toys.notebook(),
    )
    mark, out = tmp_path / "mark", tmp_path / "out"
    command = [sys.executable, "-m", "wasmlab.cli", "lab", "--notebooks", str(directory), "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed run cannot clean up
    lab = subprocess.Popen(
        [*command, "-p", f"mark={mark}"], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        _until(mark.exists, 90)
        processes = [psutil.Process(int(pid)) for pid in mark.read_text().split()]
        os.kill(lab.pid, number)
        _, messages = lab.communicate(timeout=60)
        assert lab.returncode == (-number if number == signal.SIGKILL else 130), messages
        _until(lambda: not any(_runs(process) for process in processes), 60)
    finally:
        lab.kill()
        lab.wait()
    assert (out / "01_busy.ipynb").exists()  # as far as it got
    assert not (out / "02_next.ipynb").exists()
    if number != signal.SIGKILL:
        assert "0 of 2 notebooks succeeded" in messages and "Traceback" not in messages, messages


CLUSTER = """
import os, time
from wasmlab import Cluster

cluster = Cluster.embedded(state)
os.symlink("ready", mark)
time.sleep(300)
"""


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_cluster_of_a_notebook(number: signal.Signals, tmp_path: Path) -> None:
    parameters = 'word: str = "x"  # w\nmark: str = ""  # m\nstate: str = ""  # s'
    directory = toys.write(tmp_path / "nb", n01_busy=toys.notebook(CLUSTER, parameters=parameters))
    mark, state = tmp_path / "mark", tmp_path / "state"
    command = [sys.executable, "-m", "wasmlab.cli", "lab", "--notebooks", str(directory)]
    command += ["--out", str(tmp_path / "out"), "-p", f"mark={mark}", "-p", f"state={state}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed run cannot clean up
    lab = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        _until(mark.is_symlink, 90)
        processes = [one for one in psutil.process_iter() if one.pid != lab.pid and _names(one, state)]
        assert len(processes) >= 2  # the control plane and the node agent
        os.kill(lab.pid, number)
        _, messages = lab.communicate(timeout=60)
        # A zygote that lost its client lingers for ten seconds.
        _until(lambda: not any(_runs(process) for process in processes), 60)
    finally:
        lab.kill()
        lab.wait()
    if number == signal.SIGINT:
        assert lab.returncode == 130, messages


def _names(process: psutil.Process, path: Path) -> bool:
    try:
        return any(str(path) in word for word in process.cmdline())
    except psutil.Error:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(condition, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
