"""What `wasmlab containerd kind` writes is complete: every mount's source exists."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import typer
import yaml
from typer.testing import CliRunner

from wasmlab.containerd import bundle, commands
from wasmlab.containerd.runtimeclass import HANDLERS
from wasmlab.reference.documents import DOCUMENTS


def test_kind_files(tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    (made / "bin").mkdir(parents=True)
    for name in bundle.EXECUTABLES:
        (made / "bin" / name).touch()
    out = tmp_path / "kind"
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    words = ["containerd", "kind", "--out", str(out), "--bundle", str(made)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told) == set(DOCUMENTS["containerd kind"])
    assert all(Path(path).exists() for path in told.values())
    config = yaml.safe_load((out / "kind.yaml").read_text())
    for mount in config["nodes"][1]["extraMounts"]:
        assert Path(mount["hostPath"]).exists(), mount
    (patch,) = config["containerdConfigPatches"]
    runtimes = tomllib.loads(patch)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert {name: entry["runtime_type"] for name, entry in runtimes.items()} == HANDLERS
    classes = list(yaml.safe_load_all((out / "runtimeclasses.yaml").read_text()))
    assert [one["handler"] for one in classes] == list(HANDLERS)
