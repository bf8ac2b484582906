"""``kubectl exec`` and ``kubectl attach`` on a real control plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures as pool
from typing import Any

import pytest

from tests.node.endpointkit import Endpoint
from tests.node.endpointkit import console as console
from tests.node.endpointkit import endpoint as endpoint
from tests.node.lab import ROOT, NodeLab, push, retire, terminated, until
from tests.ports import ask, free_port
from wasmlab.node.endpoint import streams
from wasmlab.oci import Client

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    node = cluster.add_node("streams")
    yield NodeLab(cluster, node)
    retire(cluster, node)


def sleeping(lab: NodeLab, image: str, name: str, **options: Any) -> str:
    """A pod whose module sleeps."""
    container = {"args": ["out:up", "sleep:600"], **options.pop("container", {})}
    lab.apply(name, image, container=container, **options)
    lab.running(name)
    until(f"{name} has said so", lambda: lab.cluster.logs(name))
    return name


@pytest.fixture(scope="module")
def pod(lab: NodeLab, console: str) -> str:
    environment = [{"name": "COLOR", "value": "red"}]
    return sleeping(lab, console, "streams-pod", container={"env": environment})


def execute(lab: NodeLab, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = lab.cluster.kubectl_argv("exec", *args)
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=60)


def instances(endpoint: Endpoint) -> int:
    """How many modules run beside containers, by the node's own count."""
    text = endpoint.ask("/metrics", certificate=endpoint.api_server)[1]
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("wasmlab_instances ")))


# ---- exec ----


def test_the_node_says_that_it_speaks_websockets(lab: NodeLab) -> None:
    assert "ExtendWebSocketsToKubelet" in lab.cluster.node(lab.node.name)["status"]["declaredFeatures"]


def test_the_words_are_the_modules_arguments(lab: NodeLab, pod: str) -> None:
    done = execute(lab, pod, "--", "args", "env:COLOR", "err:to stderr")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "arg 0=console",
        "arg 1=args",
        "arg 2=env:COLOR",
        "arg 3=err:to stderr",
        "red",
    ]
    assert done.stderr == b"to stderr\n"
    # What it prints is the client's, not the pod's.
    assert lab.cluster.logs(pod) == "up\n"


@pytest.mark.parametrize("code", [1, 7, 255])
def test_exit_codes_arrive(lab: NodeLab, pod: str, code: int) -> None:
    done = execute(lab, pod, "--", f"fail:{code}")
    assert done.returncode == code
    assert f"exit code {code}" in done.stderr.decode()


def test_a_trap_is_a_failure_and_says_so(lab: NodeLab, pod: str) -> None:
    done = execute(lab, pod, "--", "trap")
    assert done.returncode == 134
    assert b"unreachable" in done.stderr


