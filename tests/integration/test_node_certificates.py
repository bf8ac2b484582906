"""A node's certificates are renewed in time, and the node goes on with the new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.node.endpointkit import Endpoint
from tests.node.lab import NodeLab, push, retire, until
from wasmlab.node.membership import bootstrap, csr

pytestmark = pytest.mark.integration

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LIFE_S = 600  # the shortest that the API takes
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    """A node whose certificates live for ten minutes, and that renews them after three seconds."""
    args = ("--certificate-s", str(LIFE_S), "--rotate-at", str(3 / LIFE_S))
    # By hand: who waits for the node and approves on the way may approve the next request, too.
    node = cluster.add_node("renewing", wait=False, approve=False, args=args)
    until("the first request", lambda: cluster.csr_state("renewing-tls") == "Pending", PATIENCE_S)
    cluster.kubectl("certificate", "approve", "renewing-tls")
    node.wait_ready(PATIENCE_S, approve=False)
    yield NodeLab(cluster, node)
    retire(cluster, node)


def requests(cluster: Any, prefix: str) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one
        for one in cluster.rest.get(CSRS)["items"]
        if one["metadata"]["name"].startswith(prefix)
    }


def client_serial(lab: NodeLab) -> int:
    pem = bootstrap.own_certificate(lab.node.kubeconfig)
    assert pem is not None
    return x509.load_pem_x509_certificate(pem).serial_number


def test_both_are_renewed_and_the_node_goes_on(
    cluster: Any, lab: NodeLab, unique: Callable[[str], str]
) -> None:
    endpoint = Endpoint(cluster, lab.node)
    image = push(cluster, "console")
    before = unique("before")
    lab.apply(before, image, container={"args": ["out:up", "sleep:600"]})
    lab.running(before)
    serving, client = endpoint.serial(), client_serial(lab)

    # The client's renewal is approved by the controller manager.
    until("a new client certificate", lambda: client_serial(lab) != client, PATIENCE_S)
    pem = bootstrap.own_certificate(lab.node.kubeconfig)
    assert pem is not None
    issued = x509.load_pem_x509_certificate(pem)
    assert (issued.not_valid_after_utc - issued.not_valid_before_utc).total_seconds() <= LIFE_S + 300
    content = yaml.safe_load(lab.node.kubeconfig.read_text())
    assert content["clusters"][0]["cluster"]["server"] == cluster.server

    # The endpoint's waits for somebody, and the old one serves meanwhile.
    def pending() -> list[str]:
        asked = requests(cluster, "renewing-tls-").values()
        return [one["metadata"]["name"] for one in asked if csr.decision(one) == csr.Decision()]

    name = until("a request for the next serving certificate", pending, PATIENCE_S)[0]
    assert endpoint.serial() == serving
    cluster.kubectl("certificate", "approve", name)
    until("the endpoint shows it", lambda: endpoint.serial() != serving, PATIENCE_S)

    # Nothing of this has disturbed what runs, and the new certificates are good for all that a node does.
    assert cluster.kubectl("exec", before, "--", "out:through the new one").stdout == "through the new one\n"
    after = unique("after")
    assert lab.run(after, image, container={"args": ["out:new"]})["status"]["phase"] == "Succeeded"
    assert lab.get(before)["status"]["containerStatuses"][0]["restartCount"] == 0
    # Its figures agree with its log. (That no request ever failed is nothing that a busy machine can promise.)
    names = {
        "client": "kubelet_certificate_manager_client_expiration_renew_errors",
        "server": "kubelet_server_expiration_renew_errors",
    }

    def told() -> dict[str, int]:
        lines = endpoint.ask("/metrics", certificate=endpoint.api_server)[1].splitlines()
        return {
            name: int(line.split()[1])
            for name in names.values()
            for line in lines
            if line.startswith(f"{name} ")
        }

    def logged() -> dict[str, int]:
        lines = [
            line for line in lab.node.log.read_text().splitlines() if "cannot renew a certificate" in line
        ]
        return {name: sum(f"kind={kind}" in line for line in lines) for kind, name in names.items()}

    until("figures and log agree", lambda: told() == logged())
    pki = lab.node.dir / "pki"
    for path in pki.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a renewal is under way
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_restart_goes_on_with_the_request_that_is_out(cluster: Any, lab: NodeLab) -> None:
    def pending() -> set[str]:
        asked = requests(cluster, "renewing-tls-").items()
        return {name for name, one in asked if csr.decision(one) == csr.Decision()}

    name = until("a request for the next serving certificate", pending, PATIENCE_S)
    lab.node.stop_agent()
    lab.node.start()
    lab.node.wait_ready(PATIENCE_S, approve=False)
    endpoint = Endpoint(cluster, lab.node)
    serving = endpoint.serial()
    cluster.kubectl("certificate", "approve", *name)
    until(
        "the endpoint shows the certificate of that request", lambda: endpoint.serial() != serving, PATIENCE_S
    )
    issued = x509.load_pem_x509_certificate((lab.node.dir / "pki" / "serving.pem").read_bytes())
    assert issued.serial_number == endpoint.serial()


def test_a_node_that_has_lost_its_certificate_asks_under_another_name(cluster: Any, lab: NodeLab) -> None:
    """What an address that has changed comes to, too: the first name is taken, by a key that is gone."""
    lab.node.stop_agent()
    before = set(requests(cluster, "renewing-tls"))
    for name in ("serving.pem", "serving-next.key"):
        (lab.node.dir / "pki" / name).unlink(missing_ok=True)
    lab.node.start()

    def issued() -> list[str]:
        # It approves whatever serving request this node has sent; right after a restart it may find the node still
        # Ready by the agent before.
        lab.node.wait_ready(PATIENCE_S)
        fresh = set(requests(cluster, "renewing-tls-")) - before
        return [name for name in fresh if cluster.csr_state(name) == "Issued"]

    until("a certificate under another name", issued, PATIENCE_S)
    Endpoint(cluster, lab.node).serial()  # it serves
