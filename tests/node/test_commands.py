"""`wasmlab node unit` and the checks of `wasmlab node run`."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wasmlab.errors import PrerequisiteError
from wasmlab.node import commands
from wasmlab.node.config import NodeConfig
from wasmlab.node.host.imagepolicy import GcPolicy
from wasmlab.node.unitfile import unit


def invoke(*args: str) -> str:
    app = typer.Typer()
    commands.register(app)
    app.command("other")(lambda: None)  # with one command typer would leave out its name
    result = CliRunner().invoke(app, ["node", *args], env={"KUBECONFIG": ""})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_unit_of_row_1(tmp_path: Path) -> None:
    text = invoke(
        "unit",
        "--kubeconfig",
        "/etc/w/kubeconfig",
        "--node-name",
        "n1",
        "--bootstrap-kubeconfig",
        "/etc/w/boot",
    )
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[method-assign, assignment]
    parsed.read_string(text)
    service = parsed["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartSec"] == "5s"
    assert service["Environment"] == "KUBECONFIG=/etc/w/kubeconfig"
    assert service["KillMode"] == "process"
    assert service["Delegate"] == "cpu memory"
    assert Path(service["ExecStart"].split()[0]).is_absolute()
    assert "node run" in service["ExecStart"]
    assert "--bootstrap-kubeconfig /etc/w/boot" in service["ExecStart"]
    assert parsed["Install"]["WantedBy"] == "multi-user.target"
    assert "After" in parsed["Unit"]
    analyze = shutil.which("systemd-analyze")
    if analyze:
        path = tmp_path / "wasmlab-node.service"
        path.write_text(text)
        done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)
        assert "wasmlab-node.service" not in done.stderr, done.stderr


def test_the_unit_takes_no_kubeconfig_from_the_environment() -> None:
    app = typer.Typer()
    commands.register(app)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["node", "unit", "--dir", "rel"], env={"KUBECONFIG": "/admin.conf"})
    assert "admin.conf" not in result.stdout
    assert f"KUBECONFIG={Path.cwd() / 'rel' / 'kubeconfig'}" in result.stdout


def test_without_the_command_the_unit_runs_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m wasmlab` from a checkout: the file it was called as is no program."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"ExecStart={tmp_path / 'python3'} -m wasmlab node run" in invoke("unit")


def test_a_percent_sign_is_no_specifier() -> None:
    assert "100%%" in unit(["/usr/bin/wasmlab"], Path("/k"), ["--label", "a=100%"])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"node_name": "Upper_Case"}, "cannot be a node's name"),
        ({"restart_semantics": "docker"}, "unknown restart semantics"),
        ({"capacity": {"cpu": "lots"}}, "cannot have the capacity cpu=lots"),
        ({"capacity": {"gpu": "1"}}, "cannot have the capacity gpu=1"),
        ({"eviction_hard": "memory.available>1"}, "--eviction-hard"),
        ({"image_gc": GcPolicy(80, 85)}, "until 85 %"),
        ({"shutdown_grace_s": 1, "shutdown_grace_critical_s": 2}, "critical pods"),
        ({"engine": "v8"}, "no engine 'v8'"),
        ({"address": "localhost"}, "is not an IP address"),
        ({"labels": {"kubernetes.io/role": "x"}}, "NodeRestriction"),
        ({"labels": {"node-role.kubernetes.io/wasm": ""}}, "NodeRestriction"),
    ],
)
def test_bad_configuration_is_refused_with_a_remedy(tmp_path: Path, bad: dict, said: str) -> None:
    with pytest.raises(PrerequisiteError, match=said) as caught:
        NodeConfig(**{"kubeconfig": tmp_path / "k", "dir": tmp_path, "node_name": "n", **bad})
    assert caught.value.remedy


def test_labels_that_a_node_may_set(tmp_path: Path) -> None:
    NodeConfig(
        kubeconfig=tmp_path / "k",
        dir=tmp_path,
        node_name="n",
        labels={"zone": "a", "example.com/x": "y", "node.kubernetes.io/z": "1"},
    )
