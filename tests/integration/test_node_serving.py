"""Modules that serve, on a real control plane: a Deployment behind a Service whose endpoints a real controller made."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.lab import NodeLab, until
from tests.ports import ask, free_port
from wasmlab import engines
from wasmlab.node.host import machine
from wasmlab.oci import Client

pytestmark = pytest.mark.integration

Name = Callable[[str], str]
SERVE = Path(__file__).resolve().parents[2] / "data/wasm/serve.wasm"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.fixture(scope="module")
def lab(node_cluster: Any) -> NodeLab:
    if ipaddress.ip_address(machine.default_address()).is_loopback:
        pytest.skip("this machine has no address but loopback, which no endpoint may hold")
    return NodeLab(node_cluster, node_cluster.nodes["wasm-node"])


@pytest.fixture(scope="module")
def image(lab: NodeLab) -> str:
    reference = f"{lab.cluster.registry}/serve:v1"
    Client().push(SERVE, reference)
    return reference


class Deployment:
    """A Deployment of one server, and its Service."""

    def __init__(self, lab: NodeLab, name: str, image: str) -> None:
        self.lab, self.name, self.port = lab, name, free_port()
        template = lab.pod(name, image, args=(str(self.port), "first"), restart_policy="Always")
        spec = template["spec"]
        # The scheduler then keeps two such pods from one node, and a rollout ends the old one first.
        spec["hostNetwork"] = True
        spec["containers"][0] |= {
            "ports": [{"name": "http", "containerPort": self.port}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        }
        labels = {"app": name}
        self.path = f"/apis/apps/v1/namespaces/default/deployments/{name}"
        lab.cluster.apply(
            [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": name},
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": labels},
                        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                        "template": {"metadata": {"labels": labels}, "spec": spec},
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name},
                    "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
                },
            ]
        )

    def endpoints(self) -> list[tuple[str, int, str]]:
        """Address, port and pod of what the Service reaches now."""
        found = self.lab.cluster.rest.get(f"{SLICES}?labelSelector=kubernetes.io/service-name={self.name}")
        return [
            (address, port["port"], one["targetRef"]["name"])
            for item in found["items"]
            for one in item.get("endpoints") or ()
            if one["conditions"]["ready"]
            for address in one["addresses"]
            for port in item["ports"]
        ]

    def reach(self, says: str, *, path: str = "/", other_than: str = "") -> str:
        """Wait until the one endpoint answers so; return the pod."""

        def probe() -> Any:
            now = self.endpoints()
            if len(now) != 1 or now[0][2] == other_than:
                return None
            address, port, pod = now[0]
            answer = ask(address, port, path)
            return [pod] if answer is not None and answer.startswith(says) else None

        return until(f"the endpoint of {self.name} says {says}", probe)[0]

    def remove(self) -> None:
        rest = self.lab.cluster.rest
        rest.call("DELETE", f"{self.path}?propagationPolicy=Background")
        rest.call("DELETE", f"/api/v1/namespaces/default/services/{self.name}")


def remove(lab: NodeLab, pod: str) -> None:
    lab.cluster.rest.call("DELETE", f"/api/v1/namespaces/default/pods/{pod}?gracePeriodSeconds=0")


@pytest.fixture
def deployment(lab: NodeLab, image: str, unique: Name) -> Iterator[Deployment]:
    one = Deployment(lab, unique("serve"), image)
    yield one
    one.remove()
    until("nobody listens any more", lambda: ask("127.0.0.1", one.port) is None)


def test_a_service_reaches_the_module_through_crash_and_rollout(
    lab: NodeLab, deployment: Deployment, image: str, unique: Name
) -> None:
    pod = deployment.reach("first says hello")
    address, port, _ = deployment.endpoints()[0]
    status = lab.get(pod)["status"]
    assert (address, port) == (status["podIP"], deployment.port)
    assert not ipaddress.ip_address(address).is_loopback

    # Logs flow and instances run beside it; they have no network, whatever the pod declares.
    until("the log has the request", lambda: "/ 200" in lab.cluster.logs(pod).splitlines())
    assert lab.cluster.logs(pod).startswith(f"listening on port {port}\n")
    done = lab.cluster.kubectl("exec", pod, "--", str(port), check=False)
    assert done.returncode == 1 and "given no network" in done.stderr

    # Another pod that wants the port is told, and comes up as soon as it can; nothing tells the scheduler of it.
    rival = unique("rival")
    lab.apply(rival, image, args=(str(port), "rival"), container={"ports": [{"containerPort": port}]})
    assert f"port {port} of this node is in use" in lab.waiting(rival, "CreateContainerError")
    remove(lab, rival)

    # A crash: restarted by restartPolicy, and ready again.
    assert ask(address, port, "/exit/3") == "bye\n"
    until("it was restarted", lambda: lab.container(pod).get("restartCount") == 1)
    assert lab.container(pod)["lastState"]["terminated"]["exitCode"] == 3
    assert deployment.reach("first says hello") == pod

    # A rollout: the old one ends, by SIGTERM within its grace period, then the new one answers.
    args = [str(port), "second"]
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}]
    lab.cluster.rest.call("PATCH", deployment.path, body=patch, content_type="application/json-patch+json")
    assert deployment.reach("second says hello", other_than=pod) != pod

    # No replica: the Service has no endpoint, and nobody answers.
    scale = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
    lab.cluster.rest.call("PATCH", deployment.path, body=scale, content_type="application/json-patch+json")
    until("no endpoint is left", lambda: not deployment.endpoints())
    until("nobody answers", lambda: ask(address, port) is None)


def test_a_module_whose_pod_declares_no_port_has_no_network(lab: NodeLab, image: str, unique: Name) -> None:
    name = unique("undeclared")
    pod = lab.run(name, image, args=(str(free_port()),))
    assert pod["status"]["phase"] == "Failed"
    assert "this program was given no network" in lab.cluster.logs(name)


def test_wasmer_serves_too_or_says_why_not(lab: NodeLab, image: str, unique: Name) -> None:
    name, port = unique("wasmer-serves"), free_port()
    ports = {"ports": [{"containerPort": port}]}
    lab.apply(name, image, engine="wasmer", args=(str(port), "wasmer"), container=ports)
    if engines.get("wasmer").capabilities.listens:
        assert until("it answers", lambda: ask("127.0.0.1", port)) == "wasmer says hello, request 1\n"
    else:
        assert "wasmer cannot let the module listen" in lab.waiting(name, "CreateContainerConfigError")
    remove(lab, name)


def test_what_cannot_be_listened_on_is_refused(lab: NodeLab, image: str, unique: Name) -> None:
    name = unique("mapped")
    ports = [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
    lab.apply(name, image, container={"ports": ports})
    message = lab.waiting(name, "CreateContainerConfigError")
    assert "hostPort 80 would have to be mapped" in message and "53/UDP" in message
    remove(lab, name)
