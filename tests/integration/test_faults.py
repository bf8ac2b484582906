"""A node under random faults: nothing is run twice, nothing is forgotten, no line is dropped.

One seed decides everything that this test chooses: the pods, the order of the faults, which overlap. Scheduling is the
machine's, so a seed is no recording; but what is asserted holds for every order of things, and nothing asserted is a
time. Set ``WASMLAB_FAULT_SEED`` (a number, or ``random``) and ``WASMLAB_FAULT_PODS`` (500 is the full size) to look
further than ``make test`` does.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.node.faultkit import Killer, SmallDisk, Vanishing, WallClock
from tests.node.lab import FIXTURES, NodeLab, push, until
from tests.node.ledger import Asked, Ledger, Ran, draw
from tests.plugins.cluster import processes_with
from wasmlab.engines import wasmtime_runner
from wasmlab.errors import ClusterError
from wasmlab.oci import Client

# Whoever waits in here has deadlines of his own; this one is a net below them.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

PODS = int(os.environ.get("WASMLAB_FAULT_PODS", "120"))
SEED = os.environ.get("WASMLAB_FAULT_SEED", "20261124")
PODS_PATH = "/api/v1/namespaces/default/pods"
_PER_ROUND = 9
_SETTLE_S = 600.0


class Storm:
    """The node, its pods, and what befalls it."""

    def __init__(self, cluster: Any, directory: Path, disk: SmallDisk, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.cluster = cluster
        self.ledger = Ledger()
        self.clock = WallClock(directory / "clock")
        self.disk = disk
        self.marks = directory / "ledger"
        self.marks.mkdir()
        self.registry = Vanishing(lambda: cluster.registry)
        self.image = push(cluster, "ledger")
        wasmtime_runner.build()
        with self._clocked():
            self.node = cluster.add_node("faulty", args=_ARGS)
        self.lab = NodeLab(cluster, self.node)
        self.killer = Killer(self.node, self.ledger)
        self.story: list[str] = []
        self._salts = 0
        self._watching = threading.Event()
        self._watching.set()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @contextlib.contextmanager
    def _clocked(self) -> Iterator[None]:
        """What is started in here has the clock that can be stepped."""
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self.clock.directory), before)))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def close(self) -> None:
        self._watching.clear()
        with contextlib.suppress(FileNotFoundError):
            self.disk.free()
        self.node.stop()
        self._watcher.join(10)
        self.registry.close()

    # ---- the world looks on ----

    def _watch(self) -> None:
        while self._watching.is_set():
            try:
                listed = self.cluster.rest.get(PODS_PATH)
                for pod in listed["items"]:
                    self.ledger.saw(pod)
                version = listed["metadata"]["resourceVersion"]
                for event in self.cluster.rest.watch(PODS_PATH, timeout_s=5, resourceVersion=version):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self.ledger.saw(event["object"])
            except ClusterError:
                time.sleep(0.1)

    # ---- pods ----

    def create(self, count: int, image: str | None = None) -> None:
        """Ask for so many pods; the API server may be away for a moment, but each is asked for."""
        for _ in range(count):
            one = draw(f"f{len(self.ledger.asked):03d}", self.chance)
            self.ledger.add(one)
            pod = self.lab.pod(
                one.name,
                image or self.image,
                args=one.args,
                restart_policy=one.policy,
                image_pull_policy="IfNotPresent",
                # Both kinds of workers, whatever the seed.
                engine=("wasmtime", wasmtime_runner.NAME)[len(self.ledger.asked) % 2],
            )
            pod["spec"]["volumes"] = [
                {"name": "l", "hostPath": {"path": str(self.marks), "type": "Directory"}}
            ]
            pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "l", "mountPath": "/ledger"}]
            pod["spec"]["terminationGracePeriodSeconds"] = 1
            self._insist(lambda pod=pod: self.cluster.apply(pod))

    def _insist(self, request: Callable[[], Any]) -> None:
        """An API server that has just come back may refuse or drop a request; both of ours may be made twice."""
        deadline = time.monotonic() + 120
        while True:
            try:
                request()
                return
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def delete_some(self) -> None:
        """Delete one or two that exist, in whatever state they are."""
        there = [one for one in self.ledger.asked.values() if not one.deleted]
        for one in self.chance.sample(there, min(len(there), self.chance.randint(1, 2))):
            one.deleted = True
            grace_s = self.chance.choice((None, None, 0))
            pod = self.lab.pod(one.name, self.image)
            self._insist(lambda pod=pod, grace_s=grace_s: self.cluster.rest.delete(pod, grace_s))

    # ---- faults: each begins, and gives what ends it ----

    def agent(self) -> Callable[[], None]:
        """The agent is killed, or asked to go, and comes back."""
        if self.chance.random() < 0.7:
            self.node.kill()
        else:
            self.node.stop_agent()
        return self._start_agent

    def _start_agent(self) -> None:
        with self._clocked():
            self.node.start()

    def zygote(self) -> Callable[[], None]:
        self.killer.zygote()
        return lambda: None

    def worker(self) -> Callable[[], None]:
        self.killer.worker(self.chance)
        return lambda: None

    def template(self) -> Callable[[], None]:
        """What forks workers for a zygote is killed: no run may be lost by that."""
        self.killer.template()
        return lambda: None

    def api(self) -> Callable[[], None]:
        """The control plane is killed; its directory is kept."""
        self.cluster.kill()
        return lambda: self.cluster.start() and None

    def vanish(self) -> Callable[[], None]:
        """The registry goes in the middle of a pull of something new."""
        from wasmlab.modules import Module
        from wasmlab.modules.salt import salted

        self._salts += 1
        path = self.marks.parent / f"salted-{self._salts}.wasm"
        path.write_bytes(salted(Module.from_file(FIXTURES / "ledger.wasm")).data)
        Client().push(path, f"{self.cluster.registry}/vanish:{self._salts}")
        self.registry.vanish(self.chance.randint(1, 30_000))
        self.create(self.chance.randint(1, 3), f"{self.registry.address}/vanish:{self._salts}")
        self.registry.cut.wait(10)
        return self.registry.come_back

    def full(self) -> Callable[[], None]:
        self.disk.fill()
        return self.disk.free

    def step(self) -> Callable[[], None]:
        """The wall clock jumps by hours, and back."""
        self.clock.step(self.chance.choice((7200.0, -7200.0, 90.0, -90.0)))
        return lambda: self.clock.step(0.0)

    def machine(self) -> Callable[[], None]:
        """The whole node goes at once, and starts again."""
        self.killer.machine()
        return self._start_agent

    # ---- the course of things ----

    def rounds(self, pods: int) -> None:
        """Pods and faults until all pods are asked for; every fault comes up before one comes again."""
        kinds = [
            self.agent,
            self.api,
            self.zygote,
            self.worker,
            self.template,
            self.vanish,
            self.full,
            self.step,
            self.machine,
        ]
        order: list[Callable[[], Callable[[], None]]] = []
        while len(self.ledger.asked) < pods:
            if not order:
                order = self.chance.sample(kinds, len(kinds))
            fault = order.pop()
            self.story.append(fault.__name__)
            self.create(self.chance.randint(3, _PER_ROUND))
            time.sleep(self.chance.uniform(0, 0.2))
            end = fault()
            if fault != self.api:
                self.create(self.chance.randint(3, _PER_ROUND))
                if self.chance.random() < 0.5:
                    self.delete_some()
                # A second one on top, of those that may come at any time.
                if self.chance.random() < 0.4:
                    second = self.chance.choice([self.worker, self.zygote])
                    self.story[-1] += f"+{second.__name__}"
                    second()
            time.sleep(self.chance.uniform(0.1, 1.0))
            end()

    def settle(self) -> dict[str, Any]:
        """Wait until every pod has come to its end; those that stay, run. Returns all pods by name."""
        self.node.wait_ready(120)

        def unsettled() -> list[str]:
            pods = {p["metadata"]["name"]: p for p in self.cluster.rest.get(PODS_PATH)["items"]}
            left = []
            for one in self.ledger.asked.values():
                pod = pods.get(one.name)
                phase = pod["status"].get("phase") if pod else None
                if one.deleted:
                    left += [f"{one.name} not gone"] if pod else []
                elif pod and phase not in ("Succeeded", "Failed", *(("Running",) if one.stays else ())):
                    left.append(f"{one.name} {phase} {pod['status'].get('containerStatuses')}")
            return left

        deadline = time.monotonic() + _SETTLE_S
        while left := unsettled():
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(left)} pods come to no end: {left[:20]}\n{self.told()}")
            time.sleep(0.1)
        return {p["metadata"]["name"]: p for p in self.cluster.rest.get(PODS_PATH)["items"]}

    def ran(self) -> dict[str, Ran]:
        """What is known of every pod's runs, but for the node's word."""

        def one(asked: Asked) -> tuple[str, Ran]:
            mark = self.marks / asked.name
            marks = mark.read_text().count("begin") if mark.exists() else 0
            return asked.name, Ran(marks, None if asked.deleted else self._log(asked))

        with ThreadPoolExecutor(4) as pool:
            return dict(pool.map(one, self.ledger.asked.values()))

    def _log(self, asked: Asked) -> list[str] | None:
        try:
            text = self.cluster.rest.call("GET", f"{PODS_PATH}/{asked.name}/log").decode()
        except ClusterError:
            return None
        whole = text.splitlines()
        # The last line of a module that runs may be on its way.
        return whole if not text or text.endswith("\n") else whole[:-1]

    def told(self) -> str:
        """What to print with a failure."""
        log = self.node.log.read_text()[-6000:]
        said = f"seed {self.seed}, {PODS} pods; faults: {' '.join(self.story)}; agent's log:\n{log}"
        for path in sorted((self.node.dir / "sandbox").glob("*.log")):
            said += f"\n{path.name}:\n{path.read_text()[-3000:]}"
        return said


_ARGS = (
    *("--backoff-base-s", "0.3", "--max-pods", "1000", "--node-check-s", "0.5"),
    # A node that says that its disk is full is sent no pods; this one has to live with what it is sent.
    *("--eviction-hard", "memory.available<1Mi", "--pressure-hold-s", "0.5"),
)


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    from wasmlab.cluster import Cluster

    seed = random.SystemRandom().randrange(1 << 32) if SEED == "random" else int(SEED)
    print(f"fault seed {seed}, {PODS} pods")
    directory = tmp_path_factory.mktemp("storm")
    with Cluster.embedded(directory / "lab", node=False) as cluster:
        disk = SmallDisk(cluster.state.node("faulty"), 64 << 20)
        try:
            one = Storm(cluster, directory, disk, seed)
            try:
                yield one
            finally:
                one.close()
        finally:
            cluster.stop()  # what is mounted is in use until then
            disk.close()
    assert processes_with(str(directory)) == [], "left behind"


def test_nothing_is_lost_in_a_storm(storm: Storm) -> None:
    began = time.monotonic()
    storm.rounds(PODS)
    pods = storm.settle()
    differences = storm.ledger.differences(pods, storm.ran())
    assert not differences, "\n".join([*differences, storm.told()])
    kept = sum(not one.deleted for one in storm.ledger.asked.values())
    print(
        f"{len(storm.ledger.asked)} pods ({kept} kept, {len(storm.ledger.lost)} runs lost) "
        f"through {len(storm.story)} faults in {time.monotonic() - began:.1f} s: {' '.join(storm.story)}"
    )


def test_afterwards_everything_can_be_deleted_and_nothing_stays(storm: Storm) -> None:
    """Running after the storm, on the same node: no process, directory or record outlives its pod."""
    storm.cluster.rest.call("DELETE", PODS_PATH)
    until("all pods are gone", lambda: not storm.cluster.rest.get(PODS_PATH)["items"], 240)
    directory = storm.node.dir
    for what, where in (("directory of a pod", "pods"), ("record of a run", "sandbox/runs")):
        _wait_empty(f"a {what} is left", directory / where, storm)
    # What the agent itself calls a bug of its own; asyncio and TLS may complain about connections that broke.
    logged = storm.node.log.read_text()
    assert "pod worker failed" not in logged, storm.told()
    assert "cannot follow pods" not in logged, storm.told()


def _wait_empty(what: str, directory: Path, storm: Storm) -> None:
    deadline = time.monotonic() + 120
    while left := sorted(entry.name for entry in directory.iterdir()):
        if time.monotonic() > deadline:
            log = [line for line in storm.node.log.read_text().splitlines() if left[0].split(".")[0] in line]
            raise AssertionError("\n".join([f"{what}: {left}", *log, storm.told()]))
        time.sleep(0.05)
