"""Cgroups: version 2 on a copy of the kernel's files, paths of specs; test_life has version 1 for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wasmlab.sandbox import cgroups as base
from wasmlab.shim import cgroups


@pytest.fixture
def v2(tmp_path: Path) -> cgroups.V2:
    """A version 2 tree as the kernel would show it, as far as files go."""
    for directory in (tmp_path, tmp_path / "kubepods", tmp_path / "kubepods/pod1"):
        directory.mkdir(exist_ok=True)
        for name in ("cgroup.controllers", "cgroup.procs", "cgroup.subtree_control"):
            (directory / name).touch()
    made = tmp_path / "kubepods/pod1/box"
    made.mkdir()
    for name in (
        "memory.max",
        "memory.swap.max",
        "cpu.weight",
        "cpu.max",
        "pids.max",
        "cgroup.freeze",
        "cgroup.procs",
    ):
        (made / name).touch()
    found = cgroups.find("/kubepods/pod1/box", str(tmp_path))
    assert isinstance(found, cgroups.V2)
    return found


def _read(group: cgroups.V2, name: str) -> str:
    return Path(group.directory, name).read_text()


def test_v2_limits(v2):
    v2.create(
        {
            "memory": {"limit": 64 << 20, "swap": 80 << 20},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
            "pids": {"limit": 40},
        }
    )
    assert _read(v2, "memory.max") == str(64 << 20)
    assert _read(v2, "memory.swap.max") == str(16 << 20)
    assert _read(v2, "cpu.weight") == "39"
    assert _read(v2, "cpu.max") == "50000 100000"
    assert _read(v2, "pids.max") == "40"
    # Controllers are handed down from the root to the container's parent.
    assert Path(v2.directory).parent.joinpath("cgroup.subtree_control").read_text().startswith("+pids")


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, "1"), (1024, "39"), (262144, "10000"), (1, "1"), (10**9, "10000")]
)
def test_v2_shares_become_weights(v2, shares, weight):
    v2.update({"cpu": {"shares": shares}})
    assert _read(v2, "cpu.weight") == weight


def test_v2_without_limits_writes_nothing(v2):
    v2.create({})
    assert _read(v2, "memory.max") == ""
    v2.update({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}})
    assert (_read(v2, "memory.max"), _read(v2, "cpu.max"), _read(v2, "pids.max")) == (
        "max",
        "max 100000",
        "max",
    )


def test_v2_unified_settings_cannot_leave_the_directory(v2):
    with pytest.raises(ValueError):
        v2.update({"unified": {"../cgroup.procs": "1"}})


def test_v2_figures(v2):
    files = {
        "memory.current": "1000\n",
        "memory.max": "max\n",
        "memory.peak": "2000\n",
        "memory.stat": "anon 10\nfile 20\npgfault 30\nunknown_thing 1\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n",
        "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 0\n",
        "pids.current": "4\n",
        "pids.max": "40\n",
    }
    for name, text in files.items():
        Path(v2.directory, name).write_text(text)
    figures = v2.metrics()
    assert figures.DESCRIPTOR.full_name == "io.containerd.cgroups.v2.Metrics"
    assert (figures.memory.usage, figures.memory.usage_limit, figures.memory.max_usage) == (
        1000,
        2**64 - 1,
        2000,
    )
    assert (figures.memory.anon, figures.memory.pgfault) == (10, 30)
    assert (figures.memory_events.oom, figures.memory_events.oom_kill) == (2, 1)
    assert (figures.cpu.usage_usec, figures.pids.current, figures.pids.limit) == (5, 4, 40)
    assert v2.oom_kills() == 1


def test_v2_freeze_waits_for_the_kernel(v2):
    events = Path(v2.directory, "cgroup.events")
    events.write_text("populated 1\nfrozen 1\n")
    v2.freeze(True)
    assert _read(v2, "cgroup.freeze") == "1"
    events.write_text("populated 1\nfrozen 0\n")
    v2.freeze(False)
    assert _read(v2, "cgroup.freeze") == "0"


def test_v2_freeze_that_does_not_happen_is_undone(v2, monkeypatch):
    monkeypatch.setattr(base, "_FREEZE_TIMEOUT_S", 0.01)
    Path(v2.directory, "cgroup.events").write_text("frozen 0\n")
    with pytest.raises(TimeoutError):
        v2.freeze(True)
    assert _read(v2, "cgroup.freeze") == "0"


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/sys/fs/cgroup/unified/cgroup.procs").exists(),
    reason="needs root and a version 2 hierarchy beside version 1",
)
def test_v2_on_the_real_thing():
    """The unified hierarchy of a hybrid host has no controllers, but it freezes."""
    import signal
    import subprocess

    group = cgroups.V2(f"/sys/fs/cgroup/unified/wasmlab-test-{os.getpid()}")
    group.create({})
    child = subprocess.Popen(["sleep", "60"])
    try:
        for path in group.join_paths():
            Path(path).write_text(str(child.pid))
        assert group.procs() == [child.pid]
        group.freeze(True)
        assert "frozen 1" in Path(group.directory, "cgroup.events").read_text()
        group.remove()
        assert not Path(group.directory).exists()
        assert child.wait(5) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/kubepods/burstable/pod1/abc", "/kubepods/burstable/pod1/abc"),
        ("default/abc", "/default/abc"),
        ("", "/wasmlab/abc"),
        ("/../../etc", "/etc"),
        (
            "kubepods-besteffort-pod1.slice:cri-containerd:abc",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-abc.scope",
        ),
        ("system.slice::abc", "/system.slice/abc.scope"),
        ("machine.slice:x:abc.slice", "/machine.slice/abc.slice"),
    ],
)
def test_paths_of_specs(spec, expected):
    assert cgroups.path_of(spec, "abc") == expected


def test_v1_writes_a_thread_and_not_a_process(tmp_path):
    for name in ("memory", "cpu", "cpuacct", "pids"):
        (tmp_path / name).mkdir()
    group = cgroups.find("/box", str(tmp_path))
    assert isinstance(group, cgroups.V1)
    group.create({})
    assert [Path(path).name for path in group.join_paths()] == ["tasks"] * 4
    group.remove()
    assert not list(tmp_path.glob("*/box"))
