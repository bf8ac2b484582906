"""What `wasmlab run` refuses before it starts anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*words: str | bytes) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "wasmlab.cli", "run", *words]
    environment = {**os.environ, "COLUMNS": "300"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("option", [(), ("--env", b"A=\xff\xfe")])
def test_words_that_are_not_utf_8_are_wrong_usage(
    option: tuple[str | bytes, ...], fixtures_dir: Path
) -> None:
    words = option + (str(fixtures_dir / "env.wasm"),) + (() if option else ("--", b"\xff\xfe"))
    result = run(*words)
    assert result.returncode == 2
    assert "is not UTF-8" in result.stderr


def test_a_directory_is_called_one(tmp_path: Path) -> None:
    result = run(str(tmp_path))
    assert result.returncode == 1
    assert "is a directory" in result.stderr
