"""Limits with control groups (root) and without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.containers import limits
from wasmlab.node.runtime.cgroups import ContainerGroups
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.status.records import Ended
from wasmlab.sandbox import Outcome, RunSpec

POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}
LIMITED = {"name": "c", "resources": {"limits": {"memory": "32Mi", "cpu": "500m"}}}
RUN = RunId("u", "c", 0)
SPEC = RunSpec("m", "sha256:1", ("m",))


class Services:
    def __init__(self, groups: ContainerGroups) -> None:
        self.groups = groups
        self.recorder = self
        self.told: list[tuple[str, str]] = []

    def pod(self, pod: Any, kind: str, reason: str, message: str, container: str = "") -> None:
        self.told.append((reason, message))


def end(code: int, reason: str) -> Ended:
    return Ended(code, reason, "the worker died of SIGABRT", 1.0, 2.0, str(RUN))


async def settled(services: Any, outcome: Outcome, was: Ended, container: Any = LIMITED) -> Ended:
    return await limits.settled(services, container, RUN, was, outcome)


async def test_without_groups_the_engine_holds_memory_and_the_event_says_what_is_not_held(
    tmp_path: Path,
) -> None:
    groups = ContainerGroups("n", root=str(tmp_path))
    groups.probe()
    assert not groups.available
    services: Any = Services(groups)
    spec = limits.applied(services, SPEC, POD, LIMITED, RUN)
    assert spec.cgroups == ()
    assert spec.data_bytes == (32 + 64) << 20
    ((reason, message),) = services.told
    assert reason == "LimitsWithoutCgroup"
    assert "cpu limit is not held" in message
    assert str(tmp_path) in message
    crash = Outcome(None, "crash", max_rss_bytes=64 << 20)
    assert (await settled(services, crash, end(134, "Error"))).reason == "OOMKilled"
    small = Outcome(None, "crash", max_rss_bytes=8 << 20)
    assert await settled(services, small, end(134, "Error")) == end(134, "Error")


async def test_a_container_that_asks_for_nothing_is_left_alone(tmp_path: Path) -> None:
    services: Any = Services(ContainerGroups("n", root=str(tmp_path)))
    assert limits.applied(services, SPEC, POD, {"name": "c"}, RUN) is SPEC
    killed = Outcome(None, "killed")
    assert await settled(services, killed, end(137, "Error"), {"name": "c"}) == end(137, "Error")
    assert services.told == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not make control groups")
async def test_groups_are_made_found_again_and_swept(tmp_path: Path) -> None:
    groups = ContainerGroups(f"test-{os.getpid()}", tmp_path / "cgroups")
    groups.probe()
    if not groups.available:
        pytest.skip(f"no control groups here: {groups.why_not}")
    services: Any = Services(groups)
    spec = limits.applied(services, SPEC, POD, LIMITED, RUN)
    try:
        assert spec.cgroups
        assert all(Path(one).is_dir() for one in spec.cgroups)
        assert spec.data_bytes is None
        again = ContainerGroups(f"test-{os.getpid()}")  # the next agent
        again.probe()
        group = again.of(RUN)
        assert group is not None
        assert tuple(group.directories) == spec.cgroups
        again.sweep({str(RUN)})
        assert Path(spec.cgroups[0]).is_dir()
        killed = Outcome(None, "killed")
        # Nobody was killed by the kernel in it: then it was somebody else's SIGKILL.
        assert await settled(services, killed, end(137, "Error")) == end(137, "Error")
        assert not Path(spec.cgroups[0]).exists()
        limits.applied(services, SPEC, POD, LIMITED, RUN)
        again.sweep(set())
        assert not Path(spec.cgroups[0]).exists()
    finally:
        groups.remove(RUN)
        groups.close()
    assert not Path(spec.cgroups[0]).parent.exists()


def v2(path: Path) -> ContainerGroups:
    """A version 2 hierarchy as far as files go; making a group in it fails at its files, which a kernel would make."""
    (path / "cgroup.controllers").touch()
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = next((place for _, controllers, place in lines if not controllers), "/")
    base = path / own.strip("/")
    base.mkdir(parents=True, exist_ok=True)
    (base / "cgroup.subtree_control").write_text("memory cpu")
    (base / "cgroup.procs").touch()
    return ContainerGroups("n", root=str(path))


def test_version_2_says_why_not(tmp_path: Path) -> None:
    groups = v2(tmp_path)
    groups.probe()
    assert not groups.available
    assert "wasmlab-n/probe" in groups.why_not
