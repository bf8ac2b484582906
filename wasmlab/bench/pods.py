"""Path "node": a module as a Pod on a WASM node, observed through the API.

What the modes mean here
------------------------
======  ===========================  ===================================  =============================================
mode    module on the node           compiled code                        processes
======  ===========================  ===================================  =============================================
cold    not pulled: a salted copy    none: nobody has compiled this copy  the engine's zygote runs, a worker is idle
        nobody has seen before
cached  pulled                       in the node's compile cache          none: the engine's zygote was ended before, a
                                                                          new one starts for this pod
warm    pulled                       in the node's compile cache          the engine's zygote runs, a worker is idle:
                                                                          the second and every later pod of a node
======  ===========================  ===================================  =============================================

In every mode the guest runs in a process of its own. The clock starts when the client begins to write the Pod to the
API. It stops at the first byte of output (``first_byte_ns``, from the node's own spans) and when a watch that was
running before sees the Pod Succeeded (``total_ns``, ``status_observed_ns``). Client, control plane and node share one
host and one CLOCK_MONOTONIC; on a cluster elsewhere the node's moments are missing.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench.api import Api, PodWatch
from wasmlab.bench.flood import remove
from wasmlab.bench.local import refusal
from wasmlab.bench.phases import Span, as_spans, durations, moments
from wasmlab.bench.plan import Arm
from wasmlab.errors import BenchmarkError, ClusterError, Unsupported
from wasmlab.modules import workloads
from wasmlab.modules.salt import salted

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster

#: On the Pods of one executor in a cluster that is not ours.
LABEL = "wasmlab.dev/bench"
_DEADLINE_S = 120.0
_SPANS_WAIT_S = 3.0


class SpansReader:
    """Reads what a node agent appended to its ``spans.jsonl``, pod by pod.

    Parameters
    ----------
    path : Path
        The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._known: dict[str, tuple[Span, ...]] = {}

    def poll(self) -> None:
        """Take in the lines that are new."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size < self._offset:  # the agent has begun a new file
            self._offset = 0
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._known[entry["uid"]] = as_spans([*entry["spans"], *entry.get("engine_spans", ())])

    def wait(self, uid: str, timeout_s: float = _SPANS_WAIT_S) -> tuple[Span, ...]:
        """Return a pod's spans; empty if they do not come in time."""
        deadline = time.monotonic() + timeout_s
        while uid not in self._known and time.monotonic() < deadline:
            self.poll()
            if uid not in self._known:
                time.sleep(0.005)
        return self._known.pop(uid, ())


