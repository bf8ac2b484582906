"""The manifests that others build on."""

from __future__ import annotations

from wasmlab.cluster import manifests


def test_wasm_pod_tolerates_exactly_the_taints_of_a_wasm_node() -> None:
    pod = manifests.wasm_pod("hello", "127.0.0.1:5000/hello:v1")
    assert pod["spec"]["tolerations"] == [
        {"key": "kubernetes.io/arch", "operator": "Equal", "value": "wasm32-wasi", "effect": "NoExecute"},
        {"key": "kubernetes.io/arch", "operator": "Equal", "value": "wasm32-wasi", "effect": "NoSchedule"},
    ]
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/arch": "wasm32-wasi"}
    assert pod["spec"]["restartPolicy"] == "Never"
    assert "annotations" not in pod["metadata"]


def test_wasm_pod_carries_what_it_is_given() -> None:
    pod = manifests.wasm_pod(
        "calc", "r/calc:1", engine="wasmer", args=["7"], env={"A": "b"}, node="n1", namespace="lab",
        restart_policy="OnFailure", annotations={"x": "y"}, image_pull_policy="Always",
    )  # fmt: skip
    container = pod["spec"]["containers"][0]
    assert pod["metadata"]["annotations"] == {"x": "y", "wasmlab.dev/engine": "wasmer"}
    assert pod["metadata"]["namespace"] == "lab"
    assert container["args"] == ["7"]
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert container["imagePullPolicy"] == "Always"
    assert pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] == "n1"
    assert pod["spec"]["restartPolicy"] == "OnFailure"


def test_article_pod_is_the_articles() -> None:
    pod = manifests.article_pod("hello-wasm", "registry/hello-wasm:v1")
    assert pod["spec"]["restartPolicy"] == "Always"
    assert set(pod["spec"]) == {"containers", "restartPolicy", "tolerations"}
    assert pod["spec"]["containers"] == [{"name": "hello-wasm", "image": "registry/hello-wasm:v1"}]


def test_manifests_share_nothing() -> None:
    one, two = manifests.wasm_pod("a", "x"), manifests.wasm_pod("b", "x")
    one["spec"]["tolerations"].clear()
    assert len(two["spec"]["tolerations"]) == 2
