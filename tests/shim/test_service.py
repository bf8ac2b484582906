"""The Task service, called as containerd calls it: a real zygote, real shims, real workers; no containerd."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.shim.client import Client, Refused
from tests.shim.containerd import eventually
from tests.shim.pod import Bundle, Node
from wasmlab import engines
from wasmlab.engines import CompileCache
from wasmlab.paths import file_lock
from wasmlab.shim import control
from wasmlab.shim.pb import cgroups_v1_pb2, cgroups_v2_pb2, info_pb2, task_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the shim needs root (mounts, cgroups)")

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture(scope="module")
def node(fixtures_dir: Path) -> Iterator[Node]:
    one = Node(fixtures_dir)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def pod(node: Node, name: str) -> Iterator[object]:
    made: list[Bundle] = []

    def make(*args: str, id: str = name, **options: object) -> Bundle:
        made.append(node.bundle(id, *args, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.remove()


def _sandbox(name: str) -> dict[str, str]:
    return {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": name}


def _member(name: str, **more: str) -> dict[str, str]:
    return {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": name, **more}


def _cgroups(name: str) -> list[Path]:
    # Not by glob, which fails when a group of somebody else's goes while it looks.
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        if folder.endswith("/wasmlab-test") and name in names
    ]


# -- the command line -------------------------------------------------------------------------------------------------


def test_version_and_info(node):
    program = node.programs[0]
    done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("containerd-shim-wasm-v1:\n  Version:")
    done = subprocess.run([program, "-info"], input=b"", capture_output=True, timeout=30, check=True)
    info = info_pb2.RuntimeInfo.FromString(done.stdout)
    assert info.name == "io.containerd.wasm.v1"
    assert set(info.annotations) == {"wasmlab.dev/wasmtime", "wasmlab.dev/wasmer"}


def test_start_prints_the_address_and_writes_it_into_the_bundle(pod):
    one = pod("/sleep.wasm", "60")
    address = one.start_shim()
    assert address.startswith("unix:///")
    assert (one.path / "address").read_text() == address
    assert Path(address.removeprefix("unix://")).stat().st_mode & 0o777 == 0o600


def test_a_containerd_that_sends_bootstrap_params_gets_version_3(node, pod, name):
    one = pod("/sleep.wasm", "60")
    # instance_id, namespace, containerd_version, as in containerd's BootstrapParams.
    params = b"\x0a\x02id\x12\x04test\x22\x052.4.2"
    done = subprocess.run(
        [str(node.programs[0]), "-namespace", "test", "-address", "/a", "-id", name, "start"],
        cwd=one.path,
        env=node.environment(),
        input=params,
        capture_output=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["version"], answer["protocol"]) == (3, "ttrpc")
    one.client = Client(Path(answer["address"].removeprefix("unix://")), service="containerd.task.v3.Task")
    one.create()
    assert one.state().status == task_pb2.CREATED


def test_usage_errors(node, pod):
    one = pod("/hello.wasm")
    done = node.command(one, "dance")
    assert done.returncode == 2
    assert b"usage" in done.stderr
    (one.path / "config.json").unlink()
    done = node.command(one, "start")
    assert done.returncode == 1
    assert b"config.json" in done.stderr


def test_the_engine_comes_from_the_programs_name_or_the_annotation(pod, name):
    by_name = pod("/sleep.wasm", "60")
    by_name.create(program=2)
    eventually(lambda: _engine(by_name) == "wasm-wasmer")
    annotated = pod("/sleep.wasm", "60", id=name + "b", annotations={"wasmlab.dev/engine": "wasmer"})
    annotated.create()
    eventually(lambda: _engine(annotated) == "wasm-wasmer")


def _engine(one: Bundle) -> str:
    return Path(f"/proc/{one.state().pid}/comm").read_text().strip()


def test_an_unknown_engine_is_refused(pod):
    one = pod("/sleep.wasm", "60", annotations={"wasmlab.dev/engine": "v8"})
    with pytest.raises(Refused, match="there is no engine called 'v8'"):
        one.create()


# -- one pod, one shim ------------------------------------------------------------------------------------------------


def test_containers_of_a_pod_share_a_shim_and_pods_do_not(pod, name):
    sandbox = pod(annotations=_sandbox(name))
    address = sandbox.start_shim()
    sandbox.create()
    sandbox.start()
    member = pod("/sleep.wasm", "60", id=name + "c", annotations=_member(name))
    assert member.start_shim() == address
    assert (member.path / "address").read_text() == address
    member.create()
    member.start()
    stranger = pod("/sleep.wasm", "60", id=name + "s")
    assert stranger.start_shim() != address
    # A shim with containers left does not end.
    member.kill()
    member.wait()
    member.delete()
    member.shutdown()
    assert sandbox.state().status == task_pb2.RUNNING


def test_the_sandbox_container_runs_no_module_and_ends_when_asked(pod, name):
    sandbox = pod("/pause", annotations=_sandbox(name))
    pid = sandbox.create()
    assert sandbox.start() == pid
    assert Path(f"/proc/{pid}/comm").read_text() == "wasm-pause\n"
    sandbox.kill(signal.SIGTERM)
    assert sandbox.wait() == 0
    assert sandbox.delete() == 0


def test_the_shim_ends_after_shutdown_and_takes_its_socket_along(pod, node, name):
    one = pod("/hello-none.wasm")
    with pytest.raises(Refused, match="no such module"):
        one.create()
    connect = one.call("Connect", task_pb2.ConnectRequest(id=name), task_pb2.ConnectResponse)
    one.shutdown()
    eventually(lambda: not Path(f"/proc/{connect.shim_pid}").exists())
    assert not any((node.shim_dir / "s").iterdir())


# -- life -------------------------------------------------------------------------------------------------------------


def test_states_and_events(pod, node, name):
    one = pod("/ticker.wasm", "10", "3")
    pid = one.create()
    assert (one.state().status, one.state().pid) == (task_pb2.CREATED, pid)
    assert not one.stdout.read_text()
    assert one.start() == pid
    assert one.wait() == 0, one.stderr.read_text()
    state = one.state()
    assert (state.status, state.exit_status) == (task_pb2.STOPPED, 0)
    assert abs(state.exited_at.ToSeconds() - time.time()) < 30
    assert one.stdout.read_text() == "tick 0\ntick 1\ntick 2\n"
    assert one.delete() == 0
    eventually(lambda: len(node.events.topics(name)) == 4)
    assert node.events.topics(name) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    with pytest.raises(Refused) as refused:
        one.state()
    assert refused.value.code == 5  # NotFound


def test_delete_before_start(pod, name):
    one = pod("/sleep.wasm", "60")
    pid = one.create()
    one.delete()
    assert not Path(f"/proc/{pid}").exists()
    eventually(lambda: not _cgroups(name))


def test_delete_while_it_runs_is_refused(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    one.start()
    with pytest.raises(Refused, match="must be stopped"):
        one.delete()


def test_killing_what_has_ended_says_not_found(pod):
    one = pod("/exit.wasm", "3")
    assert one.run()[0] == 3
    with pytest.raises(Refused) as refused:
        one.kill()
    assert refused.value.code == 5


def test_the_same_id_twice_is_refused(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    with pytest.raises(Refused) as refused:
        one.create()
    assert refused.value.code == 6


@pytest.mark.parametrize("method", ["Checkpoint", "Dance"])
def test_what_is_not_implemented_says_so(pod, method):
    one = pod("/sleep.wasm", "60")
    one.start_shim()
    with pytest.raises(Refused) as refused:
        one.call(method, task_pb2.Empty())
    assert refused.value.code == 12


def test_many_waiters_and_a_late_one(pod):
    one = pod("/sleep.wasm", "1")
    one.create()
    one.start()
    path = one.client.sock.getpeername()
    others = [Client(Path(path)) for _ in range(3)]
    for other in others:
        other.stream = 1
    assert one.wait() == 0, one.stderr.read_text()
    for other in others:
        assert other.call("Wait", task_pb2.WaitRequest(id=one.id), task_pb2.WaitResponse).exit_status == 0
        other.sock.close()


def test_a_client_that_comes_later_does_not_hear_of_the_end_at_once(pod):
    """containerd after its own restart asks before it has the container in its books, and forgets an early answer."""
    one = pod("/sleep.wasm", "60")
    one.create()
    one.start()
    late = Client(Path(one.client.sock.getpeername()))
    late.stream = 1
    asked_s = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(late.call, "Wait", task_pb2.WaitRequest(id=one.id), task_pb2.WaitResponse)
        one.kill()
        assert one.wait() == 128 + signal.SIGKILL
        assert answer.result(20).exit_status == 128 + signal.SIGKILL
    assert time.monotonic() - asked_s >= 0.99
    late.sock.close()


def test_a_process_has_stopped_before_its_output_is_read(pod, node, name, tmp_path):
    """Else containerd, back from its own restart, would take it for running, begin to read, and miss the end."""
    fifo = tmp_path / "out"
    os.mkfifo(fifo)

    def stopped_before_told(id: str) -> bool:
        one = pod("/ticker.wasm", "1", "3", id=id)
        one.create(stdout=str(fifo))
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        one.start()
        eventually(lambda: one.state().status == task_pb2.STOPPED)
        early = "/tasks/exit" not in node.events.topics(id)
        assert os.read(reader, 100) == b"tick 0\ntick 1\ntick 2\n"
        assert one.delete() == 0
        os.close(reader)
        eventually(lambda: node.events.topics(id)[-2:] == ["/tasks/exit", "/tasks/delete"])
        return early

    # The end is told two seconds later in any case: a machine that stands still for so long gets another chance.
    assert any(stopped_before_told(f"{name}{number}") for number in range(3))


def test_a_client_that_sends_rubbish_is_answered_and_harms_nobody(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    path = Path(one.client.sock.getpeername())
    with Client(path) as rude:
        rude.sock.sendall(b"\x00\x00\x00\x02\x00\x00\x00\x01\x01\x00\xff\xff")
        assert rude.sock.recv(1000)
        rude.sock.sendall(b"\xff" * 10)
    assert one.state().status == task_pb2.CREATED


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
    assert not _cgroups(name)


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


# -- limits, ends -----------------------------------------------------------------------------------------------------


def test_the_kernels_out_of_memory_kill_is_told_as_such(pod, node, name, tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    mounts = [
        {"destination": "/dev/termination-log", "type": "bind", "source": str(log), "options": ["rbind"]}
    ]
    linux = {"cgroupsPath": f"/wasmlab-test/{name}", "resources": {"memory": {"limit": 64 << 20}}}
    one = pod("/eatmem.wasm", mounts=mounts, linux=linux)
    one.create()
    # As if the worker itself had grown: the limit drops below what the guest may have.
    resources = json.dumps({"memory": {"limit": 24 << 20}})
    one.client.update(name, resources)
    one.start()
    assert one.wait() == 137
    eventually(lambda: "/tasks/oom" in node.events.topics(name))
    assert "out of memory" in log.read_text()
    assert "out of memory" in one.stderr.read_text()


def test_a_trap_leaves_its_reason_in_the_termination_log(pod, tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    mounts = [
        {"destination": "/dev/termination-log", "type": "bind", "source": str(log), "options": ["rbind"]}
    ]
    one = pod("/trap.wasm", mounts=mounts)
    code, _, err = one.run()
    assert code == 134
    assert "unreachable" in err
    assert "unreachable" in log.read_text()


def test_pids_limit_is_set_and_stats_tell_it(pod, name):
    linux = {
        "cgroupsPath": f"/wasmlab-test/{name}",
        "resources": {"pids": {"limit": 77}, "memory": {"limit": 99 << 20}},
    }
    one = pod("/sleep.wasm", "60", linux=linux)
    one.create()
    one.start()
    answer = one.call("Stats", task_pb2.StatsRequest(id=name), task_pb2.StatsResponse)
    kind = cgroups_v1_pb2 if V1 else cgroups_v2_pb2
    assert answer.stats.type_url == f"io.containerd.cgroups.v{1 if V1 else 2}.Metrics"
    figures = kind.Metrics.FromString(answer.stats.value)
    assert figures.pids.limit == 77
    assert figures.pids.current >= 1
    limit = figures.memory.usage.limit if V1 else figures.memory.usage_limit
    assert limit == 99 << 20


def test_pids_lists_execs(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    pid = one.start()
    one.exec("e", "/sleep.wasm", "60")
    second = one.start("e")
    answer = one.call("Pids", task_pb2.PidsRequest(id=one.id), task_pb2.PidsResponse)
    assert [process.pid for process in answer.processes] == [pid, second]
    one.kill(signal.SIGTERM, all=True)
    assert one.wait("e") == 143
    assert one.wait() == 143


def test_a_big_module_is_compiled_while_the_shim_answers(pod, name, repository):
    sandbox = pod(annotations=_sandbox(name))
    sandbox.create()
    sandbox.start()
    member = pod("/big.wasm", id=name + "c", annotations=_member(name))
    # A module that no cache has seen: a custom section makes the digest new.
    wasm = (repository / "data/wasm/sort.wasm").read_bytes()
    note = uuid.uuid4().bytes
    (member.rootfs / "big.wasm").write_bytes(wasm + bytes([0, 2 + len(note), 1]) + b"n" + note)
    # Whoever compiles holds this lock: it goes on when we let it.
    cache, digest = CompileCache(), hashlib.sha256((member.rootfs / "big.wasm").read_bytes()).hexdigest()
    lock = cache.lock_of(cache.key(engines.get("wasmtime"), f"sha256:{digest}"))
    address = member.start_shim()

    def create() -> int:
        request = task_pb2.CreateTaskRequest(id=member.id, bundle=str(member.path))
        with Client(Path(address.removeprefix("unix://"))) as asker:
            return asker.call("Create", request, task_pb2.CreateTaskResponse).pid

    def is_compiled() -> bool:
        """Ask the shim: it knows the container already, and no process of it yet."""
        with pytest.raises(Refused) as caught:
            member.state()
        return f"process {member.id} does not exist" in str(caught.value)

    with ThreadPoolExecutor(1) as pool:
        with file_lock(lock, 60):
            pid = pool.submit(create)
            eventually(is_compiled)
            assert sandbox.state().status == task_pb2.RUNNING
            assert not pid.done()
        assert pid.result(60) > 0
    assert member.state().status == task_pb2.CREATED


# -- faults -----------------------------------------------------------------------------------------------------------


def test_delete_after_a_crash_cleans_up_and_says_so(pod, node, name, tmp_path, fixtures_dir):
    one = pod("/sleep.wasm", "60")
    for part in ("upper", "work"):
        (tmp_path / part).mkdir()
    options = [f"lowerdir={fixtures_dir.resolve()}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    one.create(rootfs=[task_pb2.Mount(type="overlay", source="overlay", options=options)])
    pid = one.start()
    connect = one.call("Connect", task_pb2.ConnectRequest(id=name), task_pb2.ConnectResponse)
    assert connect.task_pid == pid
    os.kill(connect.shim_pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert str(one.rootfs) in Path("/proc/self/mountinfo").read_text()
    done = node.command(one, "-bundle", str(one.path), "delete")
    assert done.returncode == 0, done.stderr
    assert task_pb2.DeleteResponse.FromString(done.stdout).exit_status == 137
    assert str(one.rootfs) not in Path("/proc/self/mountinfo").read_text()
    assert not _cgroups(name)
    assert not Path((one.path / "address").read_text().removeprefix("unix://")).exists()


def test_delete_of_what_never_was_is_harmless(pod, node):
    one = pod("/sleep.wasm")
    done = node.command(one, "delete")
    assert done.returncode == 0


def test_a_killed_worker_is_told_as_killed(pod):
    one = pod("/sleep.wasm", "60")
    one.create()
    os.kill(one.start(), signal.SIGKILL)
    assert one.wait() == 137
    assert "killed" in one.stderr.read_text()


def test_a_zygote_is_started_once_by_many(node, pod, name):
    control.stop(node.shim_dir)
    pods = [pod("/sleep.wasm", "60", id=f"{name}{index}") for index in range(4)]
    children = [
        subprocess.Popen(
            [str(node.programs[0]), "-namespace", "test", "-address", "/a", "-id", one.id, "start"],
            cwd=one.path,
            env=node.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for one in pods
    ]
    for one, child in zip(pods, children, strict=True):
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        one.client = Client(Path(out.decode().removeprefix("unix://")))
        one.create()
    assert control.ping(node.shim_dir)
