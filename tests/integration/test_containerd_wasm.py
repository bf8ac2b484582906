"""WASM pods down the second path: kubelet, containerd, our shim, both engines.

Everything here needs root and containerd; without, each test is reported as skipped.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from wasmlab.containerd import ContainerdNode, build, cleanup, missing
from wasmlab.containerd.runtimeclass import article_deployment, container_pod
from wasmlab.errors import ClusterError
from wasmlab.oci import image
from wasmlab.oci.client import Client

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=f"no container node here: {missing()}"),
]
ENGINES = ("wasmtime", "wasmer")
GREETING = "Hello from WebAssembly!\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster with a registry, and no node."""
    from wasmlab.cluster import Cluster

    with Cluster.embedded(tmp_path_factory.mktemp("lab"), node=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def node(lab: Any) -> Iterator[ContainerdNode]:
    with ContainerdNode(lab, name="box") as one:
        yield one
    assert one.traces() == []


@pytest.fixture(scope="module")
def hello(repository: Path) -> bytes:
    return (repository / "data/wasm/hello_article.wasm").read_bytes()


@pytest.fixture(scope="module")
def article_image(lab: Any, hello: bytes) -> str:
    """Row 12: FROM scratch, COPY hello.wasm, CMD ["/hello.wasm"]."""
    reference = f"{lab.registry}/article/hello:v1"
    Client().push_image(image.module_image(hello, path="/hello.wasm"), reference)
    return reference


@pytest.fixture(scope="module")
def guests(lab: Any, fixtures_dir: Path, hello: bytes) -> str:
    """One image with every guest that tests need, and two that are damaged."""
    files = {f"/{path.name}": path.read_bytes() for path in fixtures_dir.glob("*.wasm")}
    files["/cut.wasm"] = hello[: len(hello) // 2]
    files["/text.wasm"] = b"not a module\n"
    reference = f"{lab.registry}/test/guests:v1"
    Client().push_image(image.scratch_image(files, cmd=["/exit.wasm", "0"]), reference)
    return reference


Pod = dict[str, Any]
Run = Callable[..., Pod]


class Pods:
    """Starts pods of the guests' image; what it started is deleted after the test."""

    def __init__(self, cluster: Any, guests: str, unique: Callable[[str], str]) -> None:
        self.cluster = cluster
        self.guests = guests
        self.unique = unique
        self.manifests: list[Pod] = []

    def start(self, *command: str, runtime: str = "wasm", **options: Any) -> str:
        """Start one and return its name."""
        manifest = container_pod(
            self.unique("guest"),
            options.pop("image", self.guests),
            runtime_class=runtime,
            command=command,
            node="box",
            **options,
        )
        self.manifests.append(manifest)
        self.cluster.apply(manifest)
        return str(manifest["metadata"]["name"])

    def wait(self, name: str, *phases: str) -> Pod:
        pod: Pod = self.cluster.wait_pod(name, phase=phases or ("Succeeded", "Failed"), timeout_s=60)
        return pod

    def run(self, *command: str, phase: str = "", **options: Any) -> Pod:
        """Start one and wait for its end, or for `phase`."""
        name = self.start(*command, **options)
        return self.wait(name, phase) if phase else self.wait(name)


@pytest.fixture
def pods(lab: Any, node: ContainerdNode, guests: str, unique: Callable[[str], str]) -> Iterator[Pods]:
    several = Pods(lab, guests, unique)
    yield several
    lab.delete(several.manifests, grace_s=0)


@pytest.fixture
def run(pods: Pods) -> Run:
    return pods.run


def name_of(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def terminated(pod: Pod) -> dict[str, Any]:
    state: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def _log(lab: Any, name: str) -> str:
    try:
        return str(lab.logs(name))
    except ClusterError:  # between two containers
        return ""


def logged(lab: Any, name: str, enough: Callable[[str], Any]) -> str:
    """Return a pod's log once it is what is wanted; containerd writes it, in its own time, also after the end."""
    said = ""

    def look() -> bool:
        nonlocal said
        said = _log(lab, name)
        return bool(enough(said))

    try:
        until(look)
    except AssertionError:
        raise AssertionError(f"the log of {name} is {said[:2000]!r}") from None
    return said


# ---------------------------------------------------------------- the article


@pytest.mark.parametrize("runtime", ["wasm", *ENGINES])
def test_the_articles_deployment(
    lab: Any, node: ContainerdNode, article_image: str, runtime: str, unique: Callable[[str], str]
) -> None:
    """Row 13: a Deployment with runtimeClassName and imagePullPolicy Always prints its line and is Completed."""
    name = unique("hello-wasm")
    manifest = article_deployment(article_image, name=name, runtime_class=runtime)
    lab.apply(manifest)
    pods = "/api/v1/namespaces/default/pods"

    def completed() -> dict[str, Any] | None:
        for pod in lab.rest.get(pods, labelSelector=f"app={name}")["items"]:
            for status in pod["status"].get("containerStatuses", []):
                for state in (status["state"], status.get("lastState", {})):
                    if state.get("terminated", {}).get("reason") == "Completed":
                        return dict(pod)
        return None

    try:
        pod = until(completed, 60)
        # The container is restarted meanwhile, and a new one has not said anything yet.
        until(lambda: _log(lab, name_of(pod)) == GREETING)
        listed = lab.kubectl("get", "pods", "-l", f"app={name}", "--no-headers").stdout
        # A Deployment restarts what has ended: Completed, then CrashLoopBackOff between restarts.
        assert "Completed" in listed or "CrashLoopBackOff" in listed or "Running" in listed
        pulled = [event for event in lab.events(name_of(pod)) if event["reason"] == "Pulled"]
        assert pulled, "imagePullPolicy Always asks the registry each time"
    finally:
        lab.delete(manifest)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_annotation_chooses_the_engine(run: Run, lab: Any, article_image: str, engine: str) -> None:
    pod = run(image=article_image, runtime="wasm", engine=engine)
    assert terminated(pod)["exitCode"] == 0
    logged(lab, name_of(pod), lambda said: said == GREETING)


def test_one_reference_for_both_worlds(
    run: Run, lab: Any, hello: bytes, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """`wasmlab oci pack --for both`: a WASM node takes it, and so does a container node."""
    from wasmlab.cluster import wasm_pod

    file = tmp_path / "hello.wasm"
    file.write_bytes(hello)
    reference = f"{lab.registry}/both/hello:v1"
    argv = ["oci", "pack", str(file), reference]
    from typer.testing import CliRunner

    from wasmlab.cli import build_app

    packed = CliRunner().invoke(build_app("oci"), argv)
    assert packed.exit_code == 0, packed.output

    contained = run(image=reference)
    logged(lab, name_of(contained), lambda said: said == GREETING)
    name = unique("direct")
    with_node = lab.add_node(unique("wasm-node"))
    try:
        lab.apply(wasm_pod(name, reference))
        direct = lab.wait_pod(name, timeout_s=60)
        assert direct["status"]["phase"] == "Succeeded"
        assert lab.logs(name) == GREETING
    finally:
        with_node.stop()
        lab.nodes.pop(with_node.name, None)


@pytest.mark.skipif(
    build.find() is None, reason="containerd 2 has not been built (python -m wasmlab.containerd.build)"
)
def test_containerd_2(lab: Any, hello: bytes, article_image: str, unique: Callable[[str], str]) -> None:
    """The same shim under containerd 2, which also takes the image whose only layer is the module."""
    layer = f"{lab.registry}/layer/hello:v1"
    Client().push_image(image.wasm_layer_image(hello), layer)
    with ContainerdNode(lab, name="two", containerd="2.x") as two:
        for reference in (article_image, layer):
            for runtime in ENGINES:
                name = unique("two")
                lab.apply(container_pod(name, reference, runtime_class=runtime, node="two"))
                pod = lab.wait_pod(name, timeout_s=60)
                assert terminated(pod)["exitCode"] == 0, (reference, terminated(pod))
                # Events tell of the end at once; containerd's own logger may still be writing.
                until(lambda name=name: lab.logs(name) == GREETING, 10)
    assert two.traces() == []


# ---------------------------------------------------------------- what a guest may expect


def test_how_guests_end(pods: Pods) -> None:
    codes = {
        (one, code): pods.start("/exit.wasm", str(code), runtime=one)
        for one in ENGINES
        for code in (0, 1, 126, 255)
    }
    traps = [pods.start("/trap.wasm", runtime=one) for one in ENGINES]
    for (one, code), name in codes.items():
        pod = pods.wait(name)
        assert terminated(pod)["exitCode"] == code, one
        assert pod["status"]["phase"] == ("Failed" if code else "Succeeded")
        assert terminated(pod)["reason"] == ("Error" if code else "Completed")
    for name in traps:
        trapped = terminated(pods.wait(name))
        assert trapped["exitCode"] not in (0, 1)
        assert "unreachable" in trapped["message"]


def test_memory_is_limited(pods: Pods, lab: Any) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    for name in [pods.start("/eatmem.wasm", runtime=one, resources=limits) for one in ENGINES]:
        pods.wait(name)
        # The guest's request is refused; the guest is not killed.
        said = logged(lab, name, lambda said: "grown" in said)
        grown = [line for line in said.splitlines() if line.startswith("grown")]
        assert 32 <= int(grown[-1].split()[1]) < 64


def test_limits_hold_and_use_is_reported(pods: Pods, lab: Any) -> None:
    """What `kubectl top` shows: the kubelet's summary, from the containers' cgroups."""
    limits = {"limits": {"memory": "64Mi", "cpu": "200m"}}
    names = {pods.start("/loop.wasm", runtime=one, resources=limits) for one in ENGINES}

    def used() -> dict[str, tuple[int, int]] | None:
        summary = json.loads(lab.rest.call("GET", "/api/v1/nodes/box/proxy/stats/summary"))
        found = {
            pod["podRef"]["name"]: (
                pod["containers"][0].get("cpu", {}).get("usageNanoCores", 0),
                pod["containers"][0].get("memory", {}).get("workingSetBytes", 0),
            )
            for pod in summary["pods"]
            if pod.get("containers")
        }
        # Two samples, some seconds apart, make the first figure.
        return found if all(found.get(name, (0, 0))[0] > 50e6 for name in names) else None

    figures = until(used, 60)
    for name in names:
        cores, memory = figures[name]
        # The kubelet divides by the time between two reads of a busy machine, so the figure is rough; the group is not.
        assert cores < 1000e6, "it is reported as a share of one core, not as what all of them did"
        assert 0 < memory < 64 << 20
    groups = {name: cpu_group(pods.wait(name, "Running")) for name in names}
    before = {name: cpu_ns(group) for name, group in groups.items()}
    time.sleep(2)
    for name, group in groups.items():
        started, used_ns = before[name]
        _, total_ns = cpu_ns(group)
        now = time.monotonic_ns()  # after the reading, as the first was before it
        # A quota is given anew each 100 ms: the interval cuts through some of them, the reads take a while too.
        assert total_ns - used_ns <= 0.2 * (now - started + 500e6), (
            "a guest that loops gets the 0.2 cores it may have"
        )
        assert total_ns > used_ns, "and it does run"


def cpu_group(pod: Pod) -> Path:
    """Return the cgroup of a pod's only container, where its CPU time is counted."""
    identity = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    (group, *_) = [
        path
        for root in ("cpuacct", "")
        for path in Path("/sys/fs/cgroup", root).glob(f"**/*{identity}*")
        if path.is_dir()
    ]
    return group


def cpu_ns(group: Path) -> tuple[int, int]:
    """Return (CLOCK_MONOTONIC, CPU time used by the group), in nanoseconds."""
    if (group / "cpuacct.usage").exists():
        return time.monotonic_ns(), int((group / "cpuacct.usage").read_text())
    figures = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return time.monotonic_ns(), 1000 * int(figures["usage_usec"])


def test_arguments_and_environment(pods: Pods, lab: Any) -> None:
    for name in [
        pods.start("/env.wasm", args=["a b", "c"], env={"NAME": "v=w"}, runtime=one) for one in ENGINES
    ]:
        pods.wait(name)
        wanted = {"arg 1=a b", "arg 2=c", "env NAME=v=w", f"env HOSTNAME={name}"}
        logged(lab, name, lambda said, wanted=wanted: wanted <= set(said.splitlines()))


def test_ten_thousand_lines_arrive(pods: Pods, lab: Any) -> None:
    for name in [pods.start("/spam.wasm", "10000", runtime=one) for one in ENGINES]:
        pods.wait(name)
        said = logged(lab, name, lambda said: said.count("\n") >= 10000)
        assert [line.split()[1] for line in said.splitlines()] == [str(n) for n in range(10000)]


def test_what_cannot_run_says_why(pods: Pods, lab: Any) -> None:
    wanted = {
        "/missing.wasm": "no such module in the image: /missing.wasm",
        "/cut.wasm": "refuses the module",
        "/text.wasm": "module",
    }
    names = {pods.start(program, runtime=one): said for program, said in wanted.items() for one in ENGINES}
    for name, said in names.items():
        pod = pods.wait(name)
        assert pod["status"]["phase"] == "Failed"
        assert said in terminated(pod)["message"]
        assert any(said in event["message"] for event in lab.events(name) if event["reason"] == "Failed")


@pytest.mark.parametrize("runtime", ENGINES)
def test_exec_runs_another_instance(run: Run, lab: Any, runtime: str) -> None:
    pod = run("/ticker.wasm", "200", "1000000", runtime=runtime, phase="Running")

    def execute(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = lab.kubectl(
            "exec",
            *options.pop("flags", ()),
            name_of(pod),
            "--",
            *words,
            check=False,
            timeout_s=30,
            **options,
        )
        return done

    done = execute("/env.wasm", "x", "y z")
    assert done.returncode == 0, done.stderr
    assert {"arg 1=x", "arg 2=y z"} <= set(done.stdout.splitlines())
    assert execute("/exit.wasm", "200").returncode == 200
    assert execute("/cat.wasm", flags=("-i",), input="over stdin\n").stdout == "over stdin\n"
    # Other words are arguments of the pod's own module: nobody has to know what it is called.
    assert execute("1", "3").stdout == "tick 0\ntick 1\ntick 2\n"


@pytest.mark.parametrize("runtime", ENGINES)
def test_a_running_module_ends_when_it_is_told(run: Run, lab: Any, runtime: str) -> None:
    pod = run("/loop.wasm", runtime=runtime, phase="Running")
    started = time.monotonic()
    lab.kubectl("delete", "pod", name_of(pod), "--grace-period=100", "--wait=true")
    assert time.monotonic() - started < 90, "SIGTERM should have ended it, not SIGKILL after the grace period"


# ---------------------------------------------------------------- what nodes go through


def test_running_modules_outlive_kubelet_and_containerd(run: Run, lab: Any, node: ContainerdNode) -> None:
    running = [run("/ticker.wasm", "200", "1000000", runtime=one, phase="Running") for one in ENGINES]
    node.restart_containerd(kill=True)
    node.restart_kubelet(kill=True)
    node.restart_containerd()
    for before in running:
        name = name_of(before)
        seen = lab.logs(name).splitlines()[-1]
        # It still prints, and its output still arrives.
        until(lambda name=name, seen=seen: lab.logs(name).splitlines()[-1] != seen)
        after = lab.wait_pod(name, phase=("Running",), timeout_s=60)
        was, now = (pod["status"]["containerStatuses"][0] for pod in (before, after))
        assert (now["containerID"], now["restartCount"]) == (was["containerID"], 0)
        done = lab.kubectl("exec", name, "--", "/exit.wasm", "3", check=False, timeout_s=60)
        assert done.returncode == 3, done.stderr


def test_a_module_that_ends_while_containerd_is_away(run: Run, lab: Any, node: ContainerdNode) -> None:
    sleeping = [run("/sleep.wasm", "3", runtime=one, phase="Running") for one in ENGINES]
    assert node.containerd is not None
    node.containerd.kill()
    time.sleep(4)
    node.restart_containerd()
    for pod in sleeping:
        ended = lab.wait_pod(name_of(pod), timeout_s=60)
        assert (ended["status"]["phase"], terminated(ended)["exitCode"]) == ("Succeeded", 0)


@pytest.mark.timeout(480)
def test_two_hundred_pods_leave_nothing(lab: Any, node: ContainerdNode, article_image: str) -> None:
    """100 at once, twice, half of them on each engine: none is lost, and nothing of them stays."""
    selector = "burst=yes"
    pods = "/api/v1/namespaces/default/pods"
    until(lambda: not per_pod_traces(node), 60)
    for wave in range(2):
        manifests = [
            container_pod(
                f"burst-{wave}-{number}", article_image, runtime_class=ENGINES[number % 2], node="box",
                image_pull_policy="IfNotPresent",
            )
            for number in range(100)
        ]  # fmt: skip
        for manifest in manifests:
            manifest["metadata"]["labels"] = dict([selector.split("=")])
        with ThreadPoolExecutor(4) as writers:
            list(writers.map(lab.apply, manifests))

        def ended() -> list[dict[str, Any]] | None:
            items = lab.rest.get(pods, labelSelector=selector)["items"]
            return items if all(p["status"].get("phase") in ("Succeeded", "Failed") for p in items) else None

        items = until(ended, 150)
        assert Counter(pod["status"]["phase"] for pod in items) == {"Succeeded": 100}
        lab.rest.call(
            "DELETE", f"{pods}?labelSelector={selector}", body={"gracePeriodSeconds": 0}, what="delete"
        )
    until(lambda: not per_pod_traces(node), 90)


def per_pod_traces(node: ContainerdNode) -> list[str]:
    """Return what pods left on the machine: mounts, cgroups, network, shims, sockets."""
    try:
        return _per_pod_traces(node)
    except FileNotFoundError as error:  # it went while it was looked at, so more may be going
        return [f"going: {error.filename}"]


def _per_pod_traces(node: ContainerdNode) -> list[str]:
    layout = node.layout
    found = [t for t in node.traces() if t.startswith(("file", "link"))]
    # The kubelet mounts its own directory onto itself, once.
    found += [t for t in node.traces() if t.startswith("mount") and not t.endswith("/kubelet")]
    for root in cleanup._cgroup_roots(layout):
        found += [str(path) for path in root.glob("kubepods/**/pod*")]
    bridge = Path("/sys/class/net", layout.bridge, "brif")
    found += [str(path) for path in bridge.iterdir()]
    found += [str(path) for path in layout.state.glob("io.containerd.runtime.v2.task/k8s.io/*")]
    found += [str(path) for path in (layout.cni / "state" / layout.network).glob("10.*")]
    found += [str(path) for path in layout.kubelet.glob("pods/*")]
    return found
