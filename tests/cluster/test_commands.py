"""What the commands do without a lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def kubectl(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "wasmlab.cli", "kubectl", "--dir", str(directory), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_needs_no_lab(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = kubectl(tmp_path, *words)
    assert result.returncode == 0
    assert "wasmlab kubectl [--dir DIR] -- WORDS..." in result.stdout


def test_without_a_lab_the_remedy_is_up(tmp_path: Path) -> None:
    result = kubectl(tmp_path, "--", "get", "pods")
    assert result.returncode == 1
    assert "wasmlab up" in result.stderr
