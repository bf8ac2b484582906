"""The real kubelet and the real containerd, under runc: what the WASM shim's pods are compared with.

Everything here needs root and containerd; without, each test is reported as skipped.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.node.lab import until
from wasmlab.cluster.processes import identify
from wasmlab.containerd import (
    ContainerdNode,
    build,
    bundle,
    cleanup,
    installimage,
    installmanifests,
    missing,
    native,
)
from wasmlab.containerd.joining import forget, stop_all
from wasmlab.containerd.layout import Layout
from wasmlab.containerd.runtimeclass import container_pod
from wasmlab.errors import ClusterError
from wasmlab.oci import image
from wasmlab.oci.client import Client
from wasmlab.reference.documents import DOCUMENTS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=f"no container node here: {missing()}"),
]
PAUSE = Path(native.__file__).with_name("pause.c")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster with a registry that holds the images, and no node."""
    from wasmlab.cluster import Cluster

    with Cluster.embedded(tmp_path_factory.mktemp("lab"), node=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def images(lab: Any, repository: Path) -> dict[str, str]:
    """References of a program that says hello and ends, and of one that stays."""
    references = {}
    for name, source in (("hello", repository / "data/wasm/hello.c"), ("stay", PAUSE)):
        references[name] = f"{lab.registry}/native/{name}:v1"
        Client().push_image(native.image(source), references[name])
    return references


@pytest.fixture(scope="module")
def node(lab: Any) -> Iterator[ContainerdNode]:
    with ContainerdNode(lab, name="debian") as one:
        yield one
    assert one.traces() == []


def test_a_pod_runs_to_its_end(lab: Any, node: ContainerdNode, images: dict[str, str], unique: Any) -> None:
    name = unique("hello")
    lab.apply(container_pod(name, images["hello"], node="debian"))
    pod = lab.wait_pod(name, timeout_s=60)
    assert pod["status"]["phase"] == "Succeeded"
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")
    # containerd reads two pipes: the order between stdout and stderr is lost (a WASM node keeps it).
    said = {"hello from stdout!", "hello from stderr!", "Args are: []"}
    until("the log", lambda: set(lab.logs(name).splitlines()) == said, 60)
    assert pod["status"]["podIP"].startswith(node.address.rsplit(".", 1)[0] + ".")
    events = [event["reason"] for event in lab.events(name)]
    assert {"Pulled", "Created", "Started"} <= set(events)


def test_the_node_says_what_it_is(lab: Any, node: ContainerdNode) -> None:
    found = lab.node("debian")
    info = found["status"]["nodeInfo"]
    assert info["containerRuntimeVersion"].startswith(f"containerd://{node.programs.version}")
    assert info["kubeletVersion"].startswith("v1.")
    assert found["metadata"]["labels"]["wasmlab.dev/shim"] == "true"
    classes = lab.rest.get("/apis/node.k8s.io/v1/runtimeclasses")["items"]
    assert {one["handler"] for one in classes} == {"wasm", "wasmtime", "wasmer"}


def test_running_pods_outlive_kubelet_and_containerd(
    lab: Any, node: ContainerdNode, images: dict[str, str], unique: Any
) -> None:
    name = unique("stay")
    manifest = container_pod(name, images["stay"], node="debian")
    lab.apply(manifest)
    before = lab.wait_pod(name, phase=("Running",), timeout_s=60)
    for restart in (node.restart_kubelet, node.restart_containerd):
        restart(kill=True)
    other = unique("hello")  # a new pod proves that both work again
    lab.apply(container_pod(other, images["hello"], node="debian"))
    lab.wait_pod(other, timeout_s=60)
    after = lab.wait_pod(name, phase=("Running",), timeout_s=10)
    was, now = (pod["status"]["containerStatuses"][0] for pod in (before, after))
    assert (now["containerID"], now["restartCount"]) == (was["containerID"], 0)
    lab.delete(manifest, grace_s=1)
    lab.wait_gone(name)


def test_a_container_without_its_program_fails_and_says_so(
    lab: Any, node: ContainerdNode, unique: Any
) -> None:
    # Row 11 of the article, in a container: the kernel cannot run a module.
    module = Path(__file__).parents[2] / "data/wasm/hello_article.wasm"
    reference = f"{lab.registry}/both/hello:v1"
    Client().push_image(image.both_worlds(module.read_bytes(), path="/hello.wasm"), reference)
    name = unique("exec-format")
    lab.apply(container_pod(name, reference, node="debian"))
    pod = lab.wait_pod(name, timeout_s=60)
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert pod["status"]["phase"] == "Failed"
    # It was pulled (containerd chose linux among the platforms of the index), unpacked, and refused by the kernel.
    assert "exec format error" in terminated.get("message", "") or "exec format error" in lab.logs(name)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_nothing_is_left_after_a_kill(
    lab: Any, images: dict[str, str], tmp_path_factory: Any, unique: Any, elsewhere: bool
) -> None:
    """SIGKILL to the process that runs the node, with pods running: the next start clears up, and so does `clean`."""
    # Sockets lie in it: its path must be short.
    directory, name = tmp_path_factory.mktemp("k") / "n", unique("stay")
    script = textwrap.dedent(f"""
        import sys, time
        from wasmlab.cluster import Cluster
        from wasmlab.containerd import ContainerdNode
        ContainerdNode(Cluster.attach({str(lab.dir)!r}), {str(directory)!r}, name="killed").start()
        print("ready", flush=True)
        time.sleep(300)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        lab.apply(container_pod(name, images["stay"], node="killed"))
        lab.wait_pod(name, phase=("Running",), timeout_s=60)
    finally:
        process.kill()
        process.wait(10)
    layout = Layout.of(directory)
    # A pod belongs to its shim, and so it goes on when everything above it is gone: that is what has to be found.
    orphans = [
        identify(int(trace.split()[1])) for trace in cleanup.traces(layout) if trace.startswith("process")
    ]
    assert any(trace.startswith("mount") for trace in cleanup.traces(layout))
    assert orphans
    if elsewhere:
        assert layout.dir in cleanup.sweep()  # as the start of any other node does
        forget(lab, "killed")  # it was not this process's to know that Node
    else:
        with ContainerdNode(lab, directory, name="killed") as again:
            assert not [orphan for orphan in orphans if orphan is not None and orphan.alive]
        assert again.traces() == []
    assert not [orphan for orphan in orphans if orphan is not None and orphan.alive]
    assert cleanup.traces(layout) == []
    cleanup.clean(layout)  # nothing to do is no error


@pytest.mark.skipif(
    build.find() is None, reason="containerd 2 has not been built (python -m wasmlab.containerd.build)"
)
def test_containerd_2_runs_pods_with_evented_pleg(lab: Any, images: dict[str, str], unique: Any) -> None:
    with ContainerdNode(lab, name="two", containerd="2.x") as two:
        assert two.evented
        name = unique("evented")
        lab.apply(container_pod(name, images["hello"], node="two"))
        lab.wait_pod(name, timeout_s=60)
        # Told of the end at once, a reader can be ahead of containerd's own logger, which also mixes the two streams.
        until("the log", lambda: "hello from stdout!" in lab.logs(name).splitlines(), 10)
    assert two.traces() == []


def test_the_installer_installs_and_uninstalls(
    lab: Any, node: ContainerdNode, tmp_path: Path, unique: Any
) -> None:
    """The DaemonSet of real clusters, on this node, with a directory in place of the node's root file system."""
    reference = f"{lab.registry}/wasmlab/installer:v1"
    Client().push_image(installimage.installer_image(bundle.make(tmp_path / "bundle")), reference)
    shutil.rmtree(tmp_path / "bundle")  # it is large, and it is in the image
    host = tmp_path / "host"
    (host / "etc/containerd").mkdir(parents=True)
    configuration = host / "etc/containerd/config.toml"
    configuration.write_text("version = 2\n")
    # No kube-proxy runs here, so the API server has no address within the cluster.
    server = urlsplit(lab.server)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    pods = f"/api/v1/namespaces/{installmanifests.NAMESPACE}/pods"

    def apply(action: Any) -> None:
        manifests = installmanifests.installer(
            reference,
            action=action,
            host_path=str(host),
            arguments=("--no-restart",),
            environment=environment,
        )
        lab.apply(manifests)
        deadline = time.monotonic() + 90
        while True:
            for pod in lab.rest.get(pods)["items"]:
                # Not yet running, or of the action before: its log cannot be read, or says something else.
                with contextlib.suppress(ClusterError):
                    if lab.logs(pod["metadata"]["name"], installmanifests.NAMESPACE).startswith(
                        f"{action}ed on"
                    ):
                        return
            assert time.monotonic() < deadline, f"{action} did not end"
            time.sleep(0.2)

    try:
        apply("install")
        assert "io.containerd.wasmer.v1" in configuration.read_text()
        assert (host / "opt/wasmlab-shim/bin/containerd-shim-wasm-v1").exists()
        assert lab.node("debian")["metadata"]["labels"]["wasmlab.dev/shim"] == "true"
        apply("uninstall")
        assert configuration.read_text() == "version = 2\n"
        assert not (host / "opt/wasmlab-shim").exists()
        assert "wasmlab.dev/shim" not in lab.node("debian")["metadata"]["labels"]
    finally:
        lab.delete([one for one in installmanifests.installer(reference) if one["kind"] != "RuntimeClass"])


def test_a_node_that_goes_on_is_ended_by_the_labs_directory(
    lab: Any, images: dict[str, str], unique: Any
) -> None:
    """`wasmlab containerd up` returns and the node stays; `wasmlab containerd down` finds and ends it."""
    name = unique("stays")
    script = textwrap.dedent(f"""
        import typer
        from wasmlab.containerd import commands
        app = typer.Typer()
        app.callback()(lambda: None)
        commands.register(app)
        app(["containerd", "up", "--dir", {str(lab.dir)!r}, "--node-name", {name!r}, "--json"])
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts) == set(DOCUMENTS["containerd up"])
    assert facts["node"] == name
    pod = unique("stay")
    lab.apply(container_pod(pod, images["stay"], node=name))
    lab.wait_pod(pod, phase=("Running",), timeout_s=60)
    layout = Layout.of(facts["dir"])
    with pytest.raises(ClusterError, match="runs in"):
        ContainerdNode(lab, name=name).start()
    # The refused start has not touched it, and other nodes' starts leave it alone.
    assert layout.dir not in cleanup.sweep()
    lab.wait_pod(pod, phase=("Running",), timeout_s=10)
    assert stop_all(lab.dir, only=name) == [name]
    assert cleanup.traces(layout) == []
    assert lab.node(name) is None
