"""Board and launcher on a real cluster; a browser clicks through them in tests/ui."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.node.lab import push
from wasmlab.cluster import manifests
from wasmlab.widgets import Board, Launcher

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


def test_a_board_is_live(board: Board, node_cluster: Any, unique: Callable[[str], str]) -> None:
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
    board._delete.click()
    until("its end", lambda: all(name not in text for text, _ in board._pods.options))
    assert name not in board.as_html()


def test_what_cannot_be_applied_is_said(board: Board) -> None:
    for text, says in (
        ("", "nothing to apply"),
        ("a: [", "expected"),
        ("x", "no manifest"),
        ("kind: Pod", "no manifest"),
    ):
        board._manifest.value, board._said.value = text, ""
        board._apply.click()
        assert "trouble" in until("the refusal", lambda: board._said.value)
        assert says in board._said.value, board._said.value


def test_in_a_report_a_board_is_a_table(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMLAB_REPORTS", "/tmp")
    assert list(board._repr_mimebundle_()) == ["text/html"]


def test_a_closed_board_leaves_no_thread(node_cluster: Any) -> None:
    before = {one.name for one in threading.enumerate()}
    one = Board(node_cluster)
    one.close()
    until(
        "its threads",
        lambda: {t.name for t in threading.enumerate() if t.name.startswith("wasmlab-")} <= before,
    )


def test_a_launcher_measures_both_engines_and_draws(
    node_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Launcher(node_cluster)
    try:
        one._count.value = 3
        one._start.click()
        assert one.is_running
        assert one.wait(100)
        assert "done: 12 runs, 0 failed" in one._said.value, one._said.value  # two engines, two controls
        until("the figures", lambda: one._ecdf.value and all(image.value for image in one._waterfalls))
        assert bytes(one._ecdf.value).startswith(b"\x89PNG")
        monkeypatch.setenv("WASMLAB_REPORTS", "/tmp")
        assert one._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")
        assert (one._start.disabled, one._cancel.disabled) == (False, True)
    finally:
        one.close()


def test_cancel_cancels(node_cluster: Any) -> None:
    one = Launcher(node_cluster)
    try:
        one._engine.value, one._count.value = "wasmtime", 200
        one._start.click()
        until("a first pod", lambda: one._bar.value >= 2, 60)
        one._cancel.click()
        assert one.wait(60)
        assert "cancelled" in one._said.value
        assert one.results is not None and 2 <= len(one.results.rows) < 300
    finally:
        one.close()
