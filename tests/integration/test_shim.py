"""The shim under a real containerd, through ctr."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shim.containerd import RUNTIMES, Containerd, eventually, missing, programs
from wasmlab import engines
from wasmlab.shim import control

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(missing()), reason=f"the shim under containerd: {missing()}"),
]

HELLO_OUT = "hello from stdout!\nArgs are: []\n"
ALL = "lab.local/all:v1"


@pytest.fixture(
    scope="module", params=[pytest.param(path, id=f"containerd-{name}") for name, path in programs().items()]
)
def containerd(request: pytest.FixtureRequest, repository: Path) -> Iterator[Containerd]:
    one = Containerd(request.param)
    try:
        files = {
            f"/{path.name}": path.read_bytes() for path in (repository / "data/wasm/fixtures").glob("*.wasm")
        }
        files["/hello.wasm"] = (repository / "data/wasm/hello.wasm").read_bytes()
        files["/component.wasm"] = (repository / "data/wasm/components/hello.wasm").read_bytes()
        files["/usr/bin/tool"] = files["/env.wasm"]
        files["/truncated.wasm"] = files["/hello.wasm"][:300]
        files["/program"] = b"\x7fELF" + bytes(100)
        files["/data/note.txt"] = b"a note\n"
        one.image(ALL, files, cmd=["/hello.wasm"], env={"FROM": "image"})
        yield one
    finally:
        one.close()


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4().hex[:10]}"


@pytest.fixture(params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> str:
    return RUNTIMES[request.param]


@pytest.fixture
def wasmtime() -> str:
    return RUNTIMES["wasmtime"]


@pytest.fixture(autouse=True)
def no_leftovers(containerd: Containerd, name: str) -> Iterator[None]:
    yield
    containerd.remove(name)
    eventually(lambda: not containerd.leftovers() or None, 10)


def run(
    containerd: Containerd, runtime: str, name: str, *args: str, options: tuple[str, ...] = (), **more: object
):
    command = ("run", "--rm", "--runtime", runtime, *options, ALL, name, *args)
    return containerd.ctr(*command, check=False, **more)  # type: ignore[arg-type]


def start(containerd: Containerd, runtime: str, name: str, *args: str, options: tuple[str, ...] = ()) -> int:
    containerd.ctr("run", "-d", "--null-io", "--runtime", runtime, *options, ALL, name, *args)
    return containerd.tasks()[name][0]


def delete(containerd: Containerd, name: str) -> int:
    """Delete the task; return its exit code, which ctr only tells in a warning."""
    found = re.search(r"non-zero exit code (\d+)", containerd.ctr("tasks", "delete", name).stderr)
    return int(found[1]) if found else 0


# -- running ----------------------------------------------------------------------------------------------------------


def test_hello(containerd, runtime, name):
    done = run(containerd, runtime, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, HELLO_OUT, "hello from stderr!\n")


def test_a_component_runs_on_wasmtime_and_is_refused_on_wasmer(containerd, runtime, name):
    done = run(containerd, runtime, name, "/component.wasm", "from", "ctr")
    if runtime == RUNTIMES["wasmer"]:
        assert done.returncode != 0 and "wasmer cannot run this component" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout == 'hello from stdout!\nArgs are: ["from", "ctr"]\n'


def test_handler_wasm_is_the_default_engine(containerd, name):
    assert run(containerd, "io.containerd.wasm.v1", name).stdout == HELLO_OUT


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 137, 255])
def test_exit_codes_are_exact(containerd, runtime, name, code):
    if RUNTIMES["wasmer"] == runtime and code in (1, 125, 127):
        pytest.skip("the corners are enough for the second engine")
    assert run(containerd, runtime, name, "/exit.wasm", str(code)).returncode == code


def test_a_trap_is_told_on_stderr_and_has_the_code_of_an_abort(containerd, runtime, name):
    done = run(containerd, runtime, name, "/trap.wasm")
    assert done.returncode == 134
    assert re.search(r"wasmlab: .*unreachable", done.stderr)


def test_a_stack_overflow_ends_only_the_guest(containerd, runtime, name):
    done = run(containerd, runtime, name, "/stackoverflow.wasm")
    assert done.returncode == 134
    assert "stack_overflow" in done.stderr


def test_arguments_and_environment(containerd, wasmtime, name):
    done = run(
        containerd, wasmtime, name, "/env.wasm", "one", "two words", options=("--env", "MORE=from ctr")
    )
    lines = done.stdout.splitlines()
    assert lines[:3] == ["arg 0=/env.wasm", "arg 1=one", "arg 2=two words"]
    assert "env FROM=image" in lines
    assert "env MORE=from ctr" in lines
    assert not any("WASMLAB" in line for line in lines)


@pytest.mark.parametrize(
    ("module", "options"),
    [("/usr/bin/tool", ()), ("tool", ()), ("./tool", ("--cwd", "/usr/bin")), ("hello.wasm", ())],
    ids=["absolute", "in-PATH", "relative", "in-the-root"],
)
def test_the_module_is_found(containerd, wasmtime, name, module, options):
    assert run(containerd, wasmtime, name, module, options=options).returncode == 0


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("/nothere.wasm", "no such module in the image: /nothere.wasm"),
        ("/program", "/program is not a WASM module (an ELF program for the host)"),
        ("/data/note.txt", "is not a WASM module"),
        ("/truncated.wasm", "wasmtime refuses the module"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(containerd, wasmtime, name, module, expected):
    done = run(containerd, wasmtime, name, module)
    assert done.returncode != 0
    assert expected in done.stderr


def test_ten_thousand_lines_arrive(containerd, runtime, name):
    done = run(containerd, runtime, name, "/spam.wasm", "10000")
    lines = done.stdout.splitlines()
    assert len(lines) == 10000
    assert len(set(lines)) == 10000


def test_stdin_reaches_the_guest_and_ends(containerd, runtime, name):
    text = "".join(f"line {i}\n" for i in range(5000))
    done = run(containerd, runtime, name, "/cat.wasm", stdin=text)
    assert done.stdout == text


def test_terminal(containerd, wasmtime, name):
    master, slave = pty.openpty()
    child = containerd.popen(
        "run",
        "--rm",
        "-t",
        "--runtime",
        wasmtime,
        ALL,
        name,
        "/cat.wasm",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        deadline = time.monotonic() + 20
        os.write(master, b"typed\n")
        sent_end = False
        while time.monotonic() < deadline:
            ready, _, _ = select.select([master], [], [], 0.2)
            if ready:
                try:
                    seen += os.read(master, 4096)
                except OSError:
                    break
            if seen.count(b"typed") >= 2 and not sent_end:
                sent_end = True
                os.write(master, b"\x04")
            if child.poll() is not None:
                break
        assert child.wait(10) == 0, seen
        # Once echoed by a terminal, once printed by the guest.
        assert seen.count(b"typed") >= 2, seen
    finally:
        child.kill()
        child.wait()
        os.close(master)


def test_terminal_output_is_complete_when_the_guest_ends_at_once(containerd, wasmtime, name):
    master, slave = pty.openpty()
    child = containerd.popen(
        "run",
        "--rm",
        "-t",
        "--runtime",
        wasmtime,
        ALL,
        name,
        "/hello.wasm",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([master], [], [], 10)
            part = os.read(master, 4096) if ready else b""
            if not part:
                break
            seen += part
    assert child.wait(10) == 0
    os.close(master)
    # As with runc, both terminals (ctr's and the container's) turn the ends of lines into CR LF.
    # ctr 2.x says something about the machine first.
    assert seen.replace(b"\r", b"").endswith(b"hello from stdout!\nhello from stderr!\nArgs are: []\n")


# -- signals, states, exec --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGKILL", 137), ("SIGINT", 130)])
def test_signals_end_the_module(containerd, runtime, name, number, code):
    start(containerd, runtime, name, "/sleep.wasm", "60")
    containerd.ctr("tasks", "kill", "-s", number, name)
    eventually(lambda: containerd.tasks()[name][1] == "STOPPED")
    assert delete(containerd, name) == code


def test_an_endless_loop_is_ended(containerd, runtime, name):
    start(containerd, runtime, name, "/loop.wasm")
    containerd.ctr("tasks", "kill", "-s", "SIGTERM", name)
    eventually(lambda: containerd.tasks()[name][1] == "STOPPED")


def test_pause_freezes_and_resume_goes_on(containerd, runtime, name):
    pid = start(containerd, runtime, name, "/loop.wasm")
    containerd.ctr("tasks", "pause", name)
    assert containerd.tasks()[name][1] == "PAUSED"
    before = _cpu_ticks(pid)
    time.sleep(0.3)
    assert _cpu_ticks(pid) == before
    containerd.ctr("tasks", "resume", name)
    assert containerd.tasks()[name][1] == "RUNNING"
    eventually(lambda: _cpu_ticks(pid) > before)


def test_a_paused_module_can_be_killed(containerd, wasmtime, name):
    start(containerd, wasmtime, name, "/loop.wasm")
    containerd.ctr("tasks", "pause", name)
    containerd.ctr("tasks", "kill", "-s", "SIGKILL", name)
    eventually(lambda: containerd.tasks()[name][1] == "STOPPED")


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_exec_runs_the_pods_own_module_with_other_arguments(containerd, runtime, name):
    containerd.ctr("run", "-d", "--null-io", "--runtime", runtime, ALL, name, "/sleep.wasm", "60")
    done = containerd.ctr("tasks", "exec", "--exec-id", "e1", name, "1", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sleeping\nawake\n", "")


def test_exec_runs_another_module_of_the_image(containerd, runtime, name):
    start(containerd, runtime, name, "/sleep.wasm", "60")
    done = containerd.ctr("tasks", "exec", "--exec-id", "e1", name, "/env.wasm", "x", check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "arg 1=x"
    assert (
        containerd.ctr("tasks", "exec", "--exec-id", "e2", name, "/exit.wasm", "7", check=False).returncode
        == 7
    )
    assert containerd.tasks()[name][1] == "RUNNING"


def test_exec_passes_stdin(containerd, wasmtime, name):
    start(containerd, wasmtime, name, "/sleep.wasm", "60")
    done = containerd.ctr("tasks", "exec", "--exec-id", "e1", name, "/cat.wasm", stdin="to an exec\n")
    assert done.stdout == "to an exec\n"


def test_execs_end_with_the_container(containerd, wasmtime, name):
    start(containerd, wasmtime, name, "/sleep.wasm", "60")
    child = containerd.popen("tasks", "exec", "--exec-id", "e1", name, "/sleep.wasm", "60")
    eventually(lambda: len(_pids(containerd, name)) == 2)
    containerd.ctr("tasks", "kill", "-s", "SIGKILL", name)
    assert child.wait(10) == 137


def _pids(containerd: Containerd, name: str) -> list[int]:
    return [int(line.split()[0]) for line in containerd.ctr("tasks", "ps", name).stdout.splitlines()[1:]]


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_module_sees_its_root_and_can_write_there(containerd, wasmtime, name):
    done = run(containerd, wasmtime, name, "/readdir.wasm", "/")
    assert {"hello.wasm", "data", "usr"} <= set(done.stdout.split())
    assert not Path("/hello.wasm").exists()


def test_wasmer_sees_the_directories_of_the_image(containerd, name):
    done = run(containerd, RUNTIMES["wasmer"], name, "/readdir.wasm", "/data")
    assert done.stdout == "note.txt\n"


def test_mounts_for_reading_and_writing(containerd, wasmtime, name, tmp_path):
    (tmp_path / "given").write_text("x")
    mount = f"type=bind,src={tmp_path},dst=/mnt/here,options=rbind:rw"
    done = run(
        containerd, wasmtime, name, "/writefile.wasm", "/mnt/here/out", "text", options=("--mount", mount)
    )
    assert (done.returncode, (tmp_path / "out").read_text()) == (0, "text\n")


def test_read_only_mounts_are_read_only(containerd, wasmtime, name, tmp_path):
    mount = f"type=bind,src={tmp_path},dst=/mnt/here,options=rbind:ro"
    done = run(containerd, wasmtime, name, "/writefile.wasm", "/mnt/here/out", options=("--mount", mount))
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_wasmer_writes_to_a_mount_or_says_at_the_start_that_it_cannot(containerd, name, tmp_path):
    mount = f"type=bind,src={tmp_path},dst=/mnt/here,options=rbind:rw"
    done = run(
        containerd, RUNTIMES["wasmer"], name, "/writefile.wasm", "/mnt/here/out", options=("--mount", mount)
    )
    if engines.get("wasmer").capabilities.directories:
        assert (done.returncode, (tmp_path / "out").exists()) == (0, True)
    else:
        assert done.returncode != 0
        assert "wasmer cannot give the module /mnt/here for writing" in done.stderr


def test_wasmer_reads_a_read_only_mount(containerd, name, tmp_path):
    (tmp_path / "given").write_text("x")
    mount = f"type=bind,src={tmp_path},dst=/mnt/here,options=rbind:ro"
    done = run(containerd, RUNTIMES["wasmer"], name, "/readdir.wasm", "/mnt/here", options=("--mount", mount))
    assert done.stdout == "given\n"


def test_a_read_only_root(containerd, wasmtime, name):
    done = run(containerd, wasmtime, name, "/writefile.wasm", "/out", options=("--read-only",))
    assert done.returncode == 2


def test_the_module_cannot_leave_its_root(containerd, wasmtime, name):
    assert run(containerd, wasmtime, name, "/readdir.wasm", "/../../../../etc").returncode == 2


def test_mounts_stay_in_the_container(containerd, wasmtime, name, tmp_path):
    pid = start(
        containerd,
        wasmtime,
        name,
        "/sleep.wasm",
        "60",
        options=("--mount", f"type=bind,src={tmp_path},dst=/mnt/here,options=rbind:rw"),
    )
    assert "/mnt/here" not in Path("/proc/self/mountinfo").read_text()

    def inside() -> set[str]:
        return {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}

    # The host's file systems are not only hidden: they are not there. (They go before the guest begins, and the task
    # counts as started a moment earlier.)
    eventually(lambda: not any(one.startswith(str(containerd.dir)) for one in inside()))
    assert "/mnt/here" in inside()


def test_root_in_the_container_is_not_root_on_the_host(containerd, wasmtime, name):
    pid = start(containerd, wasmtime, name, "/sleep.wasm", "60")

    def capabilities(kind: str) -> int:
        return int(re.search(rf"{kind}:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)

    # They go before the guest begins, and the task counts as started a moment earlier.
    eventually(lambda: not capabilities("CapEff") >> 21 & 1)  # CAP_SYS_ADMIN
    assert capabilities("CapBnd") == capabilities("CapEff")


# -- limits and figures -----------------------------------------------------------------------------------------------


def test_memory_limit_is_felt_by_the_guest(containerd, runtime, name):
    done = run(containerd, runtime, name, "/eatmem.wasm", options=("--memory-limit", str(64 << 20)))
    assert done.returncode == 0, done.stderr
    grown = int(re.search(r"grown (\d+) MiB", done.stdout)[1])
    assert 40 <= grown < 64


def test_stats(containerd, runtime, name):
    start(containerd, runtime, name, "/loop.wasm", options=("--memory-limit", str(128 << 20)))

    def read() -> dict:
        return json.loads(containerd.ctr("tasks", "metrics", "--format", "json", name).stdout)

    def used_ns(figures: dict) -> int:
        cpu = figures["cpu"]
        return 1000 * cpu["usage_usec"] if "usage_usec" in cpu else int(cpu["usage"]["total"])

    assert str(128 << 20) in json.dumps(read())
    eventually(lambda: used_ns(read()) > 10_000_000)


def test_cpu_limit(containerd, wasmtime, name):
    pid = start(containerd, wasmtime, name, "/loop.wasm", options=("--cpus", "0.2"))
    begun, before = time.monotonic(), _cpu_ticks(pid)
    time.sleep(1.0)
    used_s = (_cpu_ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
    # The quota is given anew each 100 ms, and reading takes a while on a busy machine.
    assert used_s <= 0.2 * (time.monotonic() - begun + 0.5)


def test_update_changes_a_limit(containerd, wasmtime, name):
    start(containerd, wasmtime, name, "/sleep.wasm", "60", options=("--memory-limit", str(128 << 20)))
    resources = json.dumps({"memory": {"limit": 96 << 20}})
    # ctr has no command for it, so ask the shim as containerd would.
    from tests.shim.client import Client

    with Client(_socket_of(containerd, name)) as shim:
        shim.update(name, resources)
    text = containerd.ctr("tasks", "metrics", "--format", "json", name).stdout
    assert str(96 << 20) in text


def _socket_of(containerd: Containerd, name: str) -> Path:
    address = containerd.dir / f"state/io.containerd.runtime.v2.task/default/{name}/address"
    return Path(address.read_text().removeprefix("unix://"))


def test_events_come_in_order(containerd, wasmtime, name):
    child = containerd.popen("events")
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(child.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        # It says nothing when it is ready, so make events until it hears one.
        eventually(lambda: containerd.ctr("namespaces", "label", "default", f"x={time.time_ns()}") and lines)
        run(containerd, wasmtime, name)

        def topics() -> list[str]:
            return [found[0] for line in lines if name in line and (found := re.search(r"/tasks/\S+", line))]

        eventually(lambda: "/tasks/delete" in topics())
        assert topics() == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    finally:
        child.kill()
        child.wait()
        reader.join(5)


# -- faults -----------------------------------------------------------------------------------------------------------


def _shim_of(containerd: Containerd, name: str) -> int:
    from tests.shim.client import Client

    with Client(_socket_of(containerd, name)) as shim:
        return shim.connect(name).shim_pid


def test_a_killed_shim_takes_its_own_module_and_no_other(containerd, wasmtime, name):
    other = f"{name}-other"
    victim = start(containerd, wasmtime, name, "/sleep.wasm", "60")
    survivor = start(containerd, wasmtime, other, "/sleep.wasm", "60")
    try:
        assert _shim_of(containerd, name) != _shim_of(containerd, other)
        os.kill(_shim_of(containerd, name), signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{victim}").exists())
        # containerd calls `delete`, which cleans up and says how the task ended.
        eventually(lambda: name not in containerd.tasks())
        assert containerd.tasks()[other] == (survivor, "RUNNING")
    finally:
        containerd.remove(other)


def test_a_killed_zygote_is_replaced_and_harms_nobody(containerd, wasmtime, name):
    pid = start(containerd, wasmtime, name, "/sleep.wasm", "60")
    zygote = control.ping(containerd.shim_dir)
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: control.ping(containerd.shim_dir) is None)
    assert containerd.tasks()[name] == (pid, "RUNNING")
    done = run(containerd, wasmtime, f"{name}-next")
    assert done.stdout == HELLO_OUT
    assert control.ping(containerd.shim_dir) not in (None, zygote)
    containerd.ctr("tasks", "kill", "-s", "SIGTERM", name)
    eventually(lambda: containerd.tasks()[name][1] == "STOPPED")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_containerd_restarted_finds_its_tasks_again(containerd, wasmtime, name, how):
    pid = start(containerd, wasmtime, name, "/sleep.wasm", "60")
    if how == "SIGKILL":
        os.kill(containerd.child.pid, signal.SIGKILL)
    containerd.stop()
    assert Path(f"/proc/{pid}").exists()
    containerd.start()
    assert containerd.tasks()[name] == (pid, "RUNNING")
    containerd.ctr("tasks", "kill", "-s", "SIGTERM", name)
    eventually(lambda: containerd.tasks()[name][1] == "STOPPED")
    assert delete(containerd, name) == 143


def test_a_module_that_ended_while_containerd_was_away_keeps_its_exit_code(containerd, wasmtime, name):
    pid = start(containerd, wasmtime, name, "/sleep.wasm", "60")
    containerd.stop()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    containerd.start()
    assert containerd.tasks()[name][1] == "STOPPED"
    assert delete(containerd, name) == 143


def test_twenty_runs_leave_nothing(containerd, runtime, name):
    children = []
    for index in range(20):
        children.append(containerd.popen("run", "--rm", "--runtime", runtime, ALL, f"{name}-{index}"))
        if len(children) >= 4:
            child = children.pop(0)
            assert child.communicate(timeout=60)[0] == HELLO_OUT
    for child in children:
        assert child.communicate(timeout=60)[0] == HELLO_OUT
    eventually(lambda: not containerd.leftovers() or None, 10)
    eventually(lambda: len(containerd.shims()) <= 1, 10)
