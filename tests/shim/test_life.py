"""The Task service: states, ends, limits and figures of a container, with real shims and workers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.shim.client import Client, Refused
from tests.shim.containerd import eventually
from tests.shim.pod import cgroups_of, member_annotations, sandbox_annotations
from wasmlab import engines
from wasmlab.engines import CompileCache
from wasmlab.paths import file_lock
from wasmlab.shim.pb import cgroups_v1_pb2, cgroups_v2_pb2, task_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the shim needs root (mounts, cgroups)")

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


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
    eventually(lambda: not cgroups_of(name))


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
    sandbox = pod(annotations=sandbox_annotations(name))
    sandbox.create()
    sandbox.start()
    member = pod("/big.wasm", id=name + "c", annotations=member_annotations(name))
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
