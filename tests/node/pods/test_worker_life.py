"""Sidecars, hooks, probes and what an earlier agent left, against a sandbox that a test plays."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from tests.node.fakeapi import eventually
from tests.node.pods.workerkit import FakeRun, leaving, pod
from tests.node.pods.workerkit import bench as bench
from wasmlab.errors import WorkerLost
from wasmlab.node.inputs.images import PullFailed
from wasmlab.node.runtime.runs import RunId
from wasmlab.node.status import states
from wasmlab.sandbox import RunSpec

Json = dict[str, Any]


def container(name: str, **more: Any) -> Json:
    return {"name": name, "image": "r/x:1", **more}


def sidecar(name: str, **more: Any) -> Json:
    return container(name, restartPolicy="Always", **more)


def has(b: Any, *names: str) -> Any:
    return lambda: all(name in b.runtime.runs for name in names)


async def beside(b: Any) -> list[tuple[str, ...]]:
    """Let the runtime run instances; their commands, in order. Each ends with the code it is named after."""
    asked: list[tuple[str, ...]] = []

    async def start_beside(engine: str, spec: RunSpec, fds: tuple[int, int, int]) -> FakeRun:
        asked.append(spec.argv[1:])
        run = FakeRun()
        if spec.argv[1].isdigit():
            run.end(int(spec.argv[1]))
        b.instances.append(run)
        return run

    b.instances = []
    b.runtime.recorded_spec = lambda run_id: RunSpec("/m.wasm", "sha256:1", ("x",))
    b.runtime.start_beside = start_beside
    return asked


async def test_sidecars_are_ended_after_the_others_and_in_reverse(bench: Any) -> None:
    async with bench() as b:
        spec = {"initContainers": [sidecar("one"), sidecar("two")], "terminationGracePeriodSeconds": 60}
        b.runtime.stubborn = True  # each ends when the test says so
        b.manager.on_list([pod(spec=spec)])
        await eventually(has(b, "u.one.0", "u.two.0", "u.c.0"))
        assert b.runtime.started == ["u.one.0", "u.two.0", "u.c.0"]
        one, two, main = (b.runtime.runs[name] for name in b.runtime.started)
        b.manager.on_event("MODIFIED", leaving(pod(spec=spec), grace_s=60))
        await eventually(lambda: main.signals == [signal.SIGTERM])
        assert (one.signals, two.signals) == ([], [])
        main.end(0)
        await eventually(lambda: two.signals == [signal.SIGTERM])
        assert one.signals == []
        two.end(143)
        await eventually(lambda: one.signals == [signal.SIGTERM])
        one.end(143)
        await eventually(lambda: b.deleted() != [])
        assert b.phase() == "Succeeded"


async def test_a_sidecar_is_restarted_while_it_is_needed_and_not_after(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(spec={"initContainers": [sidecar("s")]})])
        await eventually(has(b, "u.s.0", "u.c.0"))
        b.runtime.runs["u.s.0"].end(1)
        await eventually(has(b, "u.s.1"))
        b.runtime.runs["u.c.0"].end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.runtime.runs["u.s.1"].signals == [signal.SIGTERM]
        assert b.runtime.started == ["u.s.0", "u.c.0", "u.s.1"]


async def test_a_failed_init_container_ends_the_sidecars_before_it(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(spec={"initContainers": [sidecar("s"), container("i")]})])
        await eventually(has(b, "u.s.0", "u.i.0"))
        b.runtime.runs["u.i.0"].end(3)
        await eventually(lambda: b.phase() == "Failed")
        assert b.runtime.runs["u.s.0"].signals == [signal.SIGTERM]
        assert "u.c.0" not in b.runtime.runs


async def test_deleted_while_a_sidecar_has_not_started(bench: Any) -> None:
    probe = {"exec": {"command": ["1"]}, "periodSeconds": 1, "failureThreshold": 1000}
    async with bench() as b:
        await beside(b)
        made = pod(spec={"initContainers": [sidecar("s", startupProbe=probe)]})
        b.manager.on_list([made])
        await eventually(has(b, "u.s.0"))
        b.manager.on_event("MODIFIED", leaving(made))
        await eventually(lambda: b.deleted() != [])
        assert b.runtime.started == ["u.s.0"]


async def test_the_agent_leaves_sidecars_running(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(spec={"initContainers": [sidecar("s")]})])
        await eventually(lambda: b.phase() == "Running")
        await b.manager.aclose(0.5)
        assert b.runtime.runs["u.s.0"].signals == []
        assert b.runtime.runs["u.c.0"].signals == []


async def test_a_new_agent_takes_up_sidecars_without_beginning_again(bench: Any) -> None:
    recorded = {RunId("u", name, 0): "wasmtime" for name in ("i", "s", "c")}
    async with bench(recorded) as b:
        for run_id in recorded:
            b.runtime.runs[str(run_id)] = FakeRun()
        b.runtime.runs["u.i.0"].end(0)
        spec = {"initContainers": [container("i"), sidecar("s")]}
        b.manager.on_list([pod(spec=spec, status={"phase": "Running"})])
        await eventually(lambda: b.phase() == "Running")
        b.runtime.runs["u.c.0"].end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.runtime.started == []
        assert b.runtime.runs["u.s.0"].signals == [signal.SIGTERM]


async def test_an_init_container_whose_end_was_reported_is_not_run_again(bench: Any) -> None:
    """The sandbox's records are gone; what the API says of an end is believed."""
    end = {"exitCode": 0, "reason": "Completed", "finishedAt": "2026-11-24T09:00:00Z"}
    known = [{"name": "i", "restartCount": 0, "state": {"terminated": end}}]
    async with bench() as b:
        status = {"phase": "Pending", "initContainerStatuses": known}
        b.manager.on_list([pod(spec={"initContainers": [container("i")]}, status=status)])
        await eventually(has(b, "u.c.0"))
        assert b.runtime.started == ["u.c.0"]


