"""Path "containerd": a module as a Pod of the ordinary kubelet, run by containerd and our shim, beside runc.

What the modes mean here
------------------------
======  ==============================================  =================================  ===========================
mode    image on the node                               compiled code                      processes
======  ==============================================  =================================  ===========================
cold    not pulled: a salted copy that nobody has seen  none (runc: nothing to compile)    the shim's zygote runs
cached  pulled and unpacked                             in the shim's compile cache        the shim's zygote runs
======  ==============================================  =================================  ===========================

There is no mode warm: each pod gets a shim process of its own, always. So ``cached`` here is the ordinary Pod of a
running node, as ``warm`` is on the path node. The engine ``runc`` is the control arm: the workload's own C source,
compiled to a static native program, in an ordinary container, through the same kubelet and the same containerd.

The clock is the path node's: it starts when the client begins to write the Pod, and stops at the first byte of output
(as containerd's log dates it) and when a watch sees the Pod Succeeded. Between them: the kubelet's own log (``seen``,
``noticed``) and containerd's events (``sandboxed``, ``pulled``, ``contained``, ``created``, ``started``, ``exited``).
Those are dated by the wall clock of this host, which is turned into CLOCK_MONOTONIC when they are read; ``load_ns``,
``instantiate_ns`` and ``run_ns`` are the shim's.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wasmlab.bench.api import Api, PodWatch
from wasmlab.bench.phases import Span, as_spans, durations, moments
from wasmlab.bench.plan import Arm
from wasmlab.bench.pods import make_namespace
from wasmlab.errors import BenchmarkError, ClusterError, NotReady
from wasmlab.modules import workloads
from wasmlab.modules.salt import salted

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster
    from wasmlab.containerd import ContainerdNode
    from wasmlab.oci.image import Image

RUNC = "runc"
_DEADLINE_S = 120.0
_LATE_S = 3.0


def monotonic_ns(wall_ns: int) -> int:
    """Return the CLOCK_MONOTONIC time of a moment that this host's wall clock dated."""
    return wall_ns - (time.time_ns() - time.monotonic_ns())


def parse_rfc3339(text: str) -> int:
    """Return a date with nanoseconds (``2026-11-24T09:17:39.369318845Z``) as nanoseconds since 1970.

    ctr writes ``2026-11-24 09:17:39.07866013 +0000 UTC``; that is understood too.

    Raises
    ------
    ValueError
        If it is neither.
    """
    match = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)", text)
    if not match:
        raise ValueError(f"no date: {text[:60]!r}")
    day, clock, fraction, zone = match.groups()
    whole = datetime.datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone == 'Z' else zone}")
    return int(whole.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))


class Event(NamedTuple):
    """One event of containerd: when (CLOCK_MONOTONIC), its topic, its content."""

    at_ns: int
    topic: str
    content: dict[str, Any]

    @property
    def id(self) -> str:
        """The container's id; empty for events about images, and about the end of an exec."""
        own = str(self.content.get("container_id") or self.content.get("id", ""))
        return own if self.content.get("id", own) == own else ""


def parse_event(line: str) -> Event | None:
    """Read a line of ``ctr events``; None if it is none."""
    match = re.match(r"(\S+ \S+ \S+ \S+) (\S+) (/\S+) (\{.*)", line)
    if not match:
        return None
    try:
        return Event(monotonic_ns(parse_rfc3339(match[1])), match[3], json.loads(match[4]))
    except ValueError:
        return None


