"""Row 8 of the article: kind nodes that have the shim."""

from __future__ import annotations

from wasmlab.cluster.kind import kind_config


def test_the_articles_configuration() -> None:
    config = kind_config(config_file="config/containerd.toml")
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    control_plane, worker = config["nodes"]
    assert control_plane == {"role": "control-plane"}
    mounts = {mount["containerPath"]: mount["hostPath"] for mount in worker["extraMounts"]}
    assert mounts == {
        "/etc/containerd/config.toml": "config/containerd.toml",
        "/usr/local/bin/containerd-shim-wasm-v1": "bin/containerd-shim-wasm-v1",
    }
    assert worker["labels"] == {"wasmlab.dev/shim": "true"}


def test_a_patch_in_place_of_the_whole_file() -> None:
    config = kind_config(patches=["[plugins]"], bundle="/b", workers=2, image="kindest/node:v1.37.2")
    assert config["containerdConfigPatches"] == ["[plugins]"]
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    assert {node["image"] for node in config["nodes"]} == {"kindest/node:v1.37.2"}
    mounts = {mount["containerPath"] for mount in config["nodes"][1]["extraMounts"]}
    assert "/opt/wasmlab-shim" in mounts
    assert "/etc/containerd/config.toml" not in mounts
