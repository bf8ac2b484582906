"""The configurations: parsed here, and for containerd accepted by the real program."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from wasmlab.containerd import build, config, programs
from wasmlab.containerd.layout import Layout
from wasmlab.errors import ClusterError

CRI = {1: "io.containerd.grpc.v1.cri", 2: "io.containerd.cri.v1.runtime"}


def toml(major: int, root: Path) -> str:
    return config.containerd_toml(
        major,
        root=root / "root",
        state=root / "state",
        socket=root / "containerd.sock",
        runc_root=root / "runc",
        opt=root / "opt",
        sandbox_image="wasmlab.dev/pause:1",
        cni_bin=Path("/usr/lib/cni"),
        cni_conf=root / "net.d",
        registries=root / "registries",
    )


@pytest.mark.parametrize("major", [1, 2])
def test_the_three_handlers_and_runc(major: int, tmp_path: Path) -> None:
    document = tomllib.loads(toml(major, tmp_path))
    assert document["version"] == major + 1
    cri = document["plugins"][CRI[major]]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    kinds = {name: entry["runtime_type"] for name, entry in cri["containerd"]["runtimes"].items()}
    assert kinds == {
        "runc": "io.containerd.runc.v2",
        "wasm": "io.containerd.wasm.v1",
        "wasmtime": "io.containerd.wasmtime.v1",
        "wasmer": "io.containerd.wasmer.v1",
    }


def test_a_path_with_quotes_stays_a_path(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" \\ path'
    assert tomllib.loads(toml(1, odd))["root"] == str(odd / "root")


def containerds() -> list[object]:
    """Return the installed containerds; an absent one is skipped by name."""
    system, built = programs.which("containerd"), build.find()
    return [
        pytest.param(
            system, id="debian", marks=[] if system else pytest.mark.skip("containerd is not installed")
        ),
        pytest.param(
            built and built / "containerd",
            id="2.x",
            marks=[] if built else pytest.mark.skip("containerd 2 has not been built"),
        ),
    ]


@pytest.mark.parametrize("daemon", containerds())
def test_the_real_containerd_takes_it(daemon: Path, tmp_path: Path) -> None:
    said = subprocess.run(
        [daemon, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    major = 2 if " v2." in said or " 2." in said else 1
    path = tmp_path / "config.toml"
    path.write_text(toml(major, tmp_path))
    done = subprocess.run(
        [daemon, "--config", path, "config", "dump"], capture_output=True, text=True, check=True, timeout=30
    )
    merged = tomllib.loads(done.stdout)
    runtimes = merged["plugins"][CRI[major]]["containerd"]["runtimes"]
    assert runtimes["wasm"]["runtime_type"] == "io.containerd.wasm.v1"
    assert str(tmp_path / "root") == merged["root"]
    # An option that this version does not know is dropped with a warning: none may be.
    assert "unknown" not in done.stderr.lower()


@pytest.mark.parametrize("major", [1, 2])
def test_the_part_for_other_peoples_containerd(major: int) -> None:
    document = tomllib.loads(config.handlers_snippet(major))
    assert set(document["plugins"][CRI[major]]["containerd"]["runtimes"]) == {"wasm", "wasmtime", "wasmer"}


def test_registries_on_this_machine_are_asked_by_http() -> None:
    document = tomllib.loads(config.hosts_toml("127.0.0.1:5000"))
    assert document["server"] == "http://127.0.0.1:5000"
    assert document["host"]["http://127.0.0.1:5000"]["capabilities"] == ["pull", "resolve"]


def test_the_pod_network_leads_nowhere(tmp_path: Path) -> None:
    document = json.loads(config.cni_conflist("net", "br", "10.1.2.0/24", "10.1.2.1", tmp_path))
    (bridge,) = document["plugins"]
    assert bridge["ipMasq"] is False
    assert bridge["ipam"]["dataDir"] == str(tmp_path)


def test_names_follow_from_the_directory(tmp_path: Path) -> None:
    one, same, other = Layout.of(tmp_path / "a"), Layout.of(tmp_path / "a" / "."), Layout.of(tmp_path / "b")
    assert one.id == same.id != other.id
    assert len(one.bridge) <= 15
    assert one.bridge != other.bridge


def test_a_directory_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="too long"):
        Layout.of(tmp_path / ("x" * 80))
