"""``wasmlab node join``: nothing but a kubeconfig leads to the cluster, as if somebody else ran it."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.node.lab import NodeLab, push, until
from wasmlab.cluster import processes

pytestmark = pytest.mark.integration

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def join(tmp_path: Path, cluster: Any) -> Iterator[Start]:
    """join(NAME, KUBECONFIG, *options) -> the process; its directory is tmp_path/NAME, its output tmp_path/NAME.log."""
    started: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(name: str, kubeconfig: Path, *options: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "wasmlab", "node", "join", "--kubeconfig", str(kubeconfig)]
        argv += ["--dir", str(tmp_path / name), "--node-name", name, "--address", "127.0.0.1", *options]
        with open(tmp_path / f"{name}.log", "wb") as log:
            child = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, "KUBECONFIG": ""})
        started.append((name, child))
        return child

    yield start
    for name, child in started:
        child.send_signal(signal.SIGTERM)
        child.wait(60)
        processes.end(processes.sandboxes_under(tmp_path / name), 30)
        cluster.rest.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def tokens_for(cluster: Any, node: str) -> list[Any]:
    secrets = cluster.rest.get("/api/v1/namespaces/kube-system/secrets")["items"]
    ends = f"for the node {node}".encode()
    return [s for s in secrets if base64.b64decode(s.get("data", {}).get("description", "")).endswith(ends)]


def test_an_administrators_kubeconfig_is_enough(
    cluster: Any, tmp_path: Path, join: Start, unique: Callable[[str], str]
) -> None:
    name = unique("joined")
    kubeconfig = tmp_path / "admin"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    child = join(name, kubeconfig, "--approve", "--", "--pod-cidr", "", "--label", "from=join")
    log = tmp_path / f"{name}.log"

    def ready() -> bool:
        assert child.poll() is None, log.read_text()
        node = cluster.node(name)
        conditions = node["status"].get("conditions", []) if node else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    until("the node is Ready", ready, 60)
    assert cluster.node(name)["metadata"]["labels"]["from"] == "join"
    # It runs pods, and kubectl reaches it through the API server.
    image, pod = push(cluster, "hello"), unique("hello")

    class Handle:
        pass

    handle: Any = Handle()
    handle.name = name
    lab = NodeLab(cluster, handle)
    assert lab.run(pod, image)["status"]["phase"] == "Succeeded"
    assert "hello from stdout!" in cluster.logs(pod)
    # What let it in is gone, and nothing of the administrator's stays with the node.
    assert tokens_for(cluster, name) == []
    directory = tmp_path / name
    assert not (directory / "bootstrap.kubeconfig").exists()
    admin = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    own = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # its agent is at work
            own += [path.read_text(errors="replace")] if path.is_file() else []
    assert any("client-certificate-data" in text for text in own)
    for secret in ("client-key-data", "client-certificate-data"):
        assert not any(admin[secret] in text for text in own)
    environ = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert str(kubeconfig).encode() not in environ


def test_a_bootstrap_token_and_a_person_are_enough(
    cluster: Any, tmp_path: Path, join: Start, unique: Callable[[str], str]
) -> None:
    name = unique("by-hand")
    kubeconfig = cluster.bootstrap_kubeconfig(tmp_path / "token")
    child = join(name, kubeconfig, "--no-run")
    log = tmp_path / f"{name}.log"
    until(
        "it says what it waits for", lambda: f"kubectl certificate approve {name}-tls" in log.read_text(), 60
    )
    assert child.poll() is None
    assert not (tmp_path / name / "pki" / "serving.pem").exists()
    cluster.kubectl("certificate", "approve", f"{name}-tls")
    assert child.wait(60) == 0, log.read_text()
    said = log.read_text().splitlines()[-1]
    assert said.startswith("joined; the agent is started by: ")
    assert f"--node-name {name}" in said
    assert (tmp_path / name / "kubeconfig").stat().st_mode & 0o077 == 0
    assert kubeconfig.exists()  # it was the user's own


def test_a_token_that_the_cluster_does_not_know_is_refused(
    cluster: Any, tmp_path: Path, join: Start, unique: Callable[[str], str]
) -> None:
    content = yaml.safe_load(cluster.bootstrap_kubeconfig(tmp_path / "token").read_text())
    content["users"][0]["user"]["token"] = "abcdef.0123456789abcdef"
    stranger = tmp_path / "stranger"
    stranger.write_text(yaml.safe_dump(content))
    name = unique("stranger")
    child = join(name, stranger)
    assert child.wait(60) == 1
    said = (tmp_path / f"{name}.log").read_text()
    assert "does not know these credentials" in said
    assert "Traceback" not in said


def test_the_printed_grants_are_what_a_cluster_takes(cluster: Any, tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "wasmlab", "node", "join", "--print-rbac", "--manual-approval"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    objects = list(yaml.safe_load_all(printed))
    assert {o["metadata"]["name"] for o in objects} == {"wasmlab:join", "wasmlab:join-approve-renewed"}
    path = tmp_path / "rbac.yaml"
    path.write_bytes(printed)
    cluster.kubectl("apply", "--dry-run=server", "-f", str(path))
