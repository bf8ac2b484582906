"""Board and launcher on a real cluster; a browser clicks through them in tests/ui."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.node.lab import push
from wasmlab.cluster import manifests
from wasmlab.modules import workloads
from wasmlab.modules.files import data_dir
from wasmlab.widgets import Board, Launcher, lifetimes

pytestmark = pytest.mark.integration


def until(what: str, condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture
def board(node_cluster: Any) -> Iterator[Board]:
    one = Board(node_cluster)
    yield one
    one.close()


def test_a_board_is_live(
    board: Board, node_cluster: Any, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("board")
    board._manifest.value = yaml.safe_dump(manifests.wasm_pod(name, push(node_cluster, "hello")))
    board._apply.click()
    until("what came of it", lambda: f"applied Pod {name}" in board._said.value)
    # By its identity: the line has the pod's age, and is another one each second.
    uid = until(
        "the pod on the board",
        lambda: next(
            (uid for text, uid in board._pods.options if name in text and "Completed" in text), None
        ),
    )

    def shows(text: str) -> bool:
        if board._pods.value != uid:  # the lines were made anew in the moment of the choice
            board._pods.value = uid
        return text in board._details.value

    until("its log", lambda: shows("hello from stdout!"))
    board._view.value = "status"
    until("its status", lambda: shows("phase: Succeeded"))
    board._view.value = "events"
    until("its events", lambda: shows("Scheduled"))
    page = board._repr_mimebundle_()
    assert name in page["text/html"] and "application/vnd.jupyter.widget-view+json" in page
    # A pod that has ended is not asked for again and again.
    board._view.value = "logs"
    until("its log", lambda: shows("hello from stdout!"))
    asked: list[str] = []
    monkeypatch.setattr(board, "_logs", lambda *_: asked.append("again") or "")
    board._show_details()
    assert not asked
    board._delete.click()
    until("its end", lambda: all(name not in text for text, _ in board._pods.options))
    assert name not in board.as_html()


def press(board: Board, button: Any, says: str) -> str:
    """Press a button and return what the board says of it."""
    board._said.value = ""
    button.click()
    said: str = until("an answer", lambda: board._said.value)
    assert says in said, said
    return said


def test_what_cannot_be_applied_is_said_with_a_remedy(board: Board) -> None:
    for text, says in (
        ("", "nothing to apply"),
        ("a: [", "this is no YAML"),
        ("x", "no manifest"),
        ("kind: Pod", "no manifest"),
        ("{apiVersion: v1, kind: Nothing, metadata: {name: a}}", "knows no Nothing"),
    ):
        board._manifest.value = text
        for button in (board._apply, board._remove):
            assert "trouble" in press(board, button, says)
    board._manifest.value = "a: ["
    assert "Try: look at line 1" in press(board, board._apply, "YAML")


def test_the_example_can_be_applied_and_deleted(board: Board, node_cluster: Any) -> None:
    push(node_cluster, "hello")
    board._example.click()
    pod = yaml.safe_load(board._manifest.value)
    assert pod["metadata"]["name"] == "example"
    press(board, board._apply, "applied Pod example")
    until("the pod", lambda: any("example" in text for text, _ in board._pods.options))
    press(board, board._remove, "Pod example being deleted")
    until("its end", lambda: all("example" not in text for text, _ in board._pods.options))


def test_the_filter_narrows_the_list(board: Board, node_cluster: Any, unique: Callable[[str], str]) -> None:
    names = [unique("filter"), unique("other")]
    for name in names:
        node_cluster.apply(manifests.wasm_pod(name, push(node_cluster, "hello")))
    until("both", lambda: all(any(name in text for text, _ in board._pods.options) for name in names))
    board._filter.value = names[0]
    until("one", lambda: len(board._pods.options) == 1 and names[0] in board._pods.options[0][0])


def test_in_a_report_a_board_is_a_table(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMLAB_REPORTS", "/tmp")
    bundle = board._repr_mimebundle_()
    assert sorted(bundle) == ["text/html", "text/plain"]
    assert "Ready" in bundle["text/html"] and "<select" not in bundle["text/html"]


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(("wasmlab-", "pod-watch", "flood"))]


def test_what_is_closed_leaves_no_thread(node_cluster: Any) -> None:
    before = ours()
    for one in (Board(node_cluster), Launcher(node_cluster)):
        one.close()
    until("its threads", lambda: set(ours()) <= set(before))


def test_a_cell_that_is_run_again_closes_what_it_made(
    node_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"now": lifetimes.Run("a cell", "first")}
    monkeypatch.setattr(lifetimes, "this_run", lambda: runs["now"])
    first, beside = Board(node_cluster), Launcher(node_cluster)
    try:
        assert not first._feed.is_closed, "two of one run are both wanted"
        runs["now"] = lifetimes.Run("another cell", "second")
        second = Board(node_cluster)
        assert not first._feed.is_closed
        runs["now"] = lifetimes.Run("a cell", "third")
        third = Board(node_cluster)
        assert first._feed.is_closed and beside._ended.is_set()
        assert not second._feed.is_closed and not third._feed.is_closed
    finally:
        for one in (second, third):
            one.close()


@pytest.fixture
def launcher(node_cluster: Any) -> Iterator[Launcher]:
    one = Launcher(node_cluster)
    yield one
    one.close()


def is_gone(launcher: Launcher, cluster: Any) -> bool:
    """Whether the namespace of the last launch is gone, or being removed."""
    assert launcher._launch is not None
    own = launcher._launch._executor.namespace
    found = cluster.rest.get("/api/v1/namespaces")["items"]
    return not any(one["metadata"]["name"] == own and one["status"]["phase"] == "Active" for one in found)


def test_a_launcher_measures_both_engines_and_draws(
    launcher: Launcher, node_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher._count.value = 8
    launcher._start.click()
    assert launcher.is_running and (launcher._start.disabled, launcher._cancel.disabled) == (True, False)
    assert launcher.wait(100)
    assert "done: 16 pods" in launcher._said.value and "0 failed" in launcher._said.value
    until("the last figures", lambda: "so far" not in launcher._cards.value)
    assert "95 % interval" in launcher._cards.value and launcher._charts.value.count("<svg") == 3
    assert (launcher._start.disabled, launcher._cancel.disabled) == (False, True)
    assert launcher.results is not None and len(launcher.results.rows) == 32, "two controls to each block"
    assert {one.engine for one in launcher.records} == {"wasmtime", "wasmer"}
    # Another clock, other figures, and no history of the old one.
    before = launcher._charts.value
    launcher._measure.value = "status_observed"
    until("figures of the other clock", lambda: launcher._charts.value != before)
    assert "median until: Succeeded seen" in launcher._cards.value
    monkeypatch.setenv("WASMLAB_REPORTS", "/tmp")
    bundle = launcher._repr_mimebundle_()
    assert sorted(bundle) == ["image/png", "text/html", "text/plain"]
    assert bundle["image/png"].startswith(b"\x89PNG") and "done: 16 pods" in bundle["text/html"]
    assert is_gone(launcher, node_cluster)


def test_a_burst_is_counted_and_measured(launcher: Launcher, node_cluster: Any) -> None:
    launcher._count.value, launcher._order.value = 30, "all at once"
    launcher._start.click()
    assert launcher.wait(120)
    assert "done: 60 pods" in launcher._said.value and "pods per second" in launcher._said.value
    own = launcher.records
    assert len(own) == 60 and all(one.ok for one in own)
    # The node's own moments are there, and one clock for all.
    assert any("first_byte_ns" in one.when for one in own)
    assert min(one.began_ns for one in own) == 0 < max(one.began_ns for one in own)
    until("the last figures", lambda: "n = 30<" in launcher._cards.value)
    assert "95 % interval" not in launcher._cards.value
    assert is_gone(launcher, node_cluster)


@pytest.mark.parametrize("order", ["one after the other", "all at once"])
def test_cancel_removes_the_pods_and_counts_them(launcher: Launcher, node_cluster: Any, order: str) -> None:
    launcher._engine.value, launcher._count.value, launcher._order.value = "wasmtime", 500, order
    launcher._start.click()
    until("a first pod", lambda: launcher.records)
    launcher._cancel.click()
    assert launcher.wait(100)
    said = launcher._said.value
    counts = re.search(
        r"of 500 pods (\d+) had ended \(0 failed\), (\d+) were removed .*, (\d+) were not", said
    )
    assert counts is not None and "None is left" in said, said
    ended, removed, never = map(int, counts.groups())
    assert ended == len(launcher.records) >= 1 and ended + removed + never == 500 and never > 0
    until("the end of its namespace", lambda: is_gone(launcher, node_cluster))


def test_cancel_does_not_wait_for_a_pod_that_does_not_end(
    launcher: Launcher, node_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "fixtures/sleep.wasm"
    digest = hashlib.sha256((data_dir("wasm") / file).read_bytes()).hexdigest()
    endless = dataclasses.replace(
        workloads.get("hello"), name="sleep", file=file, digest=f"sha256:{digest}", args=("3600",)
    )
    monkeypatch.setattr(workloads, "get", lambda _: endless)

    def runs() -> bool:
        pods = node_cluster.rest.get("/api/v1/pods")["items"]
        return any(
            one["metadata"]["namespace"].startswith("bench-") and one["status"]["phase"] == "Running"
            for one in pods
        )

    launcher._engine.value, launcher._count.value = "wasmtime", 2
    launcher._start.click()
    until("a pod that runs", runs)
    launcher._cancel.click()
    assert launcher.wait(60)
    assert (
        "of 2 pods 0 had ended (0 failed)" in launcher._said.value and "None is left" in launcher._said.value
    )
    assert not runs()


def test_what_cannot_be_launched_is_said(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher._cluster, "nodes", {})
    launcher._start.click()
    assert launcher.wait(60)
    assert "trouble" in launcher._said.value and "Try: start one" in launcher._said.value
    assert (launcher._start.disabled, launcher._cancel.disabled) == (False, True)


def test_path_2_is_on_offer_where_it_can_be_walked(
    node_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wasmlab import containerd

    for why, paths in (("", 2), ("not installed: runc", 1)):
        monkeypatch.setattr(containerd, "missing", lambda why=why: why, raising=False)
        one = Launcher(node_cluster)
        try:
            assert len(one._path.options) == paths
            assert (why in one._said.value) and ("Path 2 is not on offer" in one._said.value) == bool(why)
        finally:
            one.close()
