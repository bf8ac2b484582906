"""The lab as a guest: a cluster that is somebody else's, reached by a kubeconfig that may do what the docs name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.node.lab import until
from wasmlab.cluster import Cluster, guest, rbac, wasm_pod
from wasmlab.errors import ClusterError
from wasmlab.oci import Client

pytestmark = pytest.mark.integration

HELLO = Path(__file__).resolve().parents[2] / "data" / "wasm" / "hello.wasm"


def wasmlab(*words: str, code: int = 0, timeout_s: float = 150) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wasmlab.cli", *words], capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lent(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig that an administrator gave to the lab."""
    path = tmp_path_factory.mktemp("guest") / "lab.kubeconfig"
    wasmlab("cluster", "grant", "--kubeconfig", str(cluster.kubeconfig), "--out", str(path))
    yield path
    for one in reversed(rbac.manifest()):
        cluster.rest.delete(one)


def snapshot(cluster: Cluster) -> dict[tuple[str, ...], str]:
    """Everything that the cluster holds, but for what lives by itself: events, leases, and what nodes report."""
    found: dict[tuple[str, ...], str] = {}
    groups = cluster.rest.get("/apis")["groups"]
    versions = ["/api/v1", *(f"/apis/{one['preferredVersion']['groupVersion']}" for one in groups)]
    for base in versions:
        for resource in cluster.rest.get(base)["resources"]:
            name = resource["name"]
            if (
                "/" in name
                or "list" not in resource["verbs"]
                or name in ("events", "leases", "componentstatuses")
            ):
                continue
            for one in cluster.rest.get(f"{base}/{name}")["items"]:
                metadata = one["metadata"]
                for passing in ("resourceVersion", "managedFields", "generation"):
                    metadata.pop(passing, None)
                one.pop("status", None)
                if name == "nodes":  # the cluster taints a node as long as it has just come
                    one["spec"].pop("taints", None)
                key = (base, name, metadata.get("namespace", ""), metadata["name"])
                found[key] = json.dumps(one, sort_keys=True)
    return found


def settled(cluster: Cluster, before: dict[tuple[str, ...], str]) -> None:
    """Wait until the cluster is as it was; controllers take a moment to follow."""
    deadline = time.monotonic() + 60
    while True:
        after = snapshot(cluster)
        differ = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
        if not differ:
            return
        if time.monotonic() > deadline:
            shown = [(key, before.get(key), after.get(key)) for key in differ]
            raise AssertionError(f"the cluster is not as it was: {shown}")
        time.sleep(0.2)


def test_a_run_leaves_the_cluster_as_it_was(
    cluster: Cluster, lent: Path, unique: Callable[[str], str]
) -> None:
    before = snapshot(cluster)
    name = unique("guests")
    with Cluster.from_kubeconfig(lent) as there:
        node = there.add_node(name)
        image = f"{there.registry}/hello:v1"
        Client().push(HELLO, image)
        there.apply(wasm_pod("hello", image))
        assert there.wait_pod("hello")["status"]["phase"] == "Succeeded"
        assert "hello from stdout!" in there.logs("hello")
        assert "hello" in there.kubectl("get", "pods", "-o", "name").stdout
        # What is there carries the run's label, and its owner sees it.
        assert there.guest is not None
        pod = cluster.rest.get(f"/api/v1/namespaces/{rbac.NAME}/pods/hello")
        assert pod["metadata"]["labels"] == there.guest.labels
        made = [guest.title(one) for one in guest.leftovers(cluster.rest, rbac.NAME)]
        assert f"Node {name}" in made and f"Pod {rbac.NAME}/hello" in made
        directory = node.dir
        assert directory.exists()
    assert not directory.exists()
    settled(cluster, before)


