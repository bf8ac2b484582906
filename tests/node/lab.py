"""What the integration tests of the node share: pushing fixtures, making pods, waiting for what a pod says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wasmlab.cluster import manifests
from wasmlab.errors import ClusterError
from wasmlab.oci import Client

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "data" / "wasm" / "fixtures"
HELLO = ROOT / "data" / "wasm" / "hello.wasm"
POLL_S = 0.02


def push(cluster: Any, name: str, *, tag: str = "v1", repository: str = "") -> str:
    """Push a fixture to the cluster's registry, return its reference."""
    path = HELLO if name == "hello" else FIXTURES / f"{name}.wasm"
    reference = f"{cluster.registry}/{repository or name}:{tag}"
    Client().push(path, reference)
    return reference


def until(what: str, probe: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Ask until the answer is true; the last answer is in the failure."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s; last: {answer!r}")
        time.sleep(POLL_S)


def retire(cluster: Any, node: Any) -> None:
    """Stop a node and remove its object: the scheduler would go on using it until its Lease has run out."""
    node.stop()
    with contextlib.suppress(ClusterError):
        cluster.rest.call("DELETE", f"/api/v1/nodes/{node.name}")


class NodeLab:
    """One node of a cluster, and pods on it."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster = cluster
        self.node = node

    def pod(self, name: str, image: str, **options: Any) -> dict[str, Any]:
        """Make a pod for this node; `spec` and `container` are merged into it."""
        spec, container = options.pop("spec", {}), options.pop("container", {})
        made = manifests.wasm_pod(name, image, node=self.node.name, **options)
        made["spec"].update({"terminationGracePeriodSeconds": 2, **spec})
        made["spec"]["containers"][0].update(container)
        return made

    def apply(self, name: str, image: str, **options: Any) -> dict[str, Any]:
        return self.cluster.apply(self.pod(name, image, **options))[0]

    def run(self, name: str, image: str, *, timeout_s: float = 60.0, **options: Any) -> dict[str, Any]:
        """Make a pod and wait for its end."""
        self.apply(name, image, **options)
        return self.cluster.wait_pod(name, timeout_s=timeout_s)

    def led(self, name: str, probe: str, *operations: str) -> Path:
        """Make a pod of the fixture `probe` that does `operations`; return what it has as ``/v``.

        ``wait:/v/go=x`` holds it until the test has written `go` there: nothing depends on how long anything takes.
        """
        mounts = [{"name": "v", "mountPath": "/v"}]
        made = self.apply(
            name,
            probe,
            container={"args": list(operations), "volumeMounts": mounts},
            spec={"volumes": [{"name": "v", "emptyDir": {}}]},
        )
        return self.node.dir / "pods" / made["metadata"]["uid"] / "volumes" / "v"

    def get(self, name: str) -> dict[str, Any]:
        return self.cluster.rest.get(f"/api/v1/namespaces/default/pods/{name}")

    def container(self, name: str, index: int = 0) -> dict[str, Any]:
        statuses = self.get(name).get("status", {}).get("containerStatuses") or []
        return statuses[index] if len(statuses) > index else {}

    def waiting(self, name: str, reason: str, timeout_s: float = 60.0) -> str:
        """Wait until the pod's container waits for `reason`; return the message."""

        def probe() -> Any:
            waiting = self.container(name).get("state", {}).get("waiting", {})
            return [waiting.get("message", "")] if waiting.get("reason") == reason else None

        return until(f"{name} waits for {reason}", probe, timeout_s)[0]

    def running(self, name: str, timeout_s: float = 60.0) -> None:
        until(f"{name} runs", lambda: self.get(name)["status"].get("phase") == "Running", timeout_s)

    def events(self, name: str) -> list[tuple[str, str]]:
        return [(e["reason"], e["message"]) for e in self.cluster.events(name)]

    def event(self, name: str, reason: str, timeout_s: float = 30.0) -> str:
        """Wait for an event of the pod; return its message."""
        return until(
            f"event {reason} of {name}",
            lambda: next((m for r, m in self.events(name) if r == reason), None),
            timeout_s,
        )


def terminated(pod: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return pod["status"]["containerStatuses"][index]["state"]["terminated"]
