"""What a container may listen on: its declared TCP ports, if its module has sockets at all and the ports are free."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from wasmlab.node.inputs import listening
from wasmlab.node.inputs.listening import PortTaken
from wasmlab.node.spec.podspec import Refused

DATA = Path(__file__).resolve().parents[3] / "data/wasm"
SERVE, HELLO = str(DATA / "serve.wasm"), str(DATA / "hello.wasm")


def container(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"name": "c", "ports": list(ports)}


def test_ports_are_what_is_declared():
    declared = container(
        {"containerPort": 8443},
        {"containerPort": 80, "protocol": "TCP"},
        {"containerPort": 80, "hostPort": 80},
    )
    assert listening.ports(declared, SERVE) == (80, 8443)
    assert listening.ports({"name": "c"}, SERVE) == ()


def test_a_module_without_sockets_may_declare_what_it_likes():
    declared = container({"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80, "hostPort": 8080})
    assert listening.ports(declared, HELLO) == ()
    assert listening.ports(declared, str(DATA / "components/hello.wasm")) == ()


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ({"containerPort": 53, "protocol": "UDP"}, "port 53/UDP: a module can listen on TCP ports only"),
        ({"containerPort": 8080, "hostPort": 80}, "port 8080: hostPort 80 would have to be mapped"),
        ({"containerPort": 8080, "hostIP": "192.0.2.7"}, "port 8080: hostIP is for the module to choose"),
    ],
)
def test_what_cannot_be_had_is_refused(port, said):
    with pytest.raises(Refused) as refused:
        listening.ports(container(port), SERVE)
    assert said in str(refused.value)


def test_a_component_that_would_serve_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "component.wasm"
    path.write_bytes(b"\0asm\x0d\0\x01\0" + b"wasi:sockets/tcp@0.2.0")
    with pytest.raises(Refused, match="a component cannot listen here: wasmtime 50's C API"):
        listening.ports(container({"containerPort": 80}), str(path))
    assert listening.ports({"name": "c"}, str(path)) == ()


def test_a_taken_port_is_said_to_be():
    port = free_port()
    listening.refuse_taken((port,))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(PortTaken, match=f"port {port} of this node is in use"):
            listening.refuse_taken((port,))
    listening.refuse_taken((port,))
