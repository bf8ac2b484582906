from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.spec import podspec
from wasmlab.node.spec.podspec import Refused


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "annotations": spec.pop("annotations", {})},
        "spec": spec,
    }


def test_the_engine_by_annotation() -> None:
    made = pod(annotations={"wasmlab.dev/engine": "wasmer", "wasmlab.dev/engine.b": "wasmtime"})
    assert podspec.engine_of(made, "a", "wasmtime") == "wasmer"
    assert podspec.engine_of(made, "b", "wasmer") == "wasmtime"
    assert podspec.engine_of(pod(), "a", "wasmtime") == "wasmtime"


def test_restart_semantics() -> None:
    assert podspec.semantics_of(pod(), "kubernetes") == "kubernetes"
    made = pod(annotations={"wasmlab.dev/restart-semantics": "krustlet"})
    assert podspec.semantics_of(made, "kubernetes") == "krustlet"
    typo = pod(annotations={"wasmlab.dev/restart-semantics": "crustlet"})
    assert podspec.semantics_of(typo, "kubernetes") == "kubernetes"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("127.0.0.1:5000/hello:v1", "hello"),
        ("r.example/a/b/c@sha256:" + "0" * 64, "c"),
        ("hello", "hello"),
        ("", "module"),
    ],
)
def test_argv0(image: str, name: str) -> None:
    assert podspec.module_name(image) == name


def test_memory() -> None:
    assert podspec.memory_limit({}) is None
    assert podspec.memory_limit({"resources": {"limits": {"memory": "64Mi"}}}) == 64 << 20
    with pytest.raises(Refused, match="quantity"):
        podspec.memory_limit({"resources": {"limits": {"memory": "lots"}}})


def test_readiness_gates() -> None:
    made = pod(readinessGates=[{"conditionType": "a"}, {"conditionType": "b"}])
    assert podspec.closed_gates(made) == ["a", "b"]
    made["status"] = {"conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]}
    assert podspec.closed_gates(made) == ["b"]
    assert podspec.closed_gates(pod()) == []


def test_every_reason_is_named_at_once() -> None:
    container: dict[str, Any] = {"workingDir": "/x", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}
    container["livenessProbe"] = {"grpc": {"port": 1, "mode": "TLS"}}
    with pytest.raises(Refused) as caught:
        podspec.check(pod(), container)
    for word in ("workingDir", "volumeDevices", "livenessProbe.grpc: mode TLS"):
        assert word in str(caught.value)


def test_mounts() -> None:
    container = {
        "volumeMounts": [
            {"name": "e", "mountPath": "/e"},
            {"name": "h", "mountPath": "/h", "readOnly": True, "subPath": "in/"},
            {"name": "h", "mountPath": "/x", "subPathExpr": "$(POD)/logs"},
        ]
    }
    empty, host, logs = podspec.mounts(container, {"POD": "p-1"})
    assert (empty.guest, empty.name, empty.read_only) == ("/e", "e", False)
    assert (host.sub_path, host.read_only) == ("in", True)
    assert logs.sub_path == "p-1/logs"


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ({"subPath": "../etc"}, "subPath"),
        ({"subPathExpr": "$(X)"}, "subPath"),
        ({"subPath": "/etc"}, "subPath"),
        ({"mountPropagation": "Bidirectional"}, "propagate"),
    ],
)
def test_what_is_not_served_is_refused(mount: dict, said: str) -> None:
    with pytest.raises(Refused, match=said):
        podspec.mounts({"volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}, {"X": "a/../.."})