def test_input_passes_whole_and_ends(lab: NodeLab, pod: str) -> None:
    data = bytes(range(256)) * 4096  # more than any pipe or window holds
    done = execute(lab, "-i", pod, "--", "copy", stdin=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_a_module_that_reads_no_input_does_not_hang(lab: NodeLab, pod: str) -> None:
    done = execute(lab, "-i", pod, "--", "out:done", stdin=b"x" * 1_000_000)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_much_output_arrives_whole(lab: NodeLab, pod: str) -> None:
    done = execute(lab, pod, "--", "many:100000")
    lines = done.stdout.decode().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (100_000, "line 0", "line 99999")


def test_the_modules_own_name_may_be_repeated_another_is_refused(lab: NodeLab, pod: str) -> None:
    assert execute(lab, pod, "--", "/console.wasm", "out:x").stdout == b"x\n"
    done = execute(lab, pod, "--", "other.wasm", "out:x")
    assert done.returncode != 0
    assert b"is the module console and holds no other" in done.stderr


def test_an_instance_has_the_containers_directories(lab: NodeLab, unique: Name) -> None:
    name = unique("shared")
    mounts = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
    spec = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
    sleeping(
        lab,
        push(lab.cluster, "probe"),
        name,
        spec=spec,
        container={"args": ["write:/scratch/note=hello", "sleep:600"], **mounts},
    )
    done = execute(lab, name, "--", "wait:/scratch/note=hello", "cat:/scratch/note")
    assert b"cat:/scratch/note > hello" in done.stdout
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_the_other_engine(lab: NodeLab, console: str, unique: Name) -> None:
    name = sleeping(lab, console, unique("wasmer"), engine="wasmer")
    done = execute(lab, "-i", name, "--", "copy", "fail:3", stdin=b"through wasmer")
    assert (done.returncode, done.stdout) == (3, b"through wasmer")
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_clients_of_the_protocol_before(lab: NodeLab, pod: str) -> None:
    """The Python client speaks v4, which cannot close stdin."""
    from kubernetes import client
    from kubernetes.stream import stream

    # A client of its own: `stream` changes the one that it is given.
    core = client.CoreV1Api(client.ApiClient(lab.cluster.api.configuration))
    answer = stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        "default",
        command=["out:hello", "err:bye", "fail:5"],
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    answer.run_forever(timeout=60)
    assert (answer.read_stdout(), answer.read_stderr(), answer.returncode) == ("hello\n", "bye\n", 5)


def test_one_that_its_client_leaves_is_ended(lab: NodeLab, endpoint: Endpoint, pod: str) -> None:
    argv = lab.cluster.kubectl_argv("exec", pod, "--", "sleep:600")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            until("it runs", lambda: instances(endpoint) == 1)
        finally:
            client.kill()
    until("it has ended", lambda: instances(endpoint) == 0)
    assert lab.get(pod)["status"]["phase"] == "Running"


def test_one_that_reads_nothing_is_ended_too_when_its_client_leaves(
    lab: NodeLab, endpoint: Endpoint, pod: str
) -> None:
    argv = lab.cluster.kubectl_argv("exec", "-i", pod, "--", "sleep:600")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdin is not None
        try:
            until("it runs", lambda: instances(endpoint) == 1)
            # More than fits anywhere on the way, so that the end of the connection is stuck behind it.
            with contextlib.suppress(BrokenPipeError), pool.ThreadPoolExecutor(1) as writer:
                writing = writer.submit(lambda: [client.stdin.write(b"x" * 65536) for _ in range(400)])
                with contextlib.suppress(pool.TimeoutError):
                    writing.result(timeout=2)
                client.kill()
        finally:
            client.kill()
            with contextlib.suppress(BrokenPipeError):
                client.stdin.close()
    until("it has ended", lambda: instances(endpoint) == 0)


def test_one_ends_with_its_pod(lab: NodeLab, endpoint: Endpoint, console: str, unique: Name) -> None:
    name = sleeping(lab, console, unique("ending"))
    argv = lab.cluster.kubectl_argv("exec", name, "--", "sleep:600")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
        try:
            until("it runs", lambda: instances(endpoint) == 1)
            lab.cluster.kubectl("delete", "pod", name, "--wait=false")
            _, text = client.communicate(timeout=60)
        finally:
            client.kill()
    assert client.returncode == 137, text
    until("it has ended", lambda: instances(endpoint) == 0)


def test_one_ends_with_an_agent_that_is_killed_and_its_pod_does_not(
    lab: NodeLab, endpoint: Endpoint, pod: str
) -> None:
    async def running() -> set[str]:
        from wasmlab.sandbox import AsyncSandbox

        sandbox = await AsyncSandbox.connect("wasmtime", lab.node.dir / "sandbox")
        try:
            return set((await sandbox.stats())["running"])
        finally:
            await sandbox.aclose()

    def beside() -> list[str]:
        return [one for one in asyncio.run(running()) if one.startswith("beside-")]

    argv = lab.cluster.kubectl_argv("exec", pod, "--", "sleep:600")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            until("it runs", beside)
            lab.node.kill()
            until("it has ended", lambda: not beside())
            client.wait(60)  # it is told: the connection is gone
            assert f"{lab.get(pod)['metadata']['uid']}.{pod}.0" in asyncio.run(running())
        finally:
            client.kill()
            lab.node.start()
            lab.node.wait_ready(60)
            endpoint.wait_running(pod)
    assert lab.get(pod)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_sessions_are_logged_without_their_arguments(lab: NodeLab, pod: str) -> None:
    execute(lab, pod, "--", "out:a-secret-word")
    lines = [line for line in lab.node.log.read_text().splitlines() if " msg=exec " in line]
    assert f"pod=default/{pod} " in lines[-1]
    assert "user=kube-apiserver-kubelet-client" in lines[-1]
    assert "a-secret-word" not in lab.node.log.read_text()


def test_a_container_that_has_ended_cannot_be_entered(lab: NodeLab, console: str, unique: Name) -> None:
    name = unique("over")
    lab.run(name, console, container={"args": ["out:x"]})
    done = execute(lab, name, "--", "out:x")
    assert done.returncode != 0
    assert b"does not run" in done.stderr or b"completed pod" in done.stderr


# ---- the protocol, without kubectl ----


def converse(
    endpoint: Endpoint,
    path: str,
    sent: Sequence[bytes] = (),
    protocol: str = streams.V5,
) -> tuple[dict[int, bytes], dict[str, Any]]:
    """Open a WebSocket to the node; return what came on each channel, and the Status that ended it."""
    import aiohttp

    async def talk() -> dict[int, bytes]:
        got: dict[int, bytes] = {}
        url = f"https://{endpoint.address}:{endpoint.port}{path}"
        async with (
            asyncio.timeout(60),
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url, protocols=[protocol], ssl=endpoint.context(endpoint.api_server)
            ) as socket,
        ):
            assert socket.protocol == protocol
            for message in sent:
                await (
                    socket.send_str(message.decode())
                    if protocol == streams.V4_BASE64
                    else socket.send_bytes(message)
                )
            async for message in socket:
                frame = streams.decode(protocol, message.data)
                assert frame is not None
                got[frame.channel] = got.get(frame.channel, b"") + frame.data
        return got

    got = asyncio.run(talk())
    return got, json.loads(got.pop(streams.ERROR))


