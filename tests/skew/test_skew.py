"""The node in clusters of other releases, and while its API server is replaced by the next one. Run by `make skew`.

Skipped by name unless WASMLAB_SKEW is set: the programs that it needs take half an hour to build.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.lab import until
from tests.skew import programs
from tests.skew.plane import Plane
from wasmlab.cluster import Cluster, wasm_pod
from wasmlab.modules.files import fixture
from wasmlab.oci import Client

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("WASMLAB_SKEW"), reason="WASMLAB_SKEW is not set: see `make skew`"),
]

HELLO = Path(__file__).resolve().parents[2] / "data" / "wasm" / "hello.wasm"


def program(version: str) -> Path:
    found = programs.find(version)
    if found is None:
        pytest.skip(f"Kubernetes {version} has not been built: python -m tests.skew.programs {version}")
    return found


class World:
    """A control plane of some release, the lab as a guest in it, and a node."""

    def __init__(self, root: Path, version: str, features: str = "") -> None:
        self.plane = Plane(root, program(version), version, features)
        try:
            self.cluster = Cluster.from_kubeconfig(self.plane.kubeconfig)
            self.node = self.cluster.add_node("skewed", timeout_s=120)
            self.registry = self.cluster.registry
            self.hello = f"{self.registry}/hello:v1"
            self.sleep = f"{self.registry}/sleep:v1"
            Client().push(HELLO, self.hello)
            Client().push(fixture("sleep"), self.sleep)
        except BaseException:
            self.plane.stop()
            raise

    def run(self, name: str) -> None:
        self.cluster.apply(wasm_pod(name, self.hello))
        pod = self.cluster.wait_pod(name, timeout_s=120)
        assert pod["status"]["phase"] == "Succeeded", pod["status"]
        assert "hello from stdout!" in self.cluster.logs(name)

    def execute(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.cluster.kubectl("exec", name, "--", *words, check=False)

    def statuses(self) -> dict[str, dict[str, Any]]:
        pods = self.cluster.rest.get(f"/api/v1/namespaces/{self.cluster.namespace}/pods")["items"]
        return {one["metadata"]["name"]: one for one in pods}

    def close(self) -> None:
        try:
            self.cluster.stop()
        finally:
            self.plane.stop()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(version: str, features: str = "") -> World:
        made.append(World(tmp_path / version, version, features))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("version", "features"),
    [
        (programs.OLDEST, ""),
        (programs.PREVIOUS, ""),
        # What every API server before it does: no WebSockets to a kubelet, SPDY instead.
        (programs.PREVIOUS, "ExtendWebSocketsToKubelet=false"),
    ],
)
def test_the_node_joins_runs_pods_and_shows_them(worlds: Any, version: str, features: str) -> None:
    world = worlds(version, features)
    assert world.plane.version == version
    world.run("first")
    world.cluster.apply(wasm_pod("sleeper", world.sleep, args=("600",)))
    world.cluster.wait_pod("sleeper", phase=("Running",), timeout_s=120)
    done = world.execute("sleeper", "sleep", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr
    over = [
        line.rpartition("over=")[2] for line in world.node.log.read_text().splitlines() if "msg=exec " in line
    ]
    assert over == ["SPDY/3.1" if features or version == programs.OLDEST else "websocket"]
    world.cluster.delete(wasm_pod("sleeper", world.sleep), grace_s=1)
    world.cluster.wait_gone("sleeper", timeout_s=60)


def test_an_upgrade_of_the_api_server_loses_nothing_and_runs_nothing_twice(worlds: Any) -> None:
    world = worlds(programs.PREVIOUS)
    cluster = world.cluster
    live = [f"live-{number}" for number in range(5)]
    short = [f"short-{number}" for number in range(5)]
    cluster.apply([wasm_pod(name, world.sleep, args=("600",)) for name in live])
    for name in live:
        cluster.wait_pod(name, phase=("Running",), timeout_s=120)
    # These end while no API server is there to be told.
    cluster.apply([wasm_pod(name, world.sleep, args=("8",)) for name in short])
    for name in short:
        cluster.wait_pod(name, phase=("Running",), timeout_s=120)
    before = world.statuses()
    agent = world.node.process
    world.plane.upgrade()
    assert world.plane.version == programs.EMBEDDED
    for name in short:
        assert cluster.wait_pod(name, timeout_s=120)["status"]["phase"] == "Succeeded"
    until("the node is Ready", world.node.ready, 120)
    after = world.statuses()
    assert after.keys() == before.keys()
    for name in (*live, *short):
        # The same Pod, the same container, started once.
        (was,), (now,) = (one[name]["status"]["containerStatuses"] for one in (before, after))
        assert after[name]["metadata"]["uid"] == before[name]["metadata"]["uid"]
        assert now["containerID"] == was["containerID"] and now["restartCount"] == 0
    assert all(after[name]["status"]["phase"] == "Running" for name in live)
    assert world.node.process == agent  # the agent has not been restarted
    world.run("after-the-upgrade")
    done = world.execute(live[0], "sleep", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr
