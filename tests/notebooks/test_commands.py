"""`wasmlab lab` as people and scripts use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notebooks import toys
from wasmlab.reference.documents import DOCUMENTS


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return toys.write(
        tmp_path / "nb",
        n01_good=toys.notebook("print(word)", expected_s=3),
        n02_bad=toys.notebook("1 / 0"),
    )


def lab(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wasmlab.cli", "lab", "--notebooks", str(directory)]
    return subprocess.run(
        [*command, "--out", str(directory.parent / "out"), *words],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_a_failure_is_told_and_the_exit_code_says_so(directory: Path) -> None:
    done = lab(directory)
    assert done.returncode == 1
    assert re.search(r"✓ 01_good +\d+\.\d s  A toy", done.stderr)
    assert re.search(r"✗ 02_bad", done.stderr)
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "    1 / 0" in done.stderr
    assert "1 of 2 notebooks succeeded" in done.stderr
    assert f"{directory.parent}/out/index.html" in done.stderr
    assert "wasmlab lab --only 02" in done.stderr
    assert done.stdout == ""


def test_success_exits_with_zero(directory: Path) -> None:
    done = lab(directory, "--only", "01", "-p", "word=from outside", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(DOCUMENTS["lab"])
    assert (told["succeeded"], told["results"][0]["name"], told["results"][0]["status"]) == (
        1,
        "01_good",
        "ok",
    )
    assert "from outside" in toys.outputs(directory.parent / "out" / "01_good.ipynb")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-p", "nonsense"], 2, "not name=value"),
        (["--kubeconfig", "/nowhere"], 2, "does not exist"),
        (["-p", "nobody=1"], 1, "no selected notebook has the parameter nobody"),
        (["--only", "07"], 1, "there is no notebook '07'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    words: list[str], code: int, says: str, directory: Path
) -> None:
    done = lab(directory, *words)
    assert (done.returncode, done.stdout) == (code, "")
    # typer draws a box around usage errors and breaks lines in it.
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert not (directory.parent / "out").exists()


def test_the_list_shows_parameters_and_runs_nothing(directory: Path) -> None:
    done = lab(directory, "--list")
    assert done.returncode == 0
    assert "01_good: A toy\n    word: str = 'hi'  # a word\n" in done.stdout
    told = json.loads(lab(directory, "--list", "--json").stdout)["notebooks"]
    assert told[0]["parameters"] == [{"name": "word", "type": "str", "default": "hi", "help": "a word"}]
    assert not (directory.parent / "out").exists()
