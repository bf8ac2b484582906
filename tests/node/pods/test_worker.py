"""A pod's life against a sandbox and an API server that a test plays: the races that a real cluster rarely shows."""

from __future__ import annotations

import asyncio
import gc
import signal
import weakref
from typing import Any

import pytest

from tests.node.fakeapi import eventually
from tests.node.pods.workerkit import FakeRun, leaving, pod
from tests.node.pods.workerkit import bench as bench
from wasmlab.errors import PrerequisiteError, SandboxError
from wasmlab.node.inputs.images import PullFailed
from wasmlab.node.runtime.runs import NotRecorded, RunId
from wasmlab.node.status import states


async def test_a_life(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        b.run.end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.runtime.started == ["u.c.0"]
        assert [s["phase"] for s in b.statuses()] == ["Running", "Succeeded"]


async def test_deleted_while_the_start_is_under_way(bench: Any) -> None:
    """Nobody may lose the run between asking for it and knowing it."""
    async with bench() as b:
        b.runtime.gate.clear()
        b.manager.on_list([pod()])
        await eventually(lambda: b.runtime.asked == 1)
        b.manager.on_event("MODIFIED", leaving(pod()))
        await asyncio.sleep(0.05)
        assert b.deleted() == []
        b.runtime.gate.set()
        await eventually(lambda: b.deleted() != [])
        assert b.run.signals == [signal.SIGTERM]
        assert b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


async def test_deleted_while_it_pulls(bench: Any) -> None:
    async with bench() as b:
        b.images.gate.clear()
        b.manager.on_list([pod()])
        await asyncio.sleep(0.05)
        b.manager.on_event("MODIFIED", leaving(pod()))
        await eventually(lambda: b.deleted() != [])
        assert b.runtime.started == []
        assert b.phase() == "Failed"  # what never ran did not succeed
        assert b.deleted()[0] == {"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}


async def test_deleted_in_a_back_off(bench: Any) -> None:
    async with bench() as b:
        b.images.failures = [PullFailed(states.ERR_IMAGE_PULL, "no", hopeless=True)] * 9
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Pending")
        b.manager.on_event("MODIFIED", leaving(pod()))
        await eventually(lambda: b.deleted() != [])


async def test_first_seen_when_it_is_already_leaving(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([leaving(pod())])
        await eventually(lambda: b.deleted() != [])
        assert b.runtime.started == []


async def test_a_stubborn_module_is_killed_after_its_grace(bench: Any) -> None:
    async with bench() as b:
        b.runtime.stubborn = True
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", leaving(pod(), grace_s=0))
        await eventually(lambda: b.deleted() != [])
        assert b.run.signals == [signal.SIGTERM, signal.SIGKILL]
        assert b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


async def test_a_deleted_pod_is_not_restarted(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(policy="Always")])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", leaving(pod(policy="Always")))
        await eventually(lambda: b.deleted() != [])
        assert b.runtime.started == ["u.c.0"]
        assert b.phase() == "Failed"


async def test_restarts_keep_the_last_two_attempts(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(policy="Always")])
        for attempt in range(4):
            await eventually(lambda n=attempt: f"u.c.{n}" in b.runtime.runs)
            b.runtime.runs[f"u.c.{attempt}"].end(1)
        await eventually(lambda: "u.c.4" in b.runtime.runs)
        assert b.runtime.forgotten == ["u.c.0", "u.c.1", "u.c.2"]


async def test_a_recorded_run_is_taken_up_and_not_started(bench: Any) -> None:
    run_id = RunId("u", "c", 0)
    async with bench({run_id: "wasmer"}) as b:
        b.runtime.runs["u.c.0"] = FakeRun()
        b.manager.on_list([pod(status={"phase": "Running"})])
        await asyncio.sleep(0.05)
        assert b.runtime.started == []
        b.runtime.runs["u.c.0"].end(5)
        await eventually(lambda: b.phase() == "Failed")
        assert b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5


async def test_a_run_that_was_reported_and_is_not_on_record_is_lost_and_not_repeated(bench: Any) -> None:
    running = [{"name": "c", "restartCount": 0, "state": {"running": {"startedAt": "2026-11-24T09:00:00Z"}}}]
    async with bench() as b:
        b.manager.on_list([pod(status={"phase": "Running", "containerStatuses": running})])
        await eventually(lambda: b.phase() == "Failed")
        assert b.runtime.started == []
        end = b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]
        assert (end["exitCode"], end["reason"]) == (137, "ContainerStatusUnknown")


