from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.node.spec import env
from wasmlab.node.spec.env import ConfigError, NodeSide

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u-1",
        "labels": {"app": "x"},
        "annotations": {"a.b/c": "y"},
    },
    "spec": {"serviceAccountName": "default"},
}
SIDE = NodeSide("node-1", "192.0.2.1", "192.0.2.2")


def build(container: dict[str, Any], objects: dict[Any, Any] | None = None) -> dict[str, str]:
    return env.build(container, POD, SIDE, objects or {})


def field(path: str) -> str:
    return build({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]})["X"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A}", "$A ${A}"),
        ("$", "$"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("", ""),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert env.expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_dollars_is_left_alone(text: str) -> None:
    assert env.expand(text, {"A": "1"}) == text


def test_values_see_what_came_before_and_not_what_comes_after() -> None:
    got = build(
        {
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)$(C)"},
                {"name": "C", "value": "3"},
            ]
        }
    )
    assert got == {"A": "1", "B": "1$(C)", "C": "3"}


def test_downward_api() -> None:
    assert field("metadata.name") == "p"
    assert field("metadata.namespace") == "ns"
    assert field("metadata.uid") == "u-1"
    assert field("spec.nodeName") == "node-1"
    assert field("status.podIP") == "192.0.2.2"
    assert field("status.hostIP") == "192.0.2.1"
    assert field("metadata.labels['app']") == "x"
    assert field("metadata.annotations['a.b/c']") == "y"
    assert field("metadata.labels['none']") == ""


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"spec\.priority"):
        field("spec.priority")


def test_an_unsupported_source_is_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigError, match="fileKeyRef is not supported"):
        build({"env": [{"name": "X", "valueFrom": {"fileKeyRef": {"path": "x"}}}]})


def test_what_the_node_cannot_say_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"limits\.gpu"):
        build({"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]})


def test_variables_of_services_give_way_to_the_containers_own() -> None:
    service = {
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 443, "name": "https"}]},
    }
    env_list = [
        {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)"},
        {"name": "KUBERNETES_PORT", "value": "mine"},
    ]
    made = env.build({"env": env_list}, POD, SIDE, {}, [service])
    assert made["URL"] == "https://10.0.0.1:443"
    assert made["KUBERNETES_PORT"] == "mine"
    assert made["KUBERNETES_PORT_443_TCP_ADDR"] == "10.0.0.1"


def test_a_sub_path_expression_needs_every_name() -> None:
    assert env.expand_strictly("$(A)/x$$", {"A": "1"}) == "1/x$"
    with pytest.raises(ConfigError, match="missing value for 'B'"):
        env.expand_strictly("$(A)/$(B)", {"A": "1"})


def test_config_maps_and_secrets() -> None:
    container = {
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}],
        "env": [
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
            {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}},
        ],
    }
    assert [r for r, _ in env.references(container)] == [
        ("ConfigMap", "c"),
        ("ConfigMap", "c"),
        ("Secret", "s"),
        ("Secret", "s"),
    ]
    objects = {
        ("ConfigMap", "c"): {"data": {"k": "v"}},
        ("Secret", "s"): {"data": {"pw": base64.b64encode(b"hunter2").decode()}},
    }
    assert build(container, objects) == {"P_k": "v", "ONE": "v", "TWO": "hunter2"}


def test_what_is_missing_and_not_optional_is_named() -> None:
    with pytest.raises(ConfigError, match='configmap "c" not found in namespace ns'):
        build({"envFrom": [{"configMapRef": {"name": "c"}}]}, {("ConfigMap", "c"): None})
    with pytest.raises(ConfigError, match="couldn't find key k in ConfigMap ns/c"):
        build(
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]},
            {("ConfigMap", "c"): {"data": {}}},
        )
    assert (
        build({"envFrom": [{"configMapRef": {"name": "c", "optional": True}}]}, {("ConfigMap", "c"): None})
        == {}
    )


def test_a_secret_that_is_not_text_is_refused_without_showing_it() -> None:
    raw = base64.b64encode(b"\xff\xfe").decode()
    with pytest.raises(ConfigError) as caught:
        build(
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            {("Secret", "s"): {"data": {"k": raw}}},
        )
    assert raw not in str(caught.value)


def test_argv() -> None:
    assert env.argv({}, {}, "hello") == ("hello",)
    assert env.argv({"args": ["a", "$(X)"]}, {"X": "1"}, "hello") == ("hello", "a", "1")
    assert env.argv({"command": ["/bin/x", "-v"], "args": ["a"]}, {}, "hello") == ("/bin/x", "-v", "a")
