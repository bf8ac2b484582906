"""Components (WASI 0.2 commands) as Pods on a real control plane: in either layout on wasmtime, refused on wasmer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.node.lab import NodeLab, terminated
from wasmlab.modules import workloads
from wasmlab.oci import Client

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(node_cluster: Any) -> NodeLab:
    return NodeLab(node_cluster, node_cluster.nodes["wasm-node"])


def push(lab: NodeLab, layout: Any) -> str:
    reference = f"{lab.cluster.registry}/hello-component:{layout}"
    Client().push(workloads.get("hello/component").path, reference, layout=layout)
    assert Client().inspect(reference).layout == layout
    return reference


@pytest.mark.parametrize("layout", ["cncf", "wasm-to-oci"])
def test_a_component_runs_as_a_pod(lab: NodeLab, unique: Name, layout: str) -> None:
    name = unique("component")
    pod = lab.run(name, push(lab, layout), engine="wasmtime", args=("from", "a pod"))
    assert pod["status"]["phase"] == "Succeeded", pod["status"]
    assert terminated(pod)["exitCode"] == 0
    assert lab.cluster.logs(name).splitlines() == [
        "hello from stdout!",
        "hello from stderr!",
        'Args are: ["from", "a pod"]',
    ]


def test_wasmer_refuses_a_component_in_the_pods_status(lab: NodeLab, unique: Name) -> None:
    name = unique("component-wasmer")
    lab.apply(name, push(lab, "cncf"), engine="wasmer")
    message = lab.waiting(name, "CreateContainerConfigError")
    assert "wasmer cannot run this component" in message and "use engine wasmtime" in message
    assert lab.get(name)["status"]["phase"] == "Pending"
    lab.cluster.rest.call("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