class PodExecutor:
    """Runs workloads as pods; a context manager that removes its namespace at the end.

    In a cluster that is not ours it works in the lab's namespace there, looks only at its own Pods, and removes those.

    Parameters
    ----------
    cluster : Cluster
        With at least one Ready WASM node.
    node_dir : Path, optional
        Directory of the node agent on this host, for its spans; None if the node is elsewhere.
    """

    def __init__(self, cluster: Cluster, node_dir: Path | None = None) -> None:
        self._cluster = cluster
        self._node_dir = node_dir
        self._api = Api(cluster.kubeconfig, cluster.context)
        self._id = secrets.token_hex(3)
        self.namespace = cluster.namespace if cluster.guest else f"bench-{self._id}"
        self._labels = {**cluster.guest.labels, LABEL: self._id} if cluster.guest else {}
        #: What tells its Pods from others of the namespace; empty if they are alone there.
        self.selector = f"{LABEL}={self._id}" if cluster.guest else ""
        self._images: dict[str, str] = {}
        self._prepared: set[tuple[str, str]] = set()
        self._count = 0
        self._stack = contextlib.ExitStack()

    @property
    def api(self) -> Api:
        """The connection that is measured."""
        return self._api

    def __enter__(self) -> PodExecutor:
        try:
            if self._cluster.guest is None:
                make_namespace(self._api, self.namespace)
                self._stack.callback(self._remove_namespace)
            else:
                self._stack.callback(remove, self._api, self.namespace, self.selector)
            self._spans = SpansReader(self._node_dir / "spans.jsonl") if self._node_dir else None
            self.watch = self._stack.enter_context(PodWatch(self._api, self.namespace, self.selector))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._api.close()

    def _remove_namespace(self) -> None:
        with contextlib.suppress(ClusterError):
            self._api.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def image(self, path: Path, name: str) -> str:
        """Push a module once and return its reference."""
        if name not in self._images:
            from wasmlab.oci import Client

            reference = f"{self._cluster.registry}/bench/{name.replace('/', '-')}:v1"
            Client().push(path, reference)
            self._images[name] = reference
        return self._images[name]

    def pod(self, image: str, engine: str, args: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
        """Return a fresh name and the manifest of a Pod."""
        from wasmlab.cluster.manifests import wasm_pod

        self._count += 1
        name = f"run-{self._id}-{self._count:05d}" if self.selector else f"run-{self._count:05d}"
        manifest = wasm_pod(
            name, image, engine=engine, args=args, namespace=self.namespace, image_pull_policy="IfNotPresent"
        )
        if self._labels:
            manifest["metadata"]["labels"] = dict(self._labels)
        return name, manifest

    def spans_of(self, uid: str) -> tuple[Span, ...]:
        """Return what the node's agent has noted of a pod by now, once; empty if it has not yet."""
        if self._spans is None:
            return ()
        self._spans.poll()
        return self._spans.wait(uid, 0.0)

    def ready_pod(self, engine: str, work: workloads.Workload) -> tuple[str, dict[str, Any]]:
        """Return a fresh name and the manifest of a Pod that the node has nothing to prepare for."""
        name, manifest = self.pod(self.prepare(engine, work), engine, work.args)
        return name, work.with_scratch(manifest)

    def create(self, manifest: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
        """Write a Pod and return when that began, when it was answered (ns), and the answer.

        Raises
        ------
        ClusterError
            If the API server refuses it.
        """
        body = json.dumps(manifest).encode()
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        began = time.monotonic_ns()
        status, data = self._api.request("POST", path, body)
        ended = time.monotonic_ns()
        answer = json.loads(data)
        if status != 201:
            raise ClusterError(
                f"the API server refused the Pod: {status} {answer.get('message')}", status=status
            )
        return began, ended, answer

    def prepare(self, engine: str, work: workloads.Workload) -> str:
        """Make the node pull and compile a workload, by running it once; returns the image."""
        image = self.image(work.path, work.name)
        if (engine, work.file) not in self._prepared:
            name, manifest = self.pod(image, engine, work.args)
            self.create(work.with_scratch(manifest))
            self.watch.wait_done(name, _DEADLINE_S)
            self._prepared.add((engine, work.file))
        return image

    def run(self, arm: Arm) -> dict[str, Any]:
        """Carry out one run; see `wasmlab.bench.runner.Executor`."""
        work = workloads.get(arm.workload)
        if "node" not in work.paths:
            raise BenchmarkError(f"{work.name} reads standard input, which a Pod does not have")
        # Such a Pod would wait for ever, with the same reason in its status.
        if refused := refusal(arm.engine, work):
            raise Unsupported(refused, remedy="leave it out on this engine")
        from wasmlab import engines

        row: dict[str, Any] = {
            "engine_version": engines.get(arm.engine).version,
            "module_digest": work.digest,
        }
        image = self.prepare(arm.engine, work)
        if arm.mode == "cold":
            image, row["module_digest"] = self._salted_image(work)
        elif arm.mode == "cached":
            self._end_zygote(arm.engine)
        name, manifest = self.pod(image, arm.engine, work.args)
        began, answered, pod = self.create(work.with_scratch(manifest))
        seen = self.watch.wait_done(name, _DEADLINE_S)
        spans = [Span("api_write", began, answered), Span("status_observed", began, seen["done"])]
        spans.append(Span("scheduled", began, seen["scheduled"]))
        if self._spans is not None:
            spans += self._spans.wait(pod["metadata"]["uid"])
        row |= moments(spans, began) | durations(spans)
        row["total_ns"] = row["status_observed_ns"]
        row |= self._verdict(name, work)
        return row

    def _verdict(self, name: str, work: workloads.Workload) -> dict[str, Any]:
        pod = self.watch.last[name]
        state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("terminated", {})
        code = state.get("exitCode")
        status, log = self._api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}/log")
        if status != 200:
            error: str | None = f"no log: {status} {log[:200].decode(errors='replace')}"
        else:
            error = work.check_log(log, code)
        if error and pod["status"].get("phase") != "Succeeded":
            error = f"{error}; {state.get('reason')}: {state.get('message')}"
        return {"exit_code": code, "ok": error is None, "error": error}

    def _salted_image(self, work: workloads.Workload) -> tuple[str, str]:
        from wasmlab.oci import Client

        module = salted(work.module())
        reference = f"{self._cluster.registry}/bench/cold:{module.digest[7:19]}"
        with tempfile.NamedTemporaryFile(suffix=".wasm") as file:
            file.write(module.data)
            file.flush()
            Client().push(Path(file.name), reference)
        return reference, module.digest

    def _end_zygote(self, engine: str) -> None:
        """End the engine's zygote, so that the next pod needs a new one."""
        if self._node_dir is None:
            raise BenchmarkError(
                "the mode cached needs a node on this machine: its sandbox has to be ended first",
                remedy="measure cold and warm on this cluster",
            )
        from wasmlab.cluster import processes

        own = [one for one in processes.sandboxes_under(self._node_dir) if engine_of(one.pid) == engine]
        left = processes.end(own, 5.0)
        if left:
            raise BenchmarkError(f"the {engine} zygote does not end", remedy="restart the node")
        time.sleep(0.1)  # the agent's loop must have seen the socket close


def engine_of(pid: int) -> str | None:
    """Return which engine a zygote serves, from its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return words[words.index("--engine") + 1]
    except (OSError, ValueError, IndexError):
        return None


def make_namespace(api: Api, name: str, timeout_s: float = 30.0) -> None:
    """Create a namespace and wait until pods may be created in it.

    Raises
    ------
    ClusterError
        If its default service account does not appear in time: until then pods are refused with 403.
    """
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    deadline = time.monotonic() + timeout_s
    while api.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] != 200:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"namespace {name} got no default service account within {timeout_s:g} s",
                remedy="is the controller manager running?",
            )
        time.sleep(0.02)
