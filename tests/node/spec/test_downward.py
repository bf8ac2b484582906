from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.spec import downward, servicelinks
from wasmlab.node.spec.downward import NodeSide

SIDE = NodeSide(
    "n", "192.0.2.1", "192.0.2.2", {"cpu": "2", "memory": "1048576Ki", "ephemeral-storage": "10Gi"}
)
POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": 'say "x"\n', "a": "ü"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}},
            },
            {"name": "bare"},
        ]
    },
}


def resource(name: str, *, container: int = 0, **ref: str) -> str:
    source = {"resourceFieldRef": {"resource": name, **ref}}
    return downward.value(source, POD, POD["spec"]["containers"][container], SIDE)


def test_resources_in_units_of_the_divisor_rounded_up() -> None:
    assert resource("limits.memory") == str(64 << 20)
    assert resource("limits.memory", divisor="1Mi") == "64"
    assert resource("requests.memory", divisor="10Mi") == "4"
    assert resource("requests.cpu") == "1"
    assert resource("requests.cpu", divisor="1m") == "250"
    assert resource("limits.memory", divisor="0") == str(64 << 20)


def test_a_limit_that_is_not_set_is_what_the_node_has() -> None:
    assert resource("limits.cpu") == "2"
    assert resource("limits.memory", container=1, divisor="1Mi") == "1024"
    assert resource("limits.ephemeral-storage", divisor="1Gi") == "10"
    assert resource("requests.memory", container=1) == "0"


def test_another_container_by_name() -> None:
    assert resource("limits.memory", container=1, containerName="c") == str(64 << 20)
    with pytest.raises(ValueError, match="no container 'x'"):
        resource("limits.memory", containerName="x")
    with pytest.raises(ValueError, match=r"limits\.gpu"):
        resource("limits.gpu")


def test_labels_as_a_file_shows_them() -> None:
    source = {"fieldRef": {"fieldPath": "metadata.labels"}}
    assert downward.value(source, POD, {}, SIDE) == 'a="ü"\nb="say \\"x\\"\\n"'


def service(name: str, namespace: str, ip: str = "10.0.0.7", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, **spec}}


def test_service_links() -> None:
    ports = [{"port": 80, "name": "web-ui", "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    made = servicelinks.of_service(service("redis-primary", "ns", ports=ports))
    assert made == {
        "REDIS_PRIMARY_SERVICE_HOST": "10.0.0.7",
        "REDIS_PRIMARY_SERVICE_PORT": "80",
        "REDIS_PRIMARY_SERVICE_PORT_WEB_UI": "80",
        "REDIS_PRIMARY_PORT": "tcp://10.0.0.7:80",
        "REDIS_PRIMARY_PORT_80_TCP": "tcp://10.0.0.7:80",
        "REDIS_PRIMARY_PORT_80_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_80_TCP_PORT": "80",
        "REDIS_PRIMARY_PORT_80_TCP_ADDR": "10.0.0.7",
        "REDIS_PRIMARY_PORT_53_UDP": "udp://10.0.0.7:53",
        "REDIS_PRIMARY_PORT_53_UDP_PROTO": "udp",
        "REDIS_PRIMARY_PORT_53_UDP_PORT": "53",
        "REDIS_PRIMARY_PORT_53_UDP_ADDR": "10.0.0.7",
    }


def test_which_services_a_pod_is_told_of() -> None:
    services = [
        service("kubernetes", "default", "10.0.0.1", ports=[{"port": 443}]),
        service("near", "ns", ports=[{"port": 1}]),
        service("far", "other", ports=[{"port": 1}]),
        service("headless", "ns", "None", ports=[{"port": 1}]),
    ]
    linked = servicelinks.variables(services, "ns", True)
    assert {name for name in linked if name.endswith("_SERVICE_HOST")} == {
        "KUBERNETES_SERVICE_HOST",
        "NEAR_SERVICE_HOST",
    }
    unlinked = servicelinks.variables(services, "ns", False)
    assert {name for name in unlinked if name.endswith("_HOST")} == {"KUBERNETES_SERVICE_HOST"}
    own = [*services, service("kubernetes", "ns", "10.0.0.9", ports=[{"port": 443}])]
    for order in (own, own[::-1]):
        assert servicelinks.variables(order, "ns", True)["KUBERNETES_SERVICE_HOST"] == "10.0.0.9"
    v6 = servicelinks.of_service(service("six", "ns", "fd00::1", ports=[{"port": 1}]))
    assert v6["SIX_PORT"] == "tcp://[fd00::1]:1"
