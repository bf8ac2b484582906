"""The Task service, called as containerd calls it: a real zygote, real shims, real workers; no containerd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.shim.client import Client, Refused
from tests.shim.containerd import eventually
from tests.shim.pod import Bundle, cgroups_of, member_annotations, sandbox_annotations
from wasmlab.shim import control
from wasmlab.shim.pb import info_pb2, task_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the shim needs root (mounts, cgroups)")


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
    sandbox = pod(annotations=sandbox_annotations(name))
    address = sandbox.start_shim()
    sandbox.create()
    sandbox.start()
    member = pod("/sleep.wasm", "60", id=name + "c", annotations=member_annotations(name))
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
    sandbox = pod("/pause", annotations=sandbox_annotations(name))
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
    assert not cgroups_of(name)
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