def test_a_run_that_fails_leaves_nothing_either(
    cluster: Cluster, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    # An administrator's kubeconfig names no namespace: the lab makes one.
    before = snapshot(cluster)
    program = tmp_path / "fails.py"
    program.write_text(
        "import sys, time\nfrom wasmlab.cluster import Cluster, wasm_pod\n"
        "cluster = Cluster.from_kubeconfig(sys.argv[1])\n"
        "cluster.apply(wasm_pod('waits', 'registry.example/hello:v1'))\n"
        "print(cluster.namespace, flush=True)\n"
        "if sys.argv[2] == 'fail': raise SystemExit('it failed')\n"
        "time.sleep(600)\n"
    )
    for how in ("fail", "interrupt"):
        argv = [sys.executable, str(program), str(cluster.kubeconfig), how]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            namespace = child.stdout.readline().strip()
            assert namespace.startswith("wasmlab-"), child.stderr and child.stderr.read()
            if how == "interrupt":
                assert cluster.rest.get(f"/api/v1/namespaces/{namespace}/pods/waits")
                child.send_signal(signal.SIGINT)
            child.communicate(timeout=90)
            assert child.returncode != 0
    settled(cluster, before)


def test_what_a_killed_run_left_is_found_and_swept(cluster: Cluster, lent: Path) -> None:
    before = snapshot(cluster)
    program = (
        "import os, sys\nfrom wasmlab.cluster import Cluster, wasm_pod\n"
        "cluster = Cluster.from_kubeconfig(sys.argv[1])\n"
        "cluster.apply(wasm_pod('orphan', 'registry.example/hello:v1'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(lent)], timeout=90)
    assert killed.returncode == -signal.SIGKILL
    found = {
        one["name"]: one
        for one in json.loads(wasmlab("doctor", "--kubeconfig", str(lent), "--json"))["findings"]
    }
    assert "Pod wasmlab/orphan" in found["Left behind"]["detail"]
    assert "wasmlab cluster clean" in found["Left behind"]["remedy"]
    told = wasmlab("cluster", "clean", "--kubeconfig", str(lent), "--dry-run")
    assert told.split("\n")[0] == "Pod wasmlab/orphan"
    assert cluster.rest.get(f"/api/v1/namespaces/{rbac.NAME}/pods/orphan")
    assert json.loads(wasmlab("cluster", "clean", "--kubeconfig", str(lent), "--json")) == {
        "removed": ["Pod wasmlab/orphan"]
    }
    settled(cluster, before)


def test_what_is_somebody_elses_is_neither_changed_nor_removed(
    cluster: Cluster, lent: Path, unique: Callable[[str], str]
) -> None:
    name = unique("theirs")
    cluster.apply(wasm_pod(name, "registry.example/theirs:v1", namespace=rbac.NAME))
    before = snapshot(cluster)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    cluster.rest.call("POST", "/api/v1/nodes", body=node)
    try:
        with Cluster.from_kubeconfig(lent) as there:
            with pytest.raises(
                ClusterError, match="is there already, and this run of the lab did not make it"
            ):
                there.apply(wasm_pod(name, "registry.example/ours:v1"))
            with pytest.raises(ClusterError, match="did not make it"):
                there.delete(wasm_pod(name, ""))
            with pytest.raises(ClusterError, match="did not make it"):
                there.delete(node)
            with pytest.raises(ClusterError, match="has a node"):
                there.add_node(name)
            with pytest.raises(ClusterError, match="is not in the lab's namespace"):
                there.apply(wasm_pod("elsewhere", "", namespace="default"))
        assert cluster.node(name) is not None
    finally:
        cluster.rest.delete(node)
    settled(cluster, before)
    cluster.delete(wasm_pod(name, "", namespace=rbac.NAME), grace_s=0)


def test_the_preflight_names_what_is_missing(cluster: Cluster, lent: Path, tmp_path: Path) -> None:
    def look(path: Path, *words: str, code: int) -> dict[str, dict[str, str]]:
        said = json.loads(wasmlab("doctor", "--kubeconfig", str(path), "--json", *words, code=code))
        return {one["name"]: one for one in said["findings"]}

    found = look(lent, "--registry", cluster.registry, code=0)
    assert found["Rights"]["state"] == "ok" and found["API server"]["state"] == "ok"
    assert found["Namespace"]["detail"].startswith("wasmlab,")
    assert "takes modules" in found["Registry"]["detail"]
    # One right is taken away: it is named, with what it is for.
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{rbac.NAME}/roles/{rbac.NAME}"
    was = cluster.rest.get(role)
    less = {**was, "rules": [one for one in was["rules"] if one["resources"] != ["pods/log"]]}
    cluster.rest.call("PUT", role, body=less)
    try:
        until("the right is gone", lambda: look_denied(lent), 30)
        found = look(lent, code=1)
        assert "read what they print: pods/log in wasmlab (get)" in found["Rights"]["detail"]
        assert "wasmlab cluster grant" in found["Rights"]["remedy"]
    finally:
        was["metadata"].pop("resourceVersion")
        cluster.rest.call("PUT", role, body=was)
    # Nobody answers; the token is nobody's; there is no such context; the registry does not run.
    content = yaml.safe_load(lent.read_text())
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    away = tmp_path / "away"
    away.write_text(yaml.safe_dump(content))
    assert "did not answer" in look(away, code=1)["API server"]["detail"]
    content = yaml.safe_load(lent.read_text())
    content["users"][0]["user"]["token"] = "nobody"
    stranger = tmp_path / "stranger"
    stranger.write_text(yaml.safe_dump(content))
    assert "Credentials" in look(stranger, code=1)
    assert "has no context 'other'" in look(lent, "--context", "other", code=1)["Kubeconfig"]["detail"]
    assert look(lent, "--registry", "127.0.0.1:1", code=1)["Registry"]["state"] == "missing"


def look_denied(lent: Path) -> bool:
    with Cluster.from_kubeconfig(lent) as there:
        done = there.kubectl("auth", "can-i", "get", "pods", "--subresource=log", check=False)
    return done.stdout.strip() == "no"


def test_a_token_that_a_program_makes_will_do(lent: Path, tmp_path: Path) -> None:
    """As in the clouds: the kubeconfig names a program, which prints the token."""
    content = yaml.safe_load(lent.read_text())
    token = content["users"][0]["user"]["token"]
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    program = tmp_path / "credential"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(credential)}\nEND\n")
    program.chmod(0o755)
    content["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(program),
            "interactiveMode": "Never",
        }
    }
    cloud = tmp_path / "cloud.kubeconfig"
    cloud.write_text(yaml.safe_dump(content))
    os.chmod(cloud, 0o600)
    from wasmlab.bench.api import Api

    with Cluster.from_kubeconfig(cloud) as there:
        assert there.rest.get(f"/api/v1/namespaces/{rbac.NAME}/pods")["items"] == []
        assert there.kubectl("get", "pods", "-o", "name").stdout == ""
    api = Api(cloud)
    try:
        assert api.must("GET", f"/api/v1/namespaces/{rbac.NAME}/pods")["items"] == []
    finally:
        api.close()