def test_a_terminal_is_refused_in_words(endpoint: Endpoint, pod: str) -> None:
    path = f"/exec/default/{pod}/{pod}?command=args&output=1&input=1&tty=1"
    got, status = converse(endpoint, path)
    assert got == {streams.STDOUT: b""}  # the sign that the connection stands
    assert status["status"] == "Failure"
    assert "no terminal" in status["message"]


def test_input_ends_by_the_close_message(endpoint: Endpoint, pod: str) -> None:
    path = f"/exec/default/{pod}/{pod}?command=lines&output=1&input=1"
    got, status = converse(endpoint, path, [b"\x00one\n", b"\x00tw", b"\x00o\n", b"\xff\x00"])
    assert got[streams.STDOUT] == b"line: one\nline: two\nend of input\n"
    assert status["status"] == "Success"


def test_only_what_was_asked_for_is_sent(endpoint: Endpoint, pod: str) -> None:
    path = f"/exec/default/{pod}/{pod}?command=out:1&command=err:2&command=fail:9&error=1"
    got, status = converse(endpoint, path, protocol=streams.V4_BASE64)
    assert got == {streams.STDERR: b"2\n"}
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "9"}]


@pytest.mark.parametrize(
    "path", ["/exec/default/{pod}/{pod}?command=x&output=1", "/portForward/default/{pod}"]
)
def test_only_known_protocols_are_spoken(endpoint: Endpoint, pod: str, path: str) -> None:
    for upgrade, code in (
        ({}, 400),
        ({"Connection": "Upgrade", "Upgrade": "h2c"}, 400),
        ({"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}, 403),
        (
            {
                "Connection": "Upgrade",
                "Upgrade": "SPDY/3.1",
                "X-Stream-Protocol-Version": "v9.channel.k8s.io",
            },
            403,
        ),
    ):
        status, text = endpoint.ask(
            path.format(pod=pod), certificate=endpoint.api_server, method="POST", headers=upgrade
        )
        assert status == code, text


# ---- API servers before 1.36 ----


def as_before_1_36(lab: NodeLab, action: str, act: Callable[[], Any]) -> None:
    """Do something until it went over SPDY: the API server speaks that to a node that declares nothing.

    The node declares again what it can whenever it reports its status, so that one try may go the other way.
    """
    path = f"/api/v1/nodes/{lab.node.name}/status"

    def spoken() -> int:
        lines = lab.node.log.read_text().splitlines()
        return sum(action in line and "SPDY" in line for line in lines)

    before = spoken()

    def tried() -> bool:
        lab.cluster.rest.call(
            "PATCH",
            path,
            body={"status": {"declaredFeatures": None}},
            content_type="application/merge-patch+json",
        )
        act()
        return spoken() > before

    until(f"{action} goes over SPDY", tried, 120)


def test_exec_works_where_spdy_is_spoken(lab: NodeLab, pod: str) -> None:
    def act() -> None:
        done = execute(lab, pod, "--", "out:1", "err:2", "fail:7")
        assert (done.stdout, done.returncode) == (b"1\n", 7), done.stderr
        assert done.stderr.startswith(b"2\n")
        done = execute(lab, "-i", pod, "--", "copy", stdin=b"x" * 300_000)
        assert done.stdout == b"x" * 300_000, (len(done.stdout), done.stderr)
        assert done.returncode == 0

    as_before_1_36(lab, "exec", act)


def test_a_client_that_leaves_over_spdy_takes_its_instance_along(
    lab: NodeLab, endpoint: Endpoint, pod: str
) -> None:
    def act() -> None:
        argv = lab.cluster.kubectl_argv("exec", pod, "--", "out:up", "sleep:600")
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            client.kill()
        until("its instance has ended", lambda: instances(endpoint) == 0, 60)

    as_before_1_36(lab, "exec", act)


# ---- attach ----


@contextlib.contextmanager
def attached(lab: NodeLab, *args: str) -> Iterator[subprocess.Popen[str]]:
    argv = lab.cluster.kubectl_argv("attach", *args)
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        try:
            yield client
        finally:
            client.kill()


def test_attach_shows_what_is_printed_from_now_on(lab: NodeLab, console: str, unique: Name) -> None:
    name = unique("attached")
    lab.apply(
        name,
        console,
        container={"stdin": True, "stdinOnce": True, "args": ["out:before", "lines", "err:bye"]},
    )
    lab.running(name)
    until("it has begun", lambda: lab.cluster.logs(name) == "before\n")
    with attached(lab, "-i", name) as client:
        assert client.stdin is not None
        client.stdin.write("one\ntwo\n")
        client.stdin.close()  # with stdinOnce the end of the first client's input is the end of the module's
        client.stdin = None
        out, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert out == "line: one\nline: two\nend of input\n"
    assert "bye" in err
    assert terminated(lab.cluster.wait_pod(name, timeout_s=60))["exitCode"] == 0


def test_input_survives_its_clients_and_the_agent(
    lab: NodeLab, endpoint: Endpoint, console: str, unique: Name
) -> None:
    name = unique("patient")
    lab.apply(name, console, container={"stdin": True, "args": ["lines"]})
    lab.running(name)

    def say(text: str) -> None:
        with attached(lab, "-i", name) as client:
            assert client.stdin is not None
            client.stdin.write(f"{text}\n")
            client.stdin.flush()
            until("the module has read it", lambda: f"line: {text}\n" in lab.cluster.logs(name))

    say("first")
    lab.node.restart(60)
    endpoint.wait_running(name)
    say("second")
    assert lab.get(name)["status"]["phase"] == "Running"
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_without_stdin_true_it_says_so(endpoint: Endpoint, lab: NodeLab, console: str, unique: Name) -> None:
    name = unique("deaf")
    lab.apply(name, console, container={"args": ["sleep:600"]})
    lab.running(name)
    with attached(lab, "-i", name) as client:
        assert client.stderr is not None
        text = ""
        while "stdin: true" not in text:
            line = client.stderr.readline()
            assert line, f"it ended after {text!r}"
            text += line
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


# ---- port-forward ----


@contextlib.contextmanager
def forwarded(lab: NodeLab, pod: str, port: int) -> Iterator[tuple[int, list[str]]]:
    """Run kubectl port-forward; yields the local port, and the lines that it prints, as they come."""
    argv = lab.cluster.kubectl_argv("port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        ready = f" -> {port}"
        until(
            "kubectl forwards", lambda: [one for one in lines if ready in one] or process.poll() is not None
        )
        assert process.poll() is None, lines
        yield int(lines[0].split(ready)[0].rsplit(":", 1)[1]), lines
    finally:
        process.terminate()
        process.wait(20)
        reader.join(20)


def test_a_module_that_serves_is_reached_through_the_api_server(lab: NodeLab, unique: Name) -> None:
    name, served = unique("serving"), free_port()
    image = f"{lab.cluster.registry}/serve:v1"
    Client().push(ROOT / "data/wasm/serve.wasm", image)
    lab.apply(name, image, args=(str(served), "first"), container={"ports": [{"containerPort": served}]})
    lab.running(name)
    address = lab.get(name)["status"]["podIP"]
    assert until("the module answers", lambda: ask(address, served)).startswith("first says hello, request ")
    with forwarded(lab, name, served) as (port, lines):
        with pool.ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: ask("127.0.0.1", port), range(40)))
        # The module counts its requests: each came once, and each client got its own answer.
        assert len({one for one in answers if one and one.startswith("first says hello, request ")}) == 40
        lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        lab.cluster.wait_gone(name, timeout_s=60)
        until("the module is gone", lambda: ask(address, served) is None)
        assert ask("127.0.0.1", port) is None
        until("kubectl says why", lambda: any(f"listens on port {served}" in line for line in lines))


def test_a_port_on_which_no_module_listens_is_not_forwarded(lab: NodeLab, pod: str) -> None:
    agent_port = lab.cluster.node(lab.node.name)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    # The node itself listens there; a pod is no way to it.
    with forwarded(lab, pod, agent_port) as (port, lines):
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.settimeout(60)
            assert connection.recv(1) == b""
        wanted = f"no module of this pod listens on port {agent_port}, or on any other"
        until("kubectl says why", lambda: any(wanted in line for line in lines))


def test_ports_are_forwarded_where_spdy_is_spoken(lab: NodeLab, unique: Name) -> None:
    name, served = unique("serving-spdy"), free_port()
    image = f"{lab.cluster.registry}/serve:v1"
    Client().push(ROOT / "data/wasm/serve.wasm", image)
    lab.apply(name, image, args=(str(served), "first"), container={"ports": [{"containerPort": served}]})
    lab.running(name)
    address = lab.get(name)["status"]["podIP"]
    until("the module answers", lambda: ask(address, served))

    def act() -> None:
        with forwarded(lab, name, served) as (port, lines):
            answers = [ask("127.0.0.1", port) for _ in range(5)]
            assert all(one and one.startswith("first says hello, request ") for one in answers), (
                answers,
                lines,
            )

    as_before_1_36(lab, "portForward", act)
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")