class Events:
    """Follows containerd's events with ``ctr events``; a context manager."""

    def __init__(self, node: ContainerdNode) -> None:
        self._argv = [
            str(node.programs.ctr), "--address", str(node.layout.socket), "--namespace", "k8s.io", "events",
        ]  # fmt: skip
        self._events: list[Event] = []
        self._news = threading.Condition()

    def __enter__(self) -> Events:
        self._child = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._follow, name="containerd-events", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._thread.join(5)
        if self._child.stdout:
            self._child.stdout.close()

    def _follow(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            event = parse_event(line)
            if event is not None:
                with self._news:
                    self._events.append(event)
                    self._news.notify_all()

    def forget(self) -> None:
        """Drop what was heard so far."""
        with self._news:
            self._events.clear()

    def wait(self, found: Callable[[list[Event]], bool], timeout_s: float = _LATE_S) -> list[Event]:
        """Return all events since `forget`, as soon as `found` holds for them or at the deadline."""
        with self._news:
            self._news.wait_for(lambda: found(self._events), timeout_s)
            return list(self._events)


class Lines:
    """Reads what is appended to a file, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new(self) -> list[str]:
        """Return the whole lines that are new."""
        try:
            with self._path.open("rb") as stream:
                if stream.seek(0, 2) < self._offset:  # a new file was begun
                    self._offset = 0
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()


def kubelet_moments(lines: list[str], pod: str, container: str) -> dict[str, int]:
    """Return when the kubelet saw a pod and noticed its container's end, from its log.

    Parameters
    ----------
    lines : list of str
        Lines in klog's format.
    pod : str
        ``namespace/name``.
    container : str
        The container's id.

    References
    ----------
    kubernetes pkg/kubelet/kubelet.go, syncLoopIteration.
    """
    found: dict[str, int] = {}
    for line in lines:
        match = re.match(r"I(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})\s", line)
        if not match or "SyncLoop" not in line or f'"{pod}"' not in line:
            continue
        month, day, hour, minute, second, micro = map(int, match.groups())
        # klog writes local time without a year.
        year = datetime.datetime.now().year
        at = datetime.datetime(year, month, day, hour, minute, second).timestamp()
        when = monotonic_ns(int(at) * 10**9 + micro * 1000)
        if "SyncLoop ADD" in line:
            found.setdefault("seen", when)
        elif '"ContainerDied"' in line and container in line:
            found.setdefault("noticed", when)
    return found


def container_moments(events: list[Event], container: str) -> dict[str, int]:
    """Return the moments of a pod with one container, from containerd's events since the pod was written."""
    found: dict[str, int] = {}
    for event in events:
        own = event.id == container
        if event.topic == "/tasks/start":
            found.setdefault("started" if own else "sandboxed", event.at_ns)
        elif event.topic == "/images/create" and "contained" not in found:
            found["pulled"] = event.at_ns
        elif own and event.topic == "/containers/create":
            found.setdefault("contained", event.at_ns)
        elif own and event.topic == "/tasks/create":
            found.setdefault("created", event.at_ns)
        elif own and event.topic == "/tasks/exit":
            found.setdefault("exited", monotonic_ns(parse_rfc3339(event.content["exited_at"])))
    return found


class ContainerdPodExecutor:
    """Runs workloads as pods of a container node; a context manager that removes its namespace at the end.

    Parameters
    ----------
    cluster : Cluster
        The cluster that the node belongs to.
    node : ContainerdNode
        It must run, on this machine.
    """

    def __init__(self, cluster: Cluster, node: ContainerdNode) -> None:
        self._cluster = cluster
        self._node = node
        self._api = Api(cluster.kubeconfig)
        self.namespace = f"bench-{secrets.token_hex(3)}"
        self._images: dict[tuple[str, str], str] = {}
        self._prepared: set[tuple[str, str]] = set()
        self._count = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ContainerdPodExecutor:
        try:
            make_namespace(self._api, self.namespace)
            self._stack.callback(self._remove_namespace)
            self.watch = self._stack.enter_context(PodWatch(self._api, self.namespace))
            self._events = self._stack.enter_context(Events(self._node))
            self._kubelet = Lines(self._node.log)
            self._shim = Lines(self._node.layout.shim / "spans.jsonl")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._api.close()

    @property
    def api(self) -> Api:
        """The connection that is measured."""
        return self._api

    def ready_pod(self, engine: str, work: workloads.Workload) -> tuple[str, dict[str, Any]]:
        """Return a fresh name and the manifest of a Pod that the node has nothing to prepare for."""
        return self._pod(engine, work, self._prepare(engine, work))

    def _remove_namespace(self) -> None:
        with contextlib.suppress(ClusterError):
            self._api.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def run(self, arm: Arm) -> dict[str, Any]:
        """Carry out one run; see `wasmlab.bench.runner.Executor`."""
        work = workloads.get(arm.workload)
        if work.stdin:
            raise BenchmarkError(f"{work.name} reads standard input, which a Pod does not have")
        if arm.mode not in ("cold", "cached"):
            raise BenchmarkError(
                f"there is no {arm.mode} start through containerd", remedy="choose cold or cached"
            )
        row: dict[str, Any] = {"engine_version": self._version(arm.engine), "module_digest": work.digest}
        image = self._prepare(arm.engine, work)
        if arm.mode == "cold":
            image = self._push(*self._build(arm.engine, work, salt=True))
        return row | self._measure(arm.engine, work, image)

    def prepare(self, arms: Iterable[Arm]) -> None:
        """Make the node pull and compile all workloads of some arms at once, so that no run has to wait for it.

        What fails here fails again in its runs, where it is told.
        """
        names = []
        for engine, name in dict.fromkeys((arm.engine, arm.workload) for arm in arms):
            work = workloads.get(name)
            key = (engine, work.file)
            if work.stdin or key in self._images:
                continue
            with contextlib.suppress(BenchmarkError):
                self._images[key] = self._push(*self._build(engine, work))
                pod, manifest = self._pod(engine, work, self._images[key])
                self._api.must("POST", f"/api/v1/namespaces/{self.namespace}/pods", manifest)
                names.append((pod, key))
        for pod, key in names:
            with contextlib.suppress(NotReady):
                self.watch.wait_done(pod, _DEADLINE_S)
                self._prepared.add(key)

    # ---------------------------------------------------------------- images

    def _prepare(self, engine: str, work: workloads.Workload) -> str:
        """Make the node pull and compile a workload, by running it once; returns the image."""
        key = (engine, work.file)
        if key not in self._images:
            self._images[key] = self._push(*self._build(engine, work))
        if key not in self._prepared:
            self._measure(engine, work, self._images[key])
            self._prepared.add(key)
        return self._images[key]

    def _build(self, engine: str, work: workloads.Workload, *, salt: bool = False) -> tuple[Image, str]:
        from wasmlab.containerd import native
        from wasmlab.modules.files import data_dir
        from wasmlab.oci import image as images

        token = secrets.token_hex(6) if salt else "v1"
        stem = Path(work.file).stem
        if engine != RUNC:
            module = salted(work.module()) if salt else work.module()
            # By its whole name: hello.wasm and components/hello.wasm are two modules.
            repository = work.file.removesuffix(".wasm").replace("/", "-")
            return images.module_image(module.data, path=f"/{stem}"), f"{repository}-wasm:{token}"
        source = data_dir("wasm") / Path(work.file).with_suffix(".c")
        if not source.exists():
            raise BenchmarkError(
                f"{work.name} has no source to compile natively", remedy="measure it without runc"
            )
        files = {f"/{stem}": native.program(source).read_bytes()}
        if salt:
            files["/salt"] = token.encode()
        made = images.scratch_image(files, cmd=[f"/{stem}"], architecture=native.architecture())
        return made, f"{stem}-native:{token}"

    def _push(self, image: Image, name: str) -> str:
        from wasmlab.oci import Client

        reference = f"{self._cluster.registry}/bench-containerd/{name.lower()}"
        Client().push_image(image, reference)
        return reference

    def _version(self, engine: str) -> str:
        from wasmlab import engines

        if engine == RUNC:
            return f"containerd {self._node.programs.version}"
        return engines.get(engine).version

    # ---------------------------------------------------------------- one pod

    def _measure(self, engine: str, work: workloads.Workload, image: str) -> dict[str, Any]:
        name, manifest = self._pod(engine, work, image)
        body = json.dumps(manifest).encode()
        self._kubelet.new()
        self._events.forget()
        began = time.monotonic_ns()
        status, data = self._api.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)
        answered = time.monotonic_ns()
        if status != 201:
            message = json.loads(data).get("message")
            raise ClusterError(f"the API server refused the Pod: {status} {message}", status=status)
        seen = self.watch.wait_done(name, _DEADLINE_S)
        ended = self.watch.last[name]
        first = (ended["status"].get("containerStatuses") or [{}])[0]
        container = first.get("containerID", "").rpartition("//")[2]
        at = container_moments(self._settle(container), container)
        at |= kubelet_moments(self._kubelet.new(), f"{self.namespace}/{name}", container)
        at |= {"api_write": answered, "scheduled": seen["scheduled"], "status_observed": seen["done"]}
        first_byte = self._first_byte(ended, name)
        if first_byte is not None:
            at["first_byte"] = first_byte
        row: dict[str, Any] = self._inside(ended["metadata"]["uid"]) if engine != RUNC else {}
        row |= moments([Span(moment, began, when) for moment, when in at.items() if when >= began], began)
        row["total_ns"] = row["status_observed_ns"]
        return row | self._verdict(ended, name, work)

    def _pod(self, engine: str, work: workloads.Workload, image: str) -> tuple[str, dict[str, Any]]:
        from wasmlab.containerd.runtimeclass import container_pod

        self._count += 1
        name = f"run-{self._count:05d}"
        pod = container_pod(
            name, image, namespace=self.namespace, node=self._node.name,
            runtime_class=None if engine == RUNC else engine,
            # Arguments of a Pod replace an image's CMD as a whole, its program included.
            command=[f"/{Path(work.file).stem}", *work.args] if work.args else (),
            image_pull_policy="IfNotPresent",
        )  # fmt: skip
        return name, work.with_scratch(pod)

    def _settle(self, container: str) -> list[Event]:
        """Return the pod's events when its sandbox is gone, so that clearing it away does not disturb the next run."""

        def cleared(events: list[Event]) -> bool:
            started = {one.id for one in events if one.topic == "/tasks/start"}
            deleted = {one.id for one in events if one.topic == "/tasks/delete"}
            return container in deleted and started <= deleted

        return self._events.wait(cleared)

    def _first_byte(self, pod: dict[str, Any], name: str) -> int | None:
        uid = pod["metadata"]["uid"]
        log = self._node.layout.logs / "pods" / f"{self.namespace}_{name}_{uid}" / name / "0.log"
        with contextlib.suppress(OSError, ValueError), log.open() as stream:
            return monotonic_ns(parse_rfc3339(stream.readline()))
        return None

    def _inside(self, uid: str) -> dict[str, Any]:
        """Return what the shim's spans say about the engine's phases; the end of its process has a name of its own."""
        deadline = time.monotonic() + _LATE_S
        while time.monotonic() < deadline:
            for line in self._shim.new():
                entry = json.loads(line)
                if entry["uid"] == uid and entry["container"]:
                    told = (("teardown" if name == "reaped" else name, *at) for name, *at in entry["spans"])
                    return dict(durations(as_spans(told)))
            time.sleep(0.01)
        return {}

    def _verdict(self, pod: dict[str, Any], name: str, work: workloads.Workload) -> dict[str, Any]:
        state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("terminated", {})
        code = state.get("exitCode")
        error: str | None
        deadline = time.monotonic() + _LATE_S
        while True:
            status, log = self._api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}/log")
            if status != 200:
                error = f"no log: {status} {log[:200].decode(errors='replace')}"
            else:
                error = work.check_log(log, code)
            # containerd reports the exit when it has read the output, and a logger of its own may still be writing it.
            if error is None or time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        if error and pod["status"].get("phase") != "Succeeded":
            error = f"{error}; {state.get('reason')}: {state.get('message')}"
        return {"exit_code": code, "ok": error is None, "error": error}
