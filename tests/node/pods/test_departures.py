"""Pods that the node does not take, puts out, or ends with itself, against a sandbox that a test plays."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from tests.node.fakeapi import eventually
from tests.node.pods.workerkit import FakeRun, leaving, pod
from tests.node.pods.workerkit import bench as bench
from wasmlab.node.pods.admission import SYSTEM_CRITICAL, Account
from wasmlab.node.runtime.runs import RunId


def condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((c for c in status["conditions"] if c["type"] == kind), None)


def asks(cpu: str) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "r/x:1", "resources": {"requests": {"cpu": cpu}}}]}


def rejected(b: Any) -> list[dict[str, Any]]:
    """The statuses of pods that did not fit; others write theirs before and after."""
    return [one for one in b.statuses() if one.get("reason") == "OutOfcpu"]


async def test_what_does_not_fit_never_starts_and_makes_no_claim(bench: Any) -> None:
    async with bench() as b:
        account = b.manager.account = Account({"cpu": "1", "memory": "1Gi", "pods": "9"})
        b.manager.on_list([pod("a", spec=asks("600m"))])
        await eventually(lambda: "a.c.0" in b.runtime.runs)
        b.manager.on_event("ADDED", pod("b", spec=asks("600m")))
        await eventually(lambda: rejected(b) != [])
        assert [(one["phase"], condition(one, "DisruptionTarget")) for one in rejected(b)] == [
            ("Failed", None)
        ]
        assert b.runtime.started == ["a.c.0"]
        b.runtime.runs["a.c.0"].end(0)
        await eventually(lambda: account.used.cpu == 0)
        b.manager.on_event("ADDED", pod("c", spec=asks("600m")))
        await eventually(lambda: "c.c.0" in b.runtime.runs)
        # A rejected pod can be deleted like any other.
        b.manager.on_event("MODIFIED", leaving(pod("b", spec=asks("600m"))))
        await eventually(lambda: b.deleted() != [])


async def test_what_an_earlier_agent_started_is_not_asked_again(bench: Any) -> None:
    run_id = RunId("old", "c", 0)
    async with bench({run_id: "wasmtime"}) as b:
        account = b.manager.account = Account({"cpu": "1", "memory": "1Gi", "pods": "9"})
        b.runtime.runs[str(run_id)] = FakeRun()
        running = {"phase": "Running"}
        # The new one comes first in the list; what runs already counts all the same.
        b.manager.on_list([pod("new", spec=asks("600m")), pod("old", spec=asks("800m"), status=running)])
        await eventually(lambda: rejected(b) != [])
        assert not b.runtime.runs[str(run_id)].done
        assert account.used.cpu == 800


async def test_an_eviction_is_a_disruption(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        b.manager.evict("u", "it took too much. ")
        b.manager.evict("u", "it took too much. ")
        b.manager.evict("nobody", "it took too much. ")
        await eventually(lambda: b.phase() == "Failed")
        status = b.statuses()[-1]
        assert (status["reason"], status["message"]) == ("Evicted", "it took too much. ")
        told = condition(status, "DisruptionTarget")
        assert told is not None
        assert (told["status"], told["reason"]) == ("True", "TerminationByKubelet")


async def test_a_node_that_ends_takes_its_critical_pods_last(bench: Any) -> None:
    async with bench() as b:
        critical = pod("critical", spec={"priority": SYSTEM_CRITICAL})
        b.manager.on_list([critical, pod("usual"), pod("over", status={"phase": "Succeeded"})])
        await eventually(lambda: len(b.runtime.runs) == 2)
        usual, last = b.runtime.runs["usual.c.0"], b.runtime.runs["critical.c.0"]
        usual.stubborn = True
        ending = asyncio.create_task(b.manager.shut_down(40.0, 20.0))
        await eventually(lambda: signal.SIGTERM in usual.signals)
        assert last.signals == []
        usual.end(0)
        await ending
        assert last.signals == [signal.SIGTERM]
        reasons = {s["reason"] for s in b.statuses() if s["phase"] == "Failed"}
        assert reasons == {"Terminated"}