async def test_a_container_that_waited_for_its_restart_does_so_again_and_counts_on(bench: Any) -> None:
    end = {"exitCode": 1, "finishedAt": "2026-11-24T09:00:00Z", "containerID": "wasmlab://u.c.2"}
    known = [
        {
            "name": "c",
            "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": end},
        }
    ]
    async with bench() as b:
        status = {"phase": "Running", "containerStatuses": known}
        b.manager.on_list([pod(policy="Always", status=status)])
        await eventually(has(b, "u.c.3"))
        assert b.runtime.started == ["u.c.3"]
        # None at the first end, 0.05 s at the second, doubled at the third, which is this one.
        assert b.manager.workers["u"].containers[0].crash.current_s == 0.1


async def test_post_start_is_waited_for_and_its_failure_ends_the_container(bench: Any) -> None:
    async with bench() as b:
        asked = await beside(b)
        spec = {"containers": [container("c", lifecycle={"postStart": {"exec": {"command": ["wait"]}}})]}
        b.manager.on_list([pod(spec=spec)])
        await eventually(lambda: asked == [("wait",)])
        assert b.phase() in ("", "Pending")
        b.instances[0].end(1)
        await eventually(lambda: b.phase() == "Failed")
        assert b.run.signals == [signal.SIGTERM]
        assert "Running" not in [s["phase"] for s in b.statuses()]


async def test_a_module_that_ends_during_its_hook_has_ended(bench: Any) -> None:
    async with bench() as b:
        asked = await beside(b)
        spec = {"containers": [container("c", lifecycle={"postStart": {"exec": {"command": ["wait"]}}})]}
        b.manager.on_list([pod(spec=spec)])
        await eventually(lambda: asked == [("wait",)])
        b.run.end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.instances[0].signals == [signal.SIGKILL], "its hook went on beside nothing"