def test_bursts_and_density_run_on_the_clusters_own_nodes(
    cluster: Cluster, lent: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    from wasmlab.bench.store import Results

    names = [unique("worker"), unique("worker")]
    nodes = [cluster.add_node(name, args=("--max-pods", "12")) for name in names]
    try:
        before = snapshot(cluster)
        words = [
            "bench",
            "scale",
            "-x",
            "burst",
            "-x",
            "density",
            "--burst",
            "6",
            "--density",
            "2,100",
            "-n",
            "1",
        ]
        words += ["-e", "wasmtime", "--kubeconfig", str(lent), "--out", str(tmp_path), "--json"]
        assert "no registry is given" in wasmlab(*words, code=1)
        wasmlab(*words, "--registry", cluster.registry)
        results = Results.load(tmp_path / "scale.parquet")
        ours = [row for row in results.rows if row["path"] == "node"]
        assert len([row for row in ours if row["experiment"] == "burst"]) == 6
        assert {row["load"] for row in ours if row["experiment"] == "density"} == set(range(2, 7))
        assert not results.failures
        assert results.plan["own_cluster"] == {"wasm_nodes": len(names), "node_joined_here": False}
        assert "WASM nodes take 24 Pods" in results.plan["left_out"][0]
        settled(cluster, before)
    finally:
        for node in nodes:
            node.stop()
            cluster.nodes.pop(node.name, None)
            cluster.rest.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}})


def test_the_notebooks_are_guests_too(cluster: Cluster, lent: Path, tmp_path: Path) -> None:
    before = snapshot(cluster)
    wasmlab("lab", "--kubeconfig", str(lent), "--only", "05", "--out", str(tmp_path / "reports"))
    settled(cluster, before)


def test_a_node_joins_with_what_was_lent(
    cluster: Cluster, lent: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """`wasmlab node join` on another machine: the right to make tokens is enough, if the grants are there."""
    before, name = snapshot(cluster), unique("lent")
    words = [
        "--kubeconfig",
        str(lent),
        "--dir",
        str(tmp_path / name),
        "--node-name",
        name,
        "--approve",
        "--no-run",
    ]
    wasmlab("node", "join", *words)
    assert (tmp_path / name / "kubeconfig").exists()
    for request in (f"{name}-client", f"{name}-tls"):
        cluster.rest.call("DELETE", f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{request}")
    settled(cluster, before)


def test_both_ways_to_join_grant_the_same() -> None:
    # Two packages that may not import each other.
    from wasmlab.node.membership import grants

    assert rbac.bindings() == grants.bindings()
    assert rbac.GROUP == grants.GROUP
