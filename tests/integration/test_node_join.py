"""A node joins: bootstrap, manual approval, what describe shows, who may come in, what happens when it is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.lab import push, retire, until
from wasmlab.cluster import manifests

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def manual(cluster: Any) -> Iterator[dict[str, Any]]:
    """A node that somebody approves by hand, and what could be seen before."""
    handle = cluster.add_node(
        "manual",
        wait=False,
        approve=False,
        args=("--node-check-s", "0.5", "--lease-s", "0.5", "--restart-semantics", "krustlet"),
    )
    try:
        until("the request appears", lambda: cluster.csr_state("manual-tls") == "Pending")
        asks = "kubectl certificate approve manual-tls"
        until("it says what it waits for", lambda: asks in handle.log.read_text())
        before = {"node": cluster.node("manual"), "log": handle.log.read_text()}
        cluster.kubectl("certificate", "approve", "manual-tls")
        handle.wait_ready(60, approve=False)
        yield {"handle": handle, "before": before}
    finally:
        retire(cluster, handle)


def test_it_joins_only_after_approval(manual: dict[str, Any]) -> None:
    assert manual["before"]["node"] is None
    assert "kubectl certificate approve manual-tls" in manual["before"]["log"]


def test_describe_shows_the_articles_node(cluster: Any, manual: dict[str, Any]) -> None:
    node = cluster.node("manual")
    labels = node["metadata"]["labels"]
    for key in ("beta.kubernetes.io/arch", "beta.kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/os"):
        assert labels[key] == "wasm32-wasi"
    assert labels["kubernetes.io/hostname"] == "manual"
    assert labels["type"] == "krustlet"
    taints = {(t["key"], t.get("value"), t["effect"]) for t in node["spec"]["taints"]}
    assert {("kubernetes.io/arch", "wasm32-wasi", e) for e in ("NoExecute", "NoSchedule")} <= taints
    text = cluster.kubectl("describe", "node", "manual").stdout
    for line in (
        "Architecture:               wasm-wasi",
        "Operating System:           linux",
        "Container Runtime Version:  mvp",
        "Kubelet Version:            v",
        "PodCIDR:",
        "InternalIP:  127.0.0.1",
        "Hostname:    manual",
        "HolderIdentity:  manual",
        "KubeletReady",
        "OutOfDisk",
    ):
        assert line in text, text
    assert node["status"]["capacity"]["cpu"] == str(len(os.sched_getaffinity(0)))
    assert node["status"]["capacity"]["pods"] == "110"


def test_the_lease_is_renewed(cluster: Any, manual: dict[str, Any]) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/manual"
    first = cluster.rest.get(path)["spec"]["renewTime"]
    assert until("a renewal", lambda: cluster.rest.get(path)["spec"]["renewTime"] != first, 15)


def test_a_deleted_node_object_comes_back(cluster: Any, manual: dict[str, Any]) -> None:
    before = cluster.node("manual")["metadata"]["uid"]
    cluster.rest.call("DELETE", "/api/v1/nodes/manual")
    found = until(
        "the Node is back",
        lambda: (node := cluster.node("manual")) and node["metadata"]["uid"] != before and node,
    )
    assert any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])


def test_the_articles_pod_verbatim_on_a_krustlet_node(
    cluster: Any, manual: dict[str, Any], unique: Any
) -> None:
    name = unique("verbatim")
    pod = manifests.article_pod(name, push(cluster, "hello"))
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "manual"}  # other tests may have other nodes
    cluster.apply(pod)
    status = cluster.wait_pod(name)["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Succeeded", "Completed", "Completed")
    end = status["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["message"], end.get("reason")) == (0, "Module run completed", None)


def test_keys_are_private(manual: dict[str, Any]) -> None:
    directory = manual["handle"].dir
    for path in [directory / "kubeconfig", *(directory / "pki").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert not [p for p in (directory / "pki").iterdir() if p.name.startswith("tmp")]


def test_a_restart_uses_the_same_certificates(cluster: Any, manual: dict[str, Any]) -> None:
    handle = manual["handle"]
    names = {
        c["metadata"]["name"]
        for c in cluster.rest.get("/apis/certificates.k8s.io/v1/certificatesigningrequests")["items"]
        if c["metadata"]["name"].startswith("manual-")
    }
    port = cluster.node("manual")["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    handle.stop_agent()
    handle.start()
    handle.wait_ready(60, approve=False)
    after = {
        c["metadata"]["name"]
        for c in cluster.rest.get("/apis/certificates.k8s.io/v1/certificatesigningrequests")["items"]
        if c["metadata"]["name"].startswith("manual-")
    }
    assert after == names
    assert cluster.node("manual")["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == port


# ---- refusals ----


def agent(cluster: Any, directory: Path, name: str, *more: str) -> list[str]:
    boot = cluster.bootstrap_kubeconfig(directory / "boot")
    return [
        *(
            sys.executable,
            "-m",
            "wasmlab.cli",
            "node",
            "run",
            "--dir",
            str(directory / "n"),
            "--node-name",
            name,
        ),
        *("--kubeconfig", str(directory / "n" / "kubeconfig"), "--bootstrap-kubeconfig", str(boot), *more),
    ]


def _asked_with(cluster: Any, kubeconfig: Path) -> str:
    argv = [*cluster.kubectl_argv("version", "-v=6"), f"--kubeconfig={kubeconfig}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stderr


def test_an_expired_token_is_a_clear_error(cluster: Any, tmp_path: Path) -> None:
    command = agent(cluster, tmp_path, "expired")
    token = re.search(r"token: (\w{6})\.", (tmp_path / "boot").read_text())[1]  # type: ignore[index]
    expired = {"stringData": {"expiration": "2020-01-01T00:00:00Z"}}
    cluster.kubectl(
        "-n", "kube-system", "patch", "secret", f"bootstrap-token-{token}", "-p", json.dumps(expired)
    )
    until("the API server has seen it", lambda: "401" in _asked_with(cluster, tmp_path / "boot"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot ask for a certificate" in done.stderr
    assert "check the bootstrap token (expired?)" in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.csr_state("expired-tls") is None


def test_a_denied_request_is_a_clear_error(cluster: Any, tmp_path: Path) -> None:
    child = subprocess.Popen(agent(cluster, tmp_path, "unwanted"), stderr=subprocess.PIPE, text=True)
    try:
        until("the request appears", lambda: cluster.csr_state("unwanted-tls") == "Pending")
        cluster.kubectl("certificate", "deny", "unwanted-tls")
        _, text = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 1
    assert "unwanted-tls" in text
    assert "refused: Denied" in text
    assert "kubectl delete csr unwanted-tls" in text
    assert cluster.node("unwanted") is None


def test_nobody_approves(cluster: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        agent(cluster, tmp_path, "ignored", "--csr-timeout-s", "1.5"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "nobody approved the serving certificate request ignored-tls within 1.5 s" in done.stderr
    assert "kubectl certificate approve ignored-tls" in done.stderr


def test_no_credentials_at_all(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "wasmlab.cli",
        "node",
        "run",
        "--dir",
        str(tmp_path / "n"),
        "--node-name",
        "x",
    ]
    done = subprocess.run(
        [*argv, "--kubeconfig", str(tmp_path / "no")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "it does not exist" in done.stderr
    assert "--bootstrap-kubeconfig" in done.stderr


def test_two_agents_in_one_directory(cluster: Any, manual: dict[str, Any]) -> None:
    directory = manual["handle"].dir
    argv = [
        sys.executable,
        "-m",
        "wasmlab.cli",
        "node",
        "run",
        "--dir",
        str(directory),
        "--node-name",
        "manual",
    ]
    done = subprocess.run(
        [*argv, "--kubeconfig", str(directory / "kubeconfig")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "another agent runs in" in done.stderr