async def test_a_finished_pod_is_let_be(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(status={"phase": "Succeeded"})])
        await asyncio.sleep(0.1)
        assert b.runtime.started == []
        assert b.fake.seen == []
        b.manager.on_event("MODIFIED", leaving(pod(status={"phase": "Succeeded"})))
        await eventually(lambda: b.deleted() != [])


async def test_runs_of_pods_that_are_gone_are_ended(bench: Any) -> None:
    run_id = RunId("other", "c", 0)
    async with bench({run_id: "wasmtime"}) as b:
        b.runtime.runs["other.c.0"] = FakeRun()
        b.manager.on_list([])
        await eventually(lambda: b.runtime.forgotten == ["other.c.0"])
        assert b.runtime.runs["other.c.0"].signals == [signal.SIGKILL]


async def test_a_pod_missing_from_a_new_list_is_ended(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod()])
        await eventually(lambda: "u.c.0" in b.runtime.runs)
        b.manager.on_list([])
        await eventually(lambda: b.runtime.forgotten == ["u.c.0"])
        assert b.run.signals == [signal.SIGTERM]


async def test_the_agent_leaves_and_the_module_goes_on(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        await b.manager.aclose(0.5)
        assert b.run.signals == []
        assert not b.run.done
        assert b.phase() == "Running"


@pytest.mark.parametrize("error", [SandboxError("no zygote"), PrerequisiteError("no engine")])
async def test_a_start_that_fails_is_an_end_with_a_reason(bench: Any, error: Exception) -> None:
    async with bench() as b:
        b.runtime.error = error
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Failed")
        end = b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]
        assert (end["reason"], end["exitCode"]) == ("StartError", 128)
        assert str(error) in end["message"]


@pytest.mark.parametrize(
    "error", [NotRecorded("No space left on device"), OSError("No space left on device")]
)
async def test_a_start_that_the_machine_forbids_is_tried_again(bench: Any, error: Exception) -> None:
    async with bench() as b:
        b.runtime.error = error
        b.manager.on_list([pod()])
        await eventually(
            lambda: (
                bool(b.statuses())
                and b.statuses()[-1]["containerStatuses"][0]["state"].get("waiting", {}).get("reason")
                == states.CREATE_ERROR
            )
        )
        assert b.phase() == "Pending"
        b.runtime.error = None
        await eventually(lambda: b.phase() == "Running")
        b.run.end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.runtime.started == ["u.c.0"]


async def test_a_bug_fails_the_pod_and_not_the_node(bench: Any) -> None:
    async with bench() as b:
        b.images.failures = [ZeroDivisionError("a bug")]
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Failed")
        assert b.statuses()[-1]["reason"] == "NodeAgentError"
        b.manager.on_event("ADDED", pod("u2"))
        await eventually(lambda: "u2.c.0" in b.runtime.runs)


async def test_a_deadline_ends_what_runs(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(spec={"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0})])
        await eventually(lambda: b.phase() == "Failed")
        assert b.statuses()[-1]["reason"] == "DeadlineExceeded"
        assert b.run.signals


async def test_a_pod_of_the_same_name_is_another_pod(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod("old")])
        await eventually(lambda: "old.c.0" in b.runtime.runs)
        b.manager.on_event("MODIFIED", leaving(pod("old"), grace_s=30))
        b.manager.on_event("ADDED", pod("new"))
        await eventually(lambda: "new.c.0" in b.runtime.runs)
        found = b.manager.by_name("ns", "p")
        assert found is not None
        assert found.uid == "new"


async def test_the_memory_of_pods_that_are_gone_is_collected(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's parts refer to each other, and the agent's collector hardly ever comes by itself."""
    monkeypatch.setattr("wasmlab.node.pods.manager._COLLECT_AFTER", 3)
    monkeypatch.setattr("wasmlab.node.pods.manager._COLLECT_PAUSE_S", 0.01)
    gc.disable()
    try:
        async with bench() as b:
            b.manager.on_list([pod(f"u{i}") for i in range(3)])
            await eventually(lambda: len(b.runtime.runs) == 3)
            left = [weakref.ref(worker) for worker in b.manager.workers.values()]
            b.manager.on_list([])
            await eventually(lambda: not any(one() for one in left))
    finally:
        gc.enable()
