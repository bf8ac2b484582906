from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def wasmlab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wasmlab.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command() -> None:
    result = wasmlab("--help")
    assert result.returncode == 0
    for command in (
        "run",
        "oci",
        "up",
        "down",
        "status",
        "kubectl",
        "node",
        "containerd",
        "bench",
        "lab",
        "doctor",
    ):
        assert command in result.stdout


def test_a_wrong_command_is_a_usage_error() -> None:
    assert wasmlab("no-such-command").returncode == 2


def test_an_expected_failure_is_a_message_and_not_a_traceback() -> None:
    result = wasmlab("run", "no-such-file.wasm")
    assert result.returncode == 1
    assert "no-such-file.wasm" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["wasmlab", "wasmlab.cli"])
def test_import_stays_light(module: str) -> None:
    heavy = "pandas matplotlib kubernetes wasmtime wasmer aiohttp papermill numpy"
    script = f"import sys, {module}; print([name for name in {heavy!r}.split() if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_can_be_loaded() -> None:
    import wasmlab

    for name in wasmlab.__all__:
        assert getattr(wasmlab, name) is not None


def test_doctor_speaks_json() -> None:
    result = wasmlab("doctor", "--json")
    findings = json.loads(result.stdout)["findings"]
    states = {one["name"]: one["state"] for one in findings}
    assert states["Python"] == "ok"
    assert states["Engine wasmtime"] in ("ok", "limited")
    assert states["Engine wasmer"] in ("ok", "limited")
    # Whatever does not fully work says what to do, or what is lost.
    assert all(one["remedy"] or one["detail"] for one in findings if one["state"] != "ok")
    assert result.returncode == (1 if "missing" in states.values() else 0)


def test_the_package_can_be_run_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "wasmlab", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert "doctor" in result.stdout


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_nobody_elses(closed: tuple[int, ...], fixtures_dir: Path) -> None:
    """With stdin closed, the next pipe became fd 0 and `run` waited for ever on a pipe of its own."""
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    script = f'exec "$0" -m wasmlab.cli run "$1" {redirections}'
    result = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, str(fixtures_dir / "cat.wasm")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
