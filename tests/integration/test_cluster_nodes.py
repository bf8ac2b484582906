"""Nodes as the cluster package sees them: joined, approved, crashed, ended with everything they started."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.node.lab import retire, until
from tests.plugins.cluster import processes_with
from wasmlab.cluster import Cluster, wasm_pod
from wasmlab.errors import BootstrapError, ClusterError

pytestmark = pytest.mark.integration


def push(cluster: Cluster, module: Path, name: str) -> str:
    from wasmlab.oci import Client

    image = f"{cluster.registry}/{name}:v1"
    Client().push(module, image)
    return image


def test_a_node_waits_for_its_approval_and_says_so(cluster: Cluster) -> None:
    # A first agent leaves its request, so that the second has nothing to do but wait.
    first = cluster.add_node("late", wait=False)
    until("its request", lambda: cluster.csr_state("late-tls") == "Pending")
    (agent,) = [line for line in processes_with(str(first.dir)) if " node run " in line]
    assert "nodefs.available<1%" in agent, "it would evict because the machine's disk is rather full"
    first.stop()
    with pytest.raises(BootstrapError, match="late-tls waits for approval") as caught:
        cluster.add_node("late", approve=False, timeout_s=1)
    assert "kubectl certificate approve late-tls" in str(caught.value.remedy)
    assert cluster.dir is not None
    assert processes_with(str(cluster.dir / "nodes" / "late")) == []

    handle = cluster.add_node("late", wait=False)
    try:
        cluster.kubectl("certificate", "approve", "late-tls")
        handle.wait_ready(60, approve=False)
        with pytest.raises(ClusterError, match="late runs already"):
            handle.start()
    finally:
        retire(cluster, handle)


def test_an_agent_that_ends_shows_its_last_lines(cluster: Cluster) -> None:
    with pytest.raises(BootstrapError, match=r"(?s)exit code 2.*No such option: --nonsense"):
        cluster.add_node("broken", args=["--nonsense"])
    assert "broken" not in cluster.nodes


def test_two_nodes_get_ranges_of_their_own_and_survive_a_crash_of_the_api_server(
    tmp_path: Path, fixtures_dir: Path
) -> None:
    with Cluster.embedded(tmp_path / "lab", nodes=("one", "two")) as cluster:
        nodes = [cluster.node(name) for name in ("one", "two")]
        ranges = {node["spec"]["podCIDR"] for node in nodes if node}
        assert len(ranges) == 2
        image = push(cluster, fixtures_dir / "sleep.wasm", "sleep")
        cluster.apply(wasm_pod("before", image, args=["600"], node="one"))
        cluster.wait_pod("before", phase=["Running"])
        cluster.kill()
        cluster.start()
        cluster.apply(wasm_pod("after", image, args=["0"], node="two"))
        assert cluster.wait_pod("after", timeout_s=60)["status"]["phase"] == "Succeeded"
        before = cluster.wait_pod("before", phase=["Running"])
        assert before["status"]["containerStatuses"][0]["restartCount"] == 0
    assert processes_with(str(tmp_path / "lab")) == [], "agents, sandboxes, or the module that sleeps"


def test_up_with_a_node_and_down_with_modules_running(tmp_path: Path, fixtures_dir: Path) -> None:
    root = tmp_path / "lab"

    def wasmlab(*args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "wasmlab.cli", *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=100)

    up = wasmlab("up", "--dir", str(root), "--engine", "wasmer", "--json")
    try:
        assert up.returncode == 0, up.stderr
        said = json.loads(up.stdout)
        assert said["node"] == "wasm-node"
        cluster = Cluster.attach(root)
        status = json.loads(wasmlab("status", "--dir", str(root), "--json").stdout)
        (node,) = status["nodes"]
        assert node["ready"]
        assert node["agent_pid"] == cluster.nodes["wasm-node"].process.pid  # type: ignore[union-attr]
        image = push(cluster, fixtures_dir / "sleep.wasm", "sleep")
        cluster.apply(wasm_pod("sleeper", image, args=["600"]))
        cluster.wait_pod("sleeper", phase=["Running"])
    finally:
        down = wasmlab("down", "--dir", str(root), "--json")
    assert down.returncode == 0, down.stderr
    assert json.loads(down.stdout)["ended"] == ["node wasm-node", "sandboxes", "control plane"]
    assert processes_with(str(root)) == []


def test_up_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir(mode=0o700)
    (root / "nodes").write_text("a file where the nodes' directory should be")
    argv = [sys.executable, "-m", "wasmlab.cli", "up", "--dir", str(root)]
    up = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert up.returncode == 1
    assert f"cannot create the directory {root}/nodes/wasm-node" in up.stderr
    assert "Traceback" not in up.stderr
    assert processes_with(str(root)) == []


def test_a_killed_parent_leaves_neither_agent_nor_module_nor_directory(
    tmp_path: Path, fixtures_dir: Path
) -> None:
    """What a notebook's kernel looks like when it is restarted in the middle of something."""
    code = """
import sys, tempfile, time
from pathlib import Path
tempfile.tempdir = sys.argv[1]
from tests.integration.test_cluster_nodes import push
from wasmlab.cluster import Cluster, wasm_pod
cluster = Cluster.embedded()
cluster.apply(wasm_pod("forever", push(cluster, Path(sys.argv[2]), "loop")))
cluster.wait_pod("forever", phase=["Running"])
print(cluster.dir, flush=True)
time.sleep(100)
"""
    argv = [sys.executable, "-c", code, str(tmp_path), str(fixtures_dir / "loop.wasm")]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    root = parent.stdout.readline().strip()
    assert root.startswith(str(tmp_path))
    names = {line.split()[3] for line in processes_with(f"{root}/")}
    assert names >= {"wasmlab.cli", "wasmlab.sandbox.zygote"}, names
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while processes_with(root) or Path(root).exists():
        assert time.monotonic() < deadline, processes_with(root)
        time.sleep(0.1)
