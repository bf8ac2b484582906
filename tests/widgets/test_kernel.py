"""Widgets in a real kernel: what is left when a cell is run again, and when the kernel is restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BOARD = "board = Board(cluster)"
THREADS = "print('threads', len([t for t in threading.enumerate() if t.name.startswith('wasmlab-')]))"


class Kernel:
    """Runs cells as JupyterLab does: with the identity of the cell."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, cell: str = "", timeout_s: float = 90.0) -> str:
        """Run a cell and return what it printed."""
        session = self.client.session
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": False, "stop_on_error": True}  # fmt: skip
        request = session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(request)
        printed, deadline = [], time.monotonic() + timeout_s
        while True:
            answer = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if answer["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            if answer["msg_type"] == "stream":
                printed.append(answer["content"]["text"])
            if answer["msg_type"] == "error":
                raise AssertionError("\n".join(answer["content"]["traceback"]))
            if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                return "".join(printed)

    def until(self, code: str, says: str, timeout_s: float = 60.0) -> None:
        """Run a cell again and again until it prints something."""
        deadline = time.monotonic() + timeout_s
        while says != (said := self.run(code).strip()):
            assert time.monotonic() < deadline, f"waited for {says!r}, there is {said!r}"
            time.sleep(0.2)


@pytest.fixture
def kernel(node_cluster: Any) -> Iterator[Kernel]:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=60)
    manager.shutdown_wait_time = 60.0  # on a busy machine the end takes longer than the usual 5 s
    one = Kernel(manager, client)
    try:
        one.run(
            "import threading\nfrom wasmlab.cluster import Cluster\nfrom wasmlab.widgets import Board, Launcher\n"
            f"cluster = Cluster.attach({str(node_cluster.dir)!r})"
        )
        yield one
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def until(what: str, condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.1)


def test_nothing_is_left_when_a_cell_is_run_again_or_the_kernel_restarted(
    kernel: Kernel, node_cluster: Any
) -> None:
    kernel.run(BOARD, cell="one")
    kernel.until(THREADS, "threads 4")
    for _ in range(3):
        kernel.run(BOARD, cell="one")
    kernel.until(THREADS, "threads 4")
    kernel.run("other = Board(cluster)", cell="two")
    kernel.until(THREADS, "threads 8")

    def pods() -> list[str]:
        found = node_cluster.rest.get("/api/v1/pods")["items"]
        return [one["metadata"]["name"] for one in found if one["metadata"]["namespace"].startswith("bench-")]

    kernel.run(
        "launcher = Launcher(cluster)\nlauncher._order.value, launcher._count.value = 'all at once', 500\n"
        "launcher.launch()",
        cell="three",
    )
    until("a pod of the burst", pods)
    kernel.manager.restart_kernel(now=False)
    until("the removal of its pods", lambda: not pods(), 100)


def test_in_an_exported_notebook_there_is_what_the_widgets_showed(node_cluster: Any, tmp_path: Path) -> None:
    """Executed by papermill and written as a page, a widget is a table or a figure, and nothing asks for a kernel."""
    import papermill

    from wasmlab.notebooks import html

    source, target = tmp_path / "widgets.ipynb", tmp_path / "done.ipynb"
    cells = [
        "import os\nos.environ['WASMLAB_REPORTS'] = '.'\nfrom wasmlab.cluster import Cluster\n"
        f"from wasmlab.widgets import Board, Launcher\ncluster = Cluster.attach({str(node_cluster.dir)!r})",
        "Board(cluster)",
        "launcher = Launcher(cluster)\nlauncher._count.value = 6\nlauncher.launch()\nlauncher",
        "launcher.snapshot()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, source)
    papermill.execute_notebook(str(source), str(target), progress_bar=False, cwd=str(tmp_path))
    done = nbformat.read(target, as_version=4)
    for cell in done.cells[1:3]:
        kinds = set(cell.outputs[-1]["data"])
        assert "text/html" in kinds and "application/vnd.jupyter.widget-view+json" not in kinds
    page = html.render(done, tmp_path / "done.html").read_text()
    body = page[page.index("<body") :]
    assert "✓ </span>Ready" in body and "done: 12 pods" in body and body.count("<figure>") == 6
    assert "widget-view" not in body and "widget-state" not in page
