"""A node loses its API server, its watch, its agent, its zygote; pods come by the hundred. Nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.lab import NodeLab, push, terminated, until
from tests.plugins.cluster import processes_with

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeLab]:
    """A cluster of its own: these tests break it."""
    from wasmlab.cluster import Cluster

    root = tmp_path_factory.mktemp("faults") / "lab"
    with Cluster.embedded(root, node=False) as cluster:
        node = cluster.add_node(
            "faulty",
            args=(
                "--backoff-base-s",
                "0.5",
                "--max-pods",
                "250",
                "--log-max-bytes",
                "1500",
                "--rotation-s",
                "0.3",
            ),
        )
        yield NodeLab(cluster, node)
    assert processes_with(str(root)) == [], "left behind"


@pytest.fixture(scope="module")
def images(lab: NodeLab) -> dict[str, str]:
    return {name: push(lab.cluster, name) for name in ("hello", "sleep", "ticker", "probe")}


def test_200_pods_at_once_and_none_lost(lab: NodeLab, images: dict[str, str]) -> None:
    names = [f"many-{i}" for i in range(200)]
    began = time.monotonic()
    lab.cluster.apply([lab.pod(name, images["hello"]) for name in names])

    def phases() -> dict[str, str]:
        items = lab.cluster.rest.get("/api/v1/namespaces/default/pods")["items"]
        return {p["metadata"]["name"]: p["status"].get("phase", "") for p in items}

    until(
        "all 200 Succeeded",
        lambda: (found := phases()) and all(found.get(n) == "Succeeded" for n in names),
        60,
    )
    print(f"200 pods in {time.monotonic() - began:.1f} s")
    logged = lab.node.log.read_text()
    assert "level=error" not in logged, logged


def test_the_api_server_is_killed_and_restarted(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    through, during = unique("through"), unique("during")
    lab.apply(through, images["sleep"], args=["60"])
    volume = lab.led(during, images["probe"], "wait:/v/go=x")
    lab.running(through)
    lab.running(during)
    log = volume.parents[1] / f"{during}.0.log"
    lab.cluster.kill()
    (volume / "go").write_text("x")  # it ends while nobody can be told
    until("it has said its last", lambda: "wait:/v/go" in log.read_text())
    lab.cluster.start()
    assert lab.cluster.wait_pod(during)["status"]["phase"] == "Succeeded"
    assert lab.get(through)["status"]["phase"] == "Running"
    # And the node hears of new pods and of deletions again.
    assert lab.run(unique("after"), images["hello"])["status"]["phase"] == "Succeeded"
    lab.cluster.delete(lab.get(through))
    lab.cluster.wait_gone(through)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_the_agent_goes_and_comes_back(lab: NodeLab, images: dict[str, str], unique: Name, how: str) -> None:
    ends, goes_on, gone = unique("ends"), unique("goes-on"), unique("gone")
    volume = lab.led(ends, images["probe"], "env:BEGIN", "wait:/v/go=x")
    lab.apply(goes_on, images["sleep"], args=["60"])
    lab.apply(gone, images["sleep"], args=["60"])
    for name in (ends, goes_on, gone):
        lab.running(name)
    uid = lab.get(gone)["metadata"]["uid"]
    if how == "SIGKILL":
        lab.node.kill()
    else:
        lab.node.stop_agent()
    # While the agent is away one pod ends, and one is deleted by force.
    lab.cluster.delete(lab.get(gone), grace_s=0)
    (volume / "go").write_text("x")
    log = volume.parents[1] / f"{ends}.0.log"
    until("it has said its last", lambda: "wait:/v/go" in log.read_text())
    lab.node.start()
    lab.node.wait_ready(60)
    done = lab.cluster.wait_pod(ends)
    assert done["status"]["phase"] == "Succeeded"
    assert done["status"]["containerStatuses"][0]["restartCount"] == 0
    said = ["env:BEGIN > (none)", "wait:/v/go > x"]
    assert lab.cluster.logs(ends).splitlines() == said, "it ran more or less than once"
    assert lab.get(goes_on)["status"]["phase"] == "Running"
    assert lab.container(goes_on)["restartCount"] == 0
    until("the orphan's process ends", lambda: not (lab.node.dir / "pods" / uid).exists())
    lab.cluster.delete(lab.get(goes_on))
    lab.cluster.wait_gone(goes_on)


def test_a_pod_made_and_ended_while_the_agent_is_away(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    waits, leaves = unique("waits"), unique("leaves")
    lab.node.stop_agent()
    lab.apply(waits, images["hello"])
    lab.apply(leaves, images["hello"])
    until("bound", lambda: lab.get(leaves)["spec"].get("nodeName"))
    lab.cluster.delete(lab.get(leaves))
    lab.node.start()
    lab.node.wait_ready(60)
    assert lab.cluster.wait_pod(waits)["status"]["phase"] == "Succeeded"
    lab.cluster.wait_gone(leaves)


def test_a_zygote_dies_and_the_run_is_said_to_be_lost(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("lost")
    lab.apply(name, images["sleep"], args=["60"])
    lab.running(name)
    zygotes = [line for line in processes_with(str(lab.node.dir)) if "sandbox.zygote" in line]
    pids = [int(line.split()[0]) for line in zygotes]
    children = {pid for pid in pids if _parent(pid) in pids}
    for pid in set(pids) - children:
        os.kill(pid, signal.SIGKILL)
    pod = lab.cluster.wait_pod(name)
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod)["exitCode"] == 137
    assert terminated(pod)["reason"] == "ContainerStatusUnknown"
    assert lab.run(unique("next"), images["hello"])["status"]["phase"] == "Succeeded"


def test_a_talkative_module_has_its_log_rotated(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    """Following across rotations shows every line once; the files stay few."""
    name = unique("talks")
    lab.apply(name, images["ticker"], args=["10", "300"])
    until("it runs", lambda: lab.get(name)["status"].get("phase") in ("Running", "Succeeded"))
    done = lab.cluster.kubectl("logs", "-f", name)
    ticks = [line for line in done.stdout.splitlines() if line.startswith("tick")]
    directory = lab.node.dir / "pods" / lab.get(name)["metadata"]["uid"]
    files = list(directory.glob(f"{name}.0.log*"))
    assert 2 <= len(files) <= 5, files
    first = int(ticks[0].split()[1])  # what was rotated away before the reader came is not shown
    assert ticks == [f"tick {i}" for i in range(first, 300)]


def test_drain_ends_what_runs(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    node = lab.cluster.add_node("drained", args=("--drain",))
    other = NodeLab(lab.cluster, node)
    name = unique("drain")
    other.apply(name, images["sleep"], args=["60"])
    other.running(name)
    node.stop_agent()
    pod = other.get(name)
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod)["exitCode"] == 143
    until("its zygotes are gone", lambda: not processes_with(str(node.dir / "sandbox")))
    node.stop()


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
