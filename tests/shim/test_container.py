"""The container around a module: user, capabilities, mounts, root file system, network, execs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shim.client import Refused
from tests.shim.containerd import eventually
from tests.shim.pod import cgroups_of
from wasmlab.shim.pb import task_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the shim needs root (mounts, cgroups)")

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


# -- the container around the module ----------------------------------------------------------------------------------


def test_user_groups_and_privileges(pod):
    user = {"uid": 1000, "gid": 1000, "additionalGids": [7, 8]}
    one = pod("/sleep.wasm", "60", process={"user": user, "capabilities": {"effective": []}})
    one.create()
    pid = one.start()
    status = Path(f"/proc/{pid}/status")
    eventually(lambda: "Uid:\t1000\t1000\t1000\t1000" in status.read_text())
    text = status.read_text()
    assert "Gid:\t1000\t1000\t1000\t1000" in text
    assert re.search(r"Groups:\t7 8 ?\n", text)
    for which in ("CapEff", "CapPrm", "CapBnd"):
        assert re.search(rf"{which}:\s+0{{16}}\n", text), which
    assert "NoNewPrivs:\t1" in text
    # It still dies with its shim, although a change of user clears that.
    connect = one.call("Connect", task_pb2.ConnectRequest(id=one.id), task_pb2.ConnectResponse)
    os.kill(connect.shim_pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_capabilities_of_the_spec_are_kept_and_no_others(pod):
    kept = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    one = pod("/sleep.wasm", "60", process={"capabilities": {"effective": kept, "bounding": kept}})
    one.create()
    pid = one.start()
    status = Path(f"/proc/{pid}/status")
    eventually(lambda: re.search(r"CapEff:\s+0000000000000401\n", status.read_text()))


def test_a_user_that_is_not_root_runs_on_both_engines(pod, name):
    for index, engine in enumerate(("wasmtime", "wasmer")):
        user = {"uid": 1000 + index, "gid": 1000}
        one = pod(
            "/env.wasm",
            id=f"{name}{index}",
            process={"user": user, "env": ["A=b"]},
            annotations={"wasmlab.dev/engine": engine},
        )
        code, out, err = one.run()
        assert (code, err) == (0, "")
        assert "env A=b\n" in out


def test_mounts_of_a_kubernetes_pod(pod, tmp_path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/key").write_text("value\n")
    (tmp_path / "key").symlink_to("..data/key")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    writable = tmp_path / "rw"
    writable.mkdir()
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=1m"]},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": f"{tmp_path}/hosts",
            "options": ["rbind", "rw"],
        },
        {"destination": "/etc/config", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro"]},
        {
            "destination": "/var/run/deep/er",
            "type": "bind",
            "source": str(writable),
            "options": ["rbind", "rw"],
        },
    ]
    one = pod("/readfile.wasm", "/etc/config/key", mounts=mounts)
    assert one.run()[:2] == (0, "value\n")
    one.exec("w", "/writefile.wasm", "/var/run/deep/er/x", "y")
    with pytest.raises(Refused, match="not running"):
        one.start("w")


def test_an_exec_that_cannot_start_is_over_and_can_be_deleted(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    one.start()
    (one.rootfs / "cut.wasm").write_bytes((one.rootfs / "sleep.wasm").read_bytes()[:-10])
    one.exec("e1", "/cut.wasm")
    with pytest.raises(Refused):
        one.start("e1")
    assert one.wait("e1") == one.state("e1").exit_status == one.delete("e1") != 0


def test_exec_shares_mounts_and_sees_no_host_file(pod, tmp_path):
    mounts = [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    one = pod("/sleep.wasm", "60", mounts=mounts)
    one.create()
    one.start()
    one.exec("w", "/writefile.wasm", "/tmp/shared", "by an exec")
    one.start("w")
    assert one.wait("w") == 0
    one.exec("r", "/readfile.wasm", "/tmp/shared")
    one.start("r")
    assert one.wait("r") == 0
    assert (one.path / "r.out").read_text() == "by an exec\n"
    one.exec("l", "/readdir.wasm", "/")
    one.start("l")
    assert one.wait("l") == 0
    assert "root" not in (one.path / "l.out").read_text().split()
    assert one.delete("l") == 0
    with pytest.raises(Refused):
        one.state("l")


def test_an_exec_at_once_after_start_sees_no_host_file(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    one.start()
    for index in range(5):
        one.exec(f"l{index}", "/readdir.wasm", "/")
        one.start(f"l{index}")
    for index in range(5):
        assert one.wait(f"l{index}") == 0
        assert "boot" not in (one.path / f"l{index}.out").read_text().split()


@pytest.mark.parametrize("late", [False, True])
def test_a_mount_that_cannot_be_made_fails_the_start_with_the_reason(pod, late):
    mounts = [{"destination": "/x", "type": "bind", "source": "/nonexistent/source", "options": ["rbind"]}]
    one = pod("/hello.wasm", "60", mounts=mounts)
    one.config["process"]["args"] = ["/exit.wasm", "0"]
    one.write()
    pid = one.create()
    if late:
        eventually(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(Refused, match=r"No such file or directory.*nonexistent"):
        one.start()


def test_a_link_in_the_image_does_not_lead_to_the_host(pod, tmp_path, fixtures_dir):
    one = pod("/link.wasm")
    (one.rootfs / "link.wasm").symlink_to(fixtures_dir.resolve() / "exit.wasm")
    with pytest.raises(Refused, match="no such module"):
        one.create()
    (one.rootfs / "link.wasm").unlink()
    (one.rootfs / "link.wasm").symlink_to("/exit.wasm")
    assert one.run()[0] == 0


def test_a_mount_point_through_a_link_stays_in_the_root(pod, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("x")
    mounts = [{"destination": "/evil/in", "type": "bind", "source": str(source), "options": ["rbind"]}]
    one = pod("/exit.wasm", "0", mounts=mounts)
    (one.rootfs / "evil").symlink_to(outside)
    one.create()
    with pytest.raises(Refused):
        one.start()
    assert list(outside.iterdir()) == []


def test_rootfs_is_mounted_by_create_and_unmounted_by_delete(pod, tmp_path, fixtures_dir):
    one = pod("/exit.wasm", "4")
    for file in one.rootfs.iterdir():
        file.unlink()
    for part in ("upper", "work"):
        (tmp_path / part).mkdir()
    options = [f"lowerdir={fixtures_dir.resolve()}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    mount = task_pb2.Mount(type="overlay", source="overlay", options=options)
    assert one.run(rootfs=[mount])[0] == 4
    assert str(one.rootfs) in Path("/proc/self/mountinfo").read_text()
    one.delete()
    assert str(one.rootfs) not in Path("/proc/self/mountinfo").read_text()


def test_a_rootfs_that_cannot_be_mounted_leaves_nothing(pod, name):
    one = pod("/exit.wasm", "4")
    with pytest.raises(Refused, match="mount"):
        one.create(
            rootfs=[task_pb2.Mount(type="overlay", source="overlay", options=["lowerdir=/nonexistent"])]
        )
    assert str(one.rootfs) not in Path("/proc/self/mountinfo").read_text()
    assert not cgroups_of(name)


def test_network_namespace_is_joined(pod, name):
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        linux = {"namespaces": [{"type": "network", "path": f"/var/run/netns/{name}"}]}
        one = pod("/sleep.wasm", "60", linux={**linux, "cgroupsPath": f"/wasmlab-test/{name}"})
        one.create()
        pid = one.start()
        wanted = os.stat(f"/var/run/netns/{name}").st_ino
        assert os.stat(f"/proc/{pid}/ns/net").st_ino == wanted
        one.exec("e", "/sleep.wasm", "60")
        assert os.stat(f"/proc/{one.start('e')}/ns/net").st_ino == wanted
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=20)


def test_a_module_serves_in_the_pods_network_and_in_no_other(pod, name):
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    inside = ["ip", "netns", "exec", name]
    ask = "import sys, urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/' + sys.argv[1], timeout=10).read())"
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True, timeout=20)
        linux = {"namespaces": [{"type": "network", "path": f"/var/run/netns/{name}"}]}
        one = pod("/serve.wasm", "8080", "me", linux={**linux, "cgroupsPath": f"/wasmlab-test/{name}"})
        shutil.copy(Path(__file__).resolve().parents[2] / "data/wasm/serve.wasm", one.rootfs)
        one.create()
        one.start()
        eventually(lambda: "listening on port 8080" in one.stdout.read_text())
        for path, answer in (("", b"me says hello, request 1\n"), ("exit/5", b"bye\n")):
            argv = [*inside, sys.executable, "-c", ask, path]
            said = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True)
            assert said.stdout == f"{answer}\n"
        assert one.wait() == 5
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=20)
