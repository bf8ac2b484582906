"""The evictor with signals that a test invents: one pod at a time, and no more than it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from tests.node.pods.test_eviction import memory, pod
from wasmlab.node.host.pressure import Shortage
from wasmlab.node.pods.eviction import Use
from wasmlab.node.pods.evictor import Evictor

LOW = Shortage("memory.available", 50 << 20, "100Mi")
FULL = Shortage("nodefs.available", 1, "10Gi")


class Node:
    """Pods, and what the node is short of as long as `short` says so."""

    def __init__(self, *pods: dict[str, Any], uses: dict[str, Use], ends: bool = True) -> None:
        self.workers = {
            one["metadata"]["uid"]: SimpleNamespace(pod=one, over=False, stopping=False) for one in pods
        }
        self.uses, self.ends = uses, ends
        self.evicted: list[str] = []
        self.messages: list[str] = []
        self.under_way = self.most_under_way = 0
        self.told: list[tuple[str, str]] = []
        self.looked_at_disk: list[bool] = []
        self.reclaimed = 0
        self.busy = 0

    def evict(self, uid: str, message: str) -> asyncio.Task[None] | None:
        worker = self.workers[uid]
        if worker.over or worker.stopping:
            return None
        self.evicted.append(uid)
        self.messages.append(message)
        return asyncio.create_task(self._end(worker))

    async def _end(self, worker: Any) -> None:
        worker.stopping = True
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        worker.over = True

    def node(self, kind: str, reason: str, message: str) -> None:
        assert kind == "Warning"
        self.told.append((reason, message))

    async def used(self, disk: bool) -> dict[str, Use]:
        self.looked_at_disk.append(disk)
        return self.uses

    def reclaim(self) -> None:
        self.reclaimed += 1

    def evictor(self, short: Callable[[], Sequence[Shortage]]) -> Evictor:
        manager: Any = self
        recorder: Any = self
        return Evictor(manager, recorder, measure=short, uses=self.used, reclaim=self.reclaim, settle_s=0.0)


async def while_it_runs(evictor: Evictor, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(evictor.run())
    try:
        evictor.notice()
        async with asyncio.timeout(20):
            while not until():  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_after_the_other_until_there_is_enough() -> None:
    pods = [pod("a", memory="1Mi"), pod("b"), pod("c"), pod("d", memory="1Gi")]
    node = Node(*pods, uses=memory(a=5, b=50, c=20, d=500))
    measured = 0

    def short() -> list[Shortage]:
        nonlocal measured
        measured += 1
        return [LOW] if len(node.evicted) < 2 else []

    await while_it_runs(node.evictor(short), lambda: measured >= 3)
    assert node.evicted == ["b", "c"]
    assert node.most_under_way == 1
    assert node.told == [("EvictionThresholdMet", "Attempting to reclaim memory")] * 2
    assert node.messages[0].startswith(
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
    )
    assert (node.reclaimed, node.looked_at_disk) == (0, [False, False])


async def test_a_condition_without_its_cause_puts_out_nobody() -> None:
    node = Node(pod("a"), uses=memory(a=5))
    evictor = node.evictor(list)
    evictor.notice()
    assert await evictor.relieve() is False
    assert (node.evicted, node.told) == ([], [])


async def test_what_nobody_uses_goes_before_any_pod() -> None:
    node = Node(pod("a"), uses={"a": Use(disk_bytes=5)})
    enough = node.evictor(lambda: [] if node.reclaimed else [FULL])
    assert await enough.relieve() is False
    assert (node.evicted, node.reclaimed) == ([], 1)
    not_enough = node.evictor(lambda: [FULL])
    assert await not_enough.relieve() is True
    assert (node.evicted, node.looked_at_disk) == (["a"], [True])
    assert "ephemeral-storage" in node.messages[0]


async def test_pods_that_end_anyway_and_critical_ones_are_passed_over() -> None:
    node = Node(pod("over"), pod("ending"), pod("critical", priority=2_000_000_000), uses={})
    node.workers["over"].over = True
    node.workers["ending"].stopping = True
    assert await node.evictor(lambda: [LOW]).relieve() is False
    assert node.evicted == []


async def test_what_is_being_started_is_measured_first() -> None:
    node = Node(pod("a"), uses=memory(a=5))
    node.busy = 1
    measured: list[int] = []

    def short() -> list[Shortage]:
        measured.append(node.busy)
        return []

    asyncio.get_running_loop().call_later(0.05, setattr, node, "busy", 0)
    await while_it_runs(node.evictor(short), lambda: bool(measured))
    assert measured == [0]


async def test_it_waits_for_the_next_notice_when_nobody_can_go() -> None:
    node = Node(uses={})
    measured = 0

    def short() -> list[Shortage]:
        nonlocal measured
        measured += 1
        return [LOW]

    evictor = node.evictor(short)
    task = asyncio.create_task(evictor.run())
    try:
        for wanted in (1, 2):
            evictor.notice()
            async with asyncio.timeout(20):
                while measured < wanted:  # noqa: ASYNC110 (what is waited for has no event)
                    await asyncio.sleep(0.005)
        assert measured == 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
