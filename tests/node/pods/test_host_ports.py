"""Pods that claim ports of the node: admitted as the kubelet admits them."""

from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.pods.admission import Account


def pod(uid: str, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": uid, "name": uid, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "ports": list(ports)}], **spec},
    }


CLAIM = {"containerPort": 80, "hostPort": 80}


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        ({"containerPort": 80, "hostPort": 80}, False),
        ({"containerPort": 8080, "hostPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"}, False),
        ({"containerPort": 80, "hostPort": 80, "hostIP": "192.0.2.7"}, False),
        ({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}, True),
        ({"containerPort": 80, "hostPort": 81}, True),
        ({"containerPort": 80}, True),
    ],
)
def test_two_pods_on_one_port(other, fits):
    account = Account({})
    assert account.admit(pod("one", CLAIM)) is None
    verdict = account.admit(pod("two", other))
    assert (verdict is None) is fits
    if verdict is not None:
        assert verdict.reason == "NodePorts" and "free ports" in verdict.message
        account.release("one")
        assert account.admit(pod("two", other)) is None


def test_different_addresses_do_not_collide():
    account = Account({})
    assert account.admit(pod("one", {**CLAIM, "hostIP": "192.0.2.7"})) is None
    assert account.admit(pod("two", {**CLAIM, "hostIP": "192.0.2.8"})) is None


def test_what_runs_already_and_sidecars_count():
    account = Account({})
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [CLAIM]}
    account.taken(pod("one", initContainers=[sidecar]))
    assert account.admit(pod("two", CLAIM)) is not None
