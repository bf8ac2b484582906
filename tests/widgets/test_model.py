"""The board's words, which are kubectl's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from wasmlab.errors import ClusterError
from wasmlab.widgets import html, model


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
    created = model.clock("2025-12-31T23:59:00Z")
    assert state.pods() == ([model.PodRow("a", "default", "a", "Failed", 2, "n", created)], 1)
    state.replace("pods", [])
    assert state.pods() == ([], 0) and state.pod("a") is None


def test_nodes() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"unschedulable": True}}
    assert model.node_status(ready) == "Ready,SchedulingDisabled"
    assert model.node_status({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}) == "NotReady"


def test_a_time_is_the_clocks_of_this_machine() -> None:
    now = datetime.now().astimezone().replace(microsecond=0)
    assert model.clock(now.astimezone(UTC).isoformat()) == now.strftime("%H:%M:%S")


def many(count: int) -> model.State:
    state = model.State()
    state.replace(
        "pods", [pod(f"p{number:03d}", "Pending" if number % 2 else "Running") for number in range(count)]
    )
    return state


def test_pods_are_filtered_and_capped_and_the_youngest_come_first() -> None:
    state = many(10)
    rows, count = state.pods(most=3)
    assert ([row.name for row in rows], count) == (["p009", "p008", "p007"], 10)
    assert [row.name for row in state.pods("RUNNING")[0]] == ["p008", "p006", "p004", "p002", "p000"]
    assert [row.name for row in state.pods("default/p003")[0]] == ["p003"]
    assert state.pods("nothing") == ([], 0)
    assert [row.name for row in state.pods(most=2, also="p001")[0]] == ["p009", "p008", "p001"]
    assert [row.name for row in state.pods(most=2, also="p009")[0]] == ["p009", "p008"]
    assert state.phases()[:3] == ["Running", "Pending", "Running"], (
        "the oldest first: squares keep their places"
    )


def test_what_nobody_reads_is_not_kept() -> None:
    state = model.State()
    one = pod()
    one["metadata"]["managedFields"] = [{}]
    state.apply("pods", {"type": "ADDED", "object": one})
    assert "managedFields" not in state.pod("a")["metadata"]  # type: ignore[index]


def test_the_image_of_an_example_is_that_of_a_wasm_pod() -> None:
    state = model.State()
    wasm, other = pod("a"), pod("b")
    for one, keys in ((wasm, ["kubernetes.io/arch"]), (other, [])):
        one["spec"] |= {
            "containers": [{"image": one["metadata"]["name"]}],
            "tolerations": [{"key": k} for k in keys],
        }
    state.replace("pods", [other])
    assert state.an_image() == ""
    state.replace("pods", [wasm, other])
    assert state.an_image() == "a"


def test_everything_on_the_page_is_escaped() -> None:
    error = ClusterError("<e>", remedy="<f>")
    page = (
        html.table(("<a>", "s"), [("<b>", "<c>")], status_column=1)
        + html.text("<d>", '"><g>')
        + html.error(error)
    )
    for letter in "abcdefg":
        assert f"<{letter}>" not in page and f"&lt;{letter}&gt;" in page


def test_a_status_is_told_without_its_color() -> None:
    signs = {html.sign(word) for word in ("Completed", "Running", "Pending", "CrashLoopBackOff")}
    assert len(signs) == 4
    assert html.kind("Init:0/1") == "wait" and html.kind("Ready,SchedulingDisabled") == "good"


def test_an_error_is_shown_with_its_remedy() -> None:
    page = html.error(ClusterError("it broke", remedy="mend it"))
    assert 'role="alert"' in page and "it broke" in page and "Try: mend it" in page
    assert html.trouble("") == ""
