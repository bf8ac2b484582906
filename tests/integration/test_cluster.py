"""The real control plane: start, stop, crash, two at once, and what it lets others see."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.cluster import processes_with
from wasmlab.cluster import Cluster, wasm_pod
from wasmlab.errors import ClusterError, NotReady, ProcessError
from wasmlab.reference.documents import DOCUMENTS

pytestmark = pytest.mark.integration

Unique = Callable[[str], str]


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"kept": "yes"}}


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture
def fake_node(cluster: Cluster, unique: Unique) -> Iterator[str]:
    """A Node that nobody runs: the scheduler cannot tell the difference."""
    name = unique("fake")
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/arch": "wasm32-wasi"}},
            "spec": {
                "taints": [{"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoSchedule"}]
            },
        }
    )
    resources = {"cpu": "4", "memory": "4Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    cluster.rest.call(
        "PATCH",
        f"/api/v1/nodes/{name}/status",
        body={"status": {"capacity": resources, "allocatable": resources, "conditions": [ready]}},
        content_type="application/merge-patch+json",
    )
    yield name
    cluster.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


# ---------------------------------------------------------------- what it does


def test_versions_are_what_go_mod_says(cluster: Cluster) -> None:
    said = json.loads(cluster.kubectl("version", "-o", "json").stdout)
    assert said["serverVersion"]["gitVersion"] == said["clientVersion"]["gitVersion"] == "v1.37.2"


def test_a_pod_is_bound_and_the_node_gets_addresses(cluster: Cluster, fake_node: str, unique: Unique) -> None:
    name = unique("pod")
    started = time.monotonic()
    cluster.apply(wasm_pod(name, "127.0.0.1:1/none:v1"))
    while (
        bound := cluster.rest.get(f"/api/v1/namespaces/default/pods/{name}")["spec"].get("nodeName")
    ) is None:
        assert time.monotonic() - started < 60, cluster.events(name)
        time.sleep(0.01)
    assert bound == fake_node
    node = cluster.node(fake_node)
    assert node is not None
    assert node["spec"]["podCIDR"].startswith("10.244.")
    cluster.delete(wasm_pod(name, "x"), grace_s=0)
    cluster.wait_gone(name)


def test_waiting_has_a_deadline_and_tells_the_events(cluster: Cluster, unique: Unique) -> None:
    pod = wasm_pod(unique("pod"), "127.0.0.1:1/none:v1", node="no-such-node")
    cluster.apply(pod)
    name = pod["metadata"]["name"]
    deadline = time.monotonic() + 60
    while not cluster.events(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(NotReady, match="FailedScheduling"):
        cluster.wait_pod(name, timeout_s=1)
    cluster.delete(pod)


def test_apply_creates_changes_and_refuses(cluster: Cluster, unique: Unique) -> None:
    one = config_map(unique("map"))
    cluster.apply(one)
    one["data"] = {"kept": "no"}
    (answer,) = cluster.apply([one])
    assert answer["data"] == {"kept": "no"}
    with pytest.raises(ClusterError, match="knows no Nonsense"):
        cluster.apply({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}})
    with pytest.raises(ClusterError, match="Invalid value"):
        cluster.apply(config_map("Not A Name"))
    cluster.delete([one, one])  # the second time it is gone already


def test_kubectl_failures_carry_its_words(cluster: Cluster) -> None:
    with pytest.raises(ProcessError, match="doesn't have a resource type") as caught:
        cluster.kubectl("get", "nonsense")
    assert caught.value.returncode == 1
    assert cluster.kubectl("get", "nonsense", check=False).returncode == 1


def test_the_registry_speaks_the_distribution_api(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"http://{cluster.registry}/v2/", timeout=5) as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_bootstrap_token_may_ask_to_join_and_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    path = cluster.bootstrap_kubeconfig(tmp_path / "bootstrap.kubeconfig")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    joiner = Cluster.from_kubeconfig(path)
    assert joiner.kubectl("auth", "can-i", "create", "certificatesigningrequests").stdout.strip() == "yes"
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "pods")):
        assert joiner.kubectl("auth", "can-i", verb, what, check=False).stdout.strip() == "no", (
            f"{verb} {what}"
        )


def test_client_certificates_are_approved_and_serving_ones_wait(cluster: Cluster, tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    joiner = Cluster.from_kubeconfig(cluster.bootstrap_kubeconfig(tmp_path / "b.kubeconfig"))

    def request(name: str, signer: str, usages: list[str], who: Cluster) -> None:
        import base64

        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, "system:node:joiner"),
            ]
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if "server auth" in usages:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName("joiner")]), critical=False
            )
        csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM)
        who.rest.call(
            "POST",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            body={
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"name": name},
                "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages},
            },
        )

    client_usages = ["digital signature", "client auth"]
    request("joiner-client", "kubernetes.io/kube-apiserver-client-kubelet", client_usages, joiner)
    deadline = time.monotonic() + 60
    while cluster.csr_state("joiner-client") != "Issued":
        assert time.monotonic() < deadline, cluster.csr_state("joiner-client")
        time.sleep(0.05)

    cluster.kubectl(
        "create",
        "clusterrolebinding",
        "joiner-test",
        "--clusterrole=cluster-admin",
        "--user=system:node:joiner",
    )
    try:
        impersonating = cluster.kubectl(
            "--as=system:node:joiner",
            "--as-group=system:nodes",
            "auth",
            "can-i",
            "create",
            "csr",
            check=False,
        )
        assert impersonating.stdout.strip() == "yes"
    finally:
        cluster.kubectl("delete", "clusterrolebinding", "joiner-test")
    with pytest.raises(NotReady, match="joiner-tls to appear"):
        cluster.approve_csr("joiner-tls", timeout_s=0.3)
    request("joiner-tls", "kubernetes.io/kubelet-serving", ["digital signature", "server auth"], cluster)
    time.sleep(0.5)
    assert cluster.csr_state("joiner-tls") == "Pending", "a serving certificate waits for a person"
    cluster.approve_csr("joiner-tls")
    assert cluster.csr_state("joiner-tls") in ("Approved", "Issued", "Failed")
    cluster.approve_csr("joiner-tls") if cluster.csr_state("joiner-tls") != "Failed" else None


# ---------------------------------------------------------------- what it keeps to itself


def test_keys_are_private(cluster: Cluster) -> None:
    assert cluster.dir is not None
    # Other tests have had nodes in this cluster: what is below their directories is theirs, but for keys.
    for path in (cluster.dir / "pki", *(cluster.dir / "nodes").glob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    found = 0
    for directory, _, names in os.walk(cluster.dir):
        for path in (Path(directory, name) for name in names):
            if path.suffix in (".key", ".kubeconfig") or path.name == "kubeconfig":
                with contextlib.suppress(FileNotFoundError):
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
                    found += 1
    assert found > 3
    assert stat.S_IMODE(cluster.dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((cluster.dir / "etcd").stat().st_mode) == 0o700, (
        "etcd's socket has no other protection"
    )


def test_nothing_but_the_api_server_and_the_registry_listens(cluster: Cluster) -> None:
    """So etcd, above all, is not reachable over TCP."""
    assert cluster.plane is not None
    pid = cluster.plane.pid
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # LISTEN
                host, port = fields[1].split(":")
                found.add((host, int(port, 16)))
    loopback = "0100007F"
    assert found == {(loopback, port_of(cluster.server)), (loopback, port_of(cluster.registry))}


def test_strangers_are_not_let_in(cluster: Cluster) -> None:
    import ssl

    context = ssl.create_default_context(cadata=cluster.ca.decode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cluster.server}/api/v1/secrets", context=context, timeout=5)
    assert caught.value.code == 401


# ---------------------------------------------------------------- life and death


def test_memory_and_readiness_are_within_the_figures(cluster: Cluster) -> None:
    stats = cluster.stats()
    assert stats["rss_bytes"] < 450e6  # 400 at idle; this one has been worked with
    assert stats["ready_after_s"] < 60


def test_crash_restart_and_stop(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    cluster = Cluster.embedded(root, node=False)
    try:
        server, registry = cluster.server, cluster.registry
        cluster.apply(config_map("survivor"))

        with pytest.raises(ClusterError, match=r"runs in .* already"):
            Cluster.embedded(root, node=False)
        assert cluster.alive, "a second start must not harm the first"
        again = subprocess.run(
            [cluster.kubectl_argv()[0], "up", "--dir", str(root)], capture_output=True, text=True
        )
        assert again.returncode == 3
        assert f"in use by process {cluster.plane.pid}" in again.stderr  # type: ignore[union-attr]

        cluster.kill()
        assert not cluster.alive
        cluster.start()
        assert (cluster.server, cluster.registry) == (server, registry), (
            "kubeconfigs and image names stay valid"
        )
        assert cluster.kubectl("get", "configmap", "survivor", "-o", "jsonpath={.data.kept}").stdout == "yes"
    finally:
        cluster.stop()
    assert processes_with(str(root)) == []
    assert not listening(port_of(server))
    assert not listening(port_of(registry))
    with Cluster.embedded(root, node=False) as third:  # the lock is free, the data is there
        assert third.kubectl("get", "configmap", "survivor", "-o", "name").returncode == 0


def test_two_labs_side_by_side_and_one_deep_down(cluster: Cluster, tmp_path: Path) -> None:
    deep = (
        tmp_path.joinpath(*["a-rather-long-directory-name"] * 6) / "lab"
    )  # far beyond a socket path's 108 bytes
    with Cluster.embedded(deep, node=False) as other:
        assert other.server != cluster.server
        assert other.registry != cluster.registry
        other.apply(config_map("only-here"))
        assert cluster.kubectl("get", "configmap", "only-here", check=False).returncode != 0
        stranger = Cluster.from_kubeconfig(cluster.kubeconfig)
        stranger.api.configuration.host = other.server
        with pytest.raises(ClusterError, match="certificate verify failed"):  # its authority is not ours
            stranger.rest.get("/api/v1/namespaces")
    assert cluster.alive


def test_a_taken_port_is_not_an_obstacle(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    with Cluster.embedded(root, node=False) as cluster:
        before = cluster.server
        cluster.apply(config_map("survivor"))
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port_of(before)))
        squatter.listen()
        with Cluster.embedded(root, node=False) as cluster:
            assert cluster.server != before
            assert cluster.kubectl("get", "configmap", "survivor", "-o", "name").returncode == 0


def test_damaged_data_says_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    with Cluster.embedded(root, node=False):
        pass
    pristine = tmp_path / "pristine"
    shutil.copytree(root, pristine)

    def broken() -> ClusterError:
        with pytest.raises(ClusterError) as caught:
            Cluster.embedded(root, node=False, timeout_s=60)
        assert processes_with(str(root)) == []
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
        return caught.value

    wal = next((root / "etcd").rglob("*.wal"))
    wal.write_bytes(os.urandom(4096))
    error = broken()
    assert "the log of writes" in str(error)
    assert error.remedy is not None
    assert "move that directory away" in error.remedy

    with next((root / "etcd").rglob("db")).open("r+b") as database:
        database.write(os.urandom(8192))  # both of its header pages
    assert "the database: invalid database" in str(broken())

    (root / "pki" / "ca.crt").write_text("garbage")
    assert "ca.crt is not PEM" in str(broken())

    version = json.loads((root / "version.json").read_text())
    (root / "version.json").write_text(json.dumps({**version, "kubernetes": "v1.39.0"}))
    assert "written by Kubernetes v1.39.0" in str(broken())

    (root / "version.json").write_text(json.dumps({**version, "layout": 99}))
    assert "layout 99" in str(broken())


def test_a_start_that_takes_too_long_says_what_was_missing(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"is not ready: gave up after") as caught:
        Cluster.embedded(tmp_path / "lab", node=False, timeout_s=0.7)
    assert caught.value.returncode == 1
    assert caught.value.log_tail
    assert processes_with(str(tmp_path)) == []


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """Even when the parent is killed and can clean up nothing."""
    code = (
        "import sys,time; from wasmlab.cluster import Cluster; "
        "c = Cluster.embedded(sys.argv[1], node=False); print(c.server, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lab")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    port = port_of(parent.stdout.readline().strip())
    assert listening(port)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while processes_with(str(tmp_path / "lab")):
        assert time.monotonic() < deadline, "the control plane outlived its parent"
        time.sleep(0.1)
    assert not listening(port)


def test_a_temporary_lab_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Cluster.embedded(node=False) as cluster:
        assert cluster.dir is not None
        assert cluster.dir.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the commands


def wasmlab(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wasmlab.cli", *args], capture_output=True, text=True, timeout=100
    )


def test_up_gives_a_running_control_plane_its_missing_node(tmp_path: Path) -> None:
    root = str(tmp_path / "lab")
    try:
        first = json.loads(wasmlab("up", "--dir", root, "--no-node", "--json").stdout)
        joined = wasmlab("up", "--dir", root, "--json")
        assert joined.returncode == 0, joined.stderr
        assert json.loads(joined.stdout) == {**first, "node": "wasm-node"}
        before = json.loads(wasmlab("status", "--dir", root, "--json").stdout)["nodes"][0]
        os.kill(before["agent_pid"], signal.SIGKILL)
        again = wasmlab("up", "--dir", root, "--json")
        assert again.returncode == 0, again.stderr
        after = json.loads(wasmlab("status", "--dir", root, "--json").stdout)["nodes"][0]
        assert after["ready"]
        assert after["agent_pid"] not in (None, before["agent_pid"])
    finally:
        assert wasmlab("down", "--dir", root).returncode == 0


def test_up_status_kubectl_down(tmp_path: Path) -> None:
    root = str(tmp_path / "lab")
    assert wasmlab("status", "--dir", root).returncode == 1
    up = wasmlab("up", "--dir", root, "--no-node", "--json")
    try:
        assert up.returncode == 0, up.stderr
        (line,) = up.stdout.splitlines()
        said = json.loads(line)
        assert set(said) == set(DOCUMENTS["up"])
        assert said["node"] is None
        again = wasmlab("up", "--dir", root, "--no-node")
        assert again.returncode == 1
        assert "already" in again.stderr
        assert "wasmlab down" in again.stderr
        status = wasmlab("status", "--dir", root, "--json")
        assert status.returncode == 0
        assert json.loads(status.stdout)["pid"] == said["pid"]
        assert set(json.loads(status.stdout)) == set(DOCUMENTS["status"])
        namespaces = wasmlab("kubectl", "--dir", root, "--", "get", "namespaces", "-o", "name")
        assert "namespace/default" in namespaces.stdout
        assert wasmlab("kubectl", "--dir", root, "--", "get", "nonsense").returncode == 1
    finally:
        down = wasmlab("down", "--dir", root, "--json")
    assert down.returncode == 0, down.stderr
    assert json.loads(down.stdout) == {"dir": root, "ended": ["control plane"], "killed": []}
    assert processes_with(root) == []
    assert "nothing ran" in wasmlab("down", "--dir", root).stdout


def test_usage_errors_are_told_apart() -> None:
    assert wasmlab("up", "--engine", "nonsense").returncode == 2
    assert wasmlab("up", "--nonsense").returncode == 2
    assert wasmlab("up", "--node-name", "Not_A_Name").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_can(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not a root privilege in sight: uid 65534, no capabilities, a directory of its own."""
    import tempfile

    from wasmlab.cluster import binary

    program = binary.ensure()
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "wasmlab-kube"
        shutil.copy(program, copy)
        os.chmod(copy, 0o755)
        os.chown(work, 65534, 65534)
        os.chmod(work, 0o700)
        root = Path(work) / "lab"
        child = subprocess.Popen(
            [copy, "up", "--dir", root], user=65534, group=65534, extra_groups=[], env={"PATH": "/usr/bin:/bin"},
            cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line, child.communicate(timeout=10)[1][-2000:]
            assert json.loads(line)["ready"] is True
            status = Path(f"/proc/{child.pid}/status").read_text()
            assert "Uid:\t65534\t65534" in status
            assert "CapEff:\t0000000000000000" in status
        finally:
            child.terminate()
            child.communicate(timeout=60)
        assert child.returncode == 0


def test_a_proxy_in_the_environment_is_not_asked_for_loopback(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    other = Cluster.from_kubeconfig(cluster.kubeconfig)
    assert other.alive
    assert other.core.list_namespace().items
    assert "default" in other.kubectl("get", "namespaces", "-o", "name").stdout
