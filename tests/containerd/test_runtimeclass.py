"""RuntimeClasses and the pods that name them."""

from __future__ import annotations

from wasmlab.containerd import runtimeclass, shims


def test_row_10_of_the_article() -> None:
    assert runtimeclass.runtime_class("wasm") == {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "wasm"},
        "handler": "wasm",
    }


def test_ours_go_only_to_nodes_with_the_shim() -> None:
    classes = runtimeclass.runtime_classes()
    assert [one["handler"] for one in classes] == ["wasm", "wasmtime", "wasmer"]
    assert all(one["scheduling"]["nodeSelector"] == {"wasmlab.dev/shim": "true"} for one in classes)


def test_row_13_of_the_article() -> None:
    spec = runtimeclass.article_deployment("127.0.0.1:5000/hello:v1")["spec"]["template"]["spec"]
    assert spec["runtimeClassName"] == "wasm"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"


def test_a_pod_says_only_what_was_asked() -> None:
    plain = runtimeclass.container_pod("a", "image")
    assert "runtimeClassName" not in plain["spec"]
    assert "annotations" not in plain["metadata"]
    full = runtimeclass.container_pod(
        "a", "image", runtime_class="wasm", engine="wasmer", args=["x"], env={"K": "v"}, node="n"
    )
    assert full["metadata"]["annotations"] == {"wasmlab.dev/engine": "wasmer"}
    assert full["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "n"}


def test_containerd_finds_the_shim_by_its_name() -> None:
    # runtime/v2/shim/util.go: BinaryName("io.containerd.NAME.VERSION")
    assert shims.executable("io.containerd.wasm.v1") == "containerd-shim-wasm-v1"
