"""The board's words, which are kubectl's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wasmlab.widgets import html, model

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str = "a", phase: str = "Running", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": name,
            "name": name,
            "namespace": "default",
            "creationTimestamp": "2025-12-31T23:59:00Z",
        },
        "spec": {"nodeName": "n"},
        "status": {"phase": phase, **status},
    }


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "restartCount": 2, "state": state}]


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (pod(phase="Pending"), "Pending"),
        (pod(containerStatuses=container(running={})), "Running"),
        (pod(containerStatuses=container(waiting={"reason": "CrashLoopBackOff"})), "CrashLoopBackOff"),
        (
            pod(
                phase="Succeeded",
                containerStatuses=container(terminated={"exitCode": 0, "reason": "Completed"}),
            ),
            "Completed",
        ),
        (pod(phase="Failed", containerStatuses=container(terminated={"exitCode": 3})), "ExitCode:3"),
        (
            pod(phase="Failed", containerStatuses=container(terminated={"signal": 9, "exitCode": 137})),
            "Signal:9",
        ),
        (pod(phase="Failed", reason="Evicted"), "Evicted"),
        (pod(phase="Pending", initContainerStatuses=container(running={})), "Init:0/1"),
        (
            pod(
                phase="Pending",
                initContainerStatuses=container(terminated={"exitCode": 1, "reason": "Error"}),
            ),
            "Init:Error",
        ),
        (
            pod(phase="Pending", initContainerStatuses=container(waiting={"reason": "ImagePullBackOff"})),
            "Init:ImagePullBackOff",
        ),
        (
            pod(
                initContainerStatuses=[{**container(running={})[0], "started": True}],
                containerStatuses=container(running={}),
            ),
            "Running",
        ),
    ],
)
def test_the_status_is_kubectls(one: dict[str, Any], says: str) -> None:
    assert model.pod_status(one) == says


def test_a_pod_that_is_being_deleted() -> None:
    one = pod()
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert model.pod_status(one) == "Terminating"
    one["status"]["phase"] = "Succeeded"
    assert model.pod_status(one) == "Succeeded"


def test_events_change_what_is_known() -> None:
    state = model.State()
    state.replace("pods", [pod("a"), pod("b", "Succeeded")])
    state.replace(
        "nodes", [{"metadata": {"uid": "n", "name": "n", "labels": {"kubernetes.io/arch": "wasm32-wasi"}}}]
    )
    assert state.counts() == {"Running": 1, "Succeeded": 1}
    assert state.nodes() == [model.NodeRow("n", "Unknown", "wasm", 1, "")]
    state.apply("pods", {"type": "DELETED", "object": pod("b")})
    state.apply("pods", {"type": "MODIFIED", "object": pod("a", "Failed", containerStatuses=container())})
    assert state.counts() == {"Failed": 1}
    assert state.pods(NOW) == [model.PodRow("a", "default", "a", "Failed", 2, "n", "60s")]
    state.replace("pods", [])
    assert state.pods() == [] and state.pod("a") is None


def test_nodes() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"unschedulable": True}}
    assert model.node_status(ready) == "Ready,SchedulingDisabled"
    assert model.node_status({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}) == "NotReady"


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "0s"), (119, "119s"), (120, "2m"), (3600, "1h"), (90000, "1d"), (-5, "0s")]
)
def test_ages(seconds: int, says: str) -> None:
    assert model.age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == says


def test_everything_on_the_page_is_escaped() -> None:
    page = (
        html.table(("<a>", "s"), [("<b>", "<c>")], status_column=1) + html.text("<d>") + html.trouble("<e>")
    )
    assert (
        "<b>" not in page.replace("<b>1", "")
        and "&lt;c&gt;" in page
        and "&lt;d&gt;" in page
        and "&lt;e&gt;" in page
    )