async def test_pre_stop_comes_before_the_signal_and_within_the_grace_period(bench: Any) -> None:
    async with bench() as b:
        asked = await beside(b)
        spec = {"containers": [container("c", lifecycle={"preStop": {"exec": {"command": ["wait"]}}})]}
        b.manager.on_list([pod(spec=spec)])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", leaving(pod(spec=spec), grace_s=600))
        await eventually(lambda: asked == [("wait",)])
        await asyncio.sleep(0.05)
        assert b.run.signals == []
        b.manager.on_event("MODIFIED", leaving(pod(spec=spec), grace_s=0))  # somebody lost patience
        await eventually(lambda: b.deleted() != [])
        assert b.run.signals == [signal.SIGTERM]
        assert b.instances[0].signals == [signal.SIGKILL]


async def test_a_pod_removed_by_force_during_its_hook_is_ended(bench: Any) -> None:
    async with bench() as b:
        asked = await beside(b)
        spec = {"containers": [container("c", lifecycle={"preStop": {"exec": {"command": ["wait"]}}})]}
        b.manager.on_list([pod(spec=spec)])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", leaving(pod(spec=spec), grace_s=600))
        await eventually(lambda: asked == [("wait",)])
        b.manager.on_event("DELETED", pod(spec=spec))
        await eventually(lambda: b.runtime.forgotten == ["u.c.0"], 10)
        assert b.run.signals == [signal.SIGTERM]


