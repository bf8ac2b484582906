"""The installer on a directory that stands for a node's root, and what it asks of a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from wasmlab.containerd import installer, installmanifests

KIND = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
THREE = KIND.replace("version = 2", "version = 3").replace(
    "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
)


@pytest.mark.parametrize("text", [KIND, THREE, "", KIND.rstrip()])
def test_the_configuration_gains_our_runtimes_and_loses_nothing(text: str) -> None:
    changed = installer.with_handlers(text)
    document = tomllib.loads(changed)
    (cri,) = document["plugins"].values()
    assert {"wasm", "wasmtime", "wasmer"} <= set(cri["containerd"]["runtimes"])
    if text:
        assert cri["containerd"]["default_runtime_name"] == "runc"
        assert cri["containerd"]["runtimes"]["runc"]["runtime_type"] == "io.containerd.runc.v2"
    assert document["version"] in (2, 3)
    assert installer.with_handlers(changed) == changed
    assert installer.without_handlers(changed).rstrip() == text.rstrip()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    (made / "bin").mkdir(parents=True)
    for name in installer.EXECUTABLES:
        (made / "bin" / name).write_text("#!/bin/sh\n")
    return made


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    (root / "etc/containerd").mkdir(parents=True)
    (root / "etc/containerd/config.toml").write_text(KIND)
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/other").write_text("stays")
    return root


def test_install_twice_then_uninstall(host: Path, bundle: Path) -> None:
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    assert installer.install(host, bundle) is True
    assert installer.install(host, bundle) is False, "containerd need not be restarted again"
    link = host / "usr/local/bin/containerd-shim-wasm-v1"
    assert os.readlink(link) == "/opt/wasmlab-shim/bin/containerd-shim-wasm-v1"
    assert (host / "opt/wasmlab-shim/bin/containerd-shim-wasm-v1").exists()
    assert installer.uninstall(host) is True
    assert {
        path: path.read_bytes() for path in host.rglob("*") if path.is_file() or path.is_symlink()
    } == before
    assert installer.uninstall(host) is False


def test_somebody_elses_shim_of_that_name_is_left_alone(host: Path, bundle: Path) -> None:
    installer.install(host, bundle)
    link = host / "usr/local/bin/containerd-shim-wasm-v1"
    link.unlink()
    link.write_text("theirs")
    installer.uninstall(host)
    assert link.read_text() == "theirs"


def test_the_command_ends_when_told(host: Path, bundle: Path) -> None:
    argv = [sys.executable, "-m", "wasmlab.containerd.installer", "install"]
    argv += ["--host", str(host), "--bundle", str(bundle), "--no-restart"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "configuration changed" in process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(5)


def test_uninstalling_leaves_the_runtime_classes_to_their_owner() -> None:
    kinds = [one["kind"] for one in installmanifests.installer("x/y:v1", action="uninstall")]
    assert "RuntimeClass" not in kinds
    assert "DaemonSet" in kinds


@pytest.mark.integration
def test_a_real_api_server_takes_the_manifests(cluster: Any) -> None:
    """Server-side dry run, validation and all. The namespace has to exist for what is in it."""
    for action in ("install", "uninstall"):
        manifests = installmanifests.installer("registry.example/wasmlab/installer:v1", action=action)
        cluster.apply(manifests[0])
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text)
        assert done.stdout.count("(server dry run)") == len(manifests)
    cluster.delete(manifests[0])