async def test_a_failed_liveness_probe_restarts_by_the_policy(bench: Any) -> None:
    probe = {"exec": {"command": ["1"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with bench() as b:
        await beside(b)
        spec = {"containers": [container("c", livenessProbe=probe)]}
        b.manager.on_list([pod(policy="Never", spec=spec)])
        await eventually(lambda: b.phase() == "Failed")
        end = b.statuses()[-1]["containerStatuses"][0]["state"]["terminated"]
        assert end["exitCode"] == 143


async def test_a_probe_has_a_grace_period_of_its_own(bench: Any) -> None:
    probe = {
        "exec": {"command": ["1"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "terminationGracePeriodSeconds": 0,
    }
    async with bench() as b:
        await beside(b)
        b.runtime.stubborn = True
        spec = {
            "containers": [container("c", startupProbe=probe)],
            "terminationGracePeriodSeconds": 600,
        }
        b.manager.on_list([pod(spec=spec)])
        await eventually(lambda: b.phase() == "Failed", 20)  # two seconds are the least, whatever it says
        assert b.run.signals == [signal.SIGTERM, signal.SIGKILL]


async def test_probes_and_hooks_leave_nothing_behind(bench: Any) -> None:
    before = len(asyncio.all_tasks())
    ready = {"exec": {"command": ["0"]}, "periodSeconds": 1}
    async with bench() as b:
        await beside(b)
        spec = {
            "containers": [
                container("c", startupProbe=ready, livenessProbe=ready, readinessProbe=ready),
            ],
        }
        b.manager.on_list([pod(spec=spec)])
        await eventually(
            lambda: bool(b.statuses()) and b.statuses()[-1]["containerStatuses"][0].get("ready", False)
        )
        b.run.end(0)
        await eventually(lambda: b.phase() == "Succeeded")
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


# ---- a spec that changes ----


def changed(made: Json, generation: int, image: str = "", **spec: Any) -> Json:
    containers = [{**c, "image": image or c["image"]} for c in made["spec"]["containers"]]
    return {
        **made,
        "metadata": {**made["metadata"], "generation": generation},
        "spec": {**made["spec"], "containers": containers, **spec},
    }


async def test_a_wrong_image_can_be_put_right(bench: Any) -> None:
    async with bench(backoff_base_s=600.0, backoff_cap_s=600.0) as b:
        b.images.failures = [PullFailed(states.ERR_IMAGE_PULL, "no such image", hopeless=False)]
        b.manager.on_list([changed(pod(), 1, "r/typo:1")])
        await eventually(lambda: b.phase() == "Pending")
        b.manager.on_event("MODIFIED", changed(pod(), 2, "r/right:1"))
        await eventually(lambda: b.phase() == "Running")
        assert b.statuses()[-1]["containerStatuses"][0]["image"] == "r/right:1"
        assert b.runtime.started == ["u.c.0"]


async def test_a_running_container_whose_image_changes_is_begun_anew_whatever_its_policy(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(policy="Never")])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", changed(pod(policy="Never"), 2, "r/new:1"))
        await eventually(has(b, "u.c.1"))
        assert b.runtime.runs["u.c.0"].signals == [signal.SIGTERM]
        await eventually(lambda: b.statuses()[-1]["containerStatuses"][0]["image"] == "r/new:1")
        b.run.end(0)
        await eventually(lambda: b.phase() == "Succeeded")
        assert b.runtime.started == ["u.c.0", "u.c.1"]


async def test_an_image_that_changed_while_no_agent_ran(bench: Any) -> None:
    recorded = {RunId("u", "c", 0): "wasmtime"}
    known = [{"name": "c", "image": "r/old:1", "state": {"running": {}}}]
    async with bench(recorded) as b:
        b.runtime.runs["u.c.0"] = FakeRun()
        b.manager.on_list([pod(status={"phase": "Running", "containerStatuses": known})])
        await eventually(has(b, "u.c.1"))
        assert b.runtime.runs["u.c.0"].signals == [signal.SIGTERM]


async def test_a_deadline_that_is_given_later(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        b.manager.on_event("MODIFIED", changed(pod(), 2, activeDeadlineSeconds=1))
        await eventually(lambda: b.phase() == "Failed")
        assert b.statuses()[-1]["reason"] == "DeadlineExceeded"
        assert b.statuses()[-1]["observedGeneration"] == 2


async def test_a_bug_in_one_container_leaves_none_of_the_others_running(bench: Any) -> None:
    async with bench() as b:
        strike = asyncio.Event()

        async def outcome(engine: str, run_id: RunId, run: FakeRun) -> Any:
            if run_id.container == "b":
                await strike.wait()
                raise ZeroDivisionError("a bug")
            return await run.wait()

        b.runtime.outcome = outcome
        b.manager.on_list([pod(spec={"containers": [container("a"), container("b")]})])
        await eventually(has(b, "u.a.0", "u.b.0"))
        strike.set()
        await eventually(lambda: b.phase() == "Failed")
        assert b.statuses()[-1]["reason"] == "NodeAgentError"
        for run in b.runtime.runs.values():
            assert run.signals[-1] == signal.SIGKILL


async def test_an_ephemeral_container_comes_later_and_ends_with_the_pod(bench: Any) -> None:
    async with bench() as b:
        b.manager.on_list([pod(policy="Always")])
        await eventually(has(b, "u.c.0"))
        debugged = changed(pod(policy="Always"), 2, ephemeralContainers=[container("d"), container("e")])
        b.manager.on_event("MODIFIED", debugged)
        await eventually(has(b, "u.d.0", "u.e.0"))
        b.manager.on_event("MODIFIED", changed(debugged, 3))  # once is enough
        b.runtime.runs["u.d.0"].end(1)

        def ended() -> bool:
            shown = b.statuses()[-1].get("ephemeralContainerStatuses", []) if b.statuses() else []
            return any("terminated" in one["state"] for one in shown)

        await eventually(ended)
        assert b.phase() == "Running"
        b.manager.on_event("MODIFIED", leaving(debugged))
        await eventually(lambda: b.deleted() != [])
        assert b.runtime.runs["u.e.0"].signals == [signal.SIGTERM]
        assert sorted(b.runtime.started) == ["u.c.0", "u.d.0", "u.e.0"]


async def test_a_module_is_ended_also_when_the_connection_it_was_started_by_is_lost(bench: Any) -> None:
    async with bench() as b:
        again = FakeRun()

        async def attach(engine: str, run_id: RunId) -> FakeRun:
            return again

        async def outcome(engine: str, run_id: RunId, run: FakeRun) -> Any:
            try:
                return await run.wait()
            except WorkerLost:
                return await again.wait()

        b.runtime.attach, b.runtime.outcome = attach, outcome
        b.manager.on_list([pod()])
        await eventually(lambda: b.phase() == "Running")
        b.run.future.set_exception(WorkerLost("the connection is gone"))
        await asyncio.sleep(0)
        b.manager.on_event("MODIFIED", leaving(pod()))
        await eventually(lambda: b.deleted() != [])
        assert again.signals == [signal.SIGTERM]
