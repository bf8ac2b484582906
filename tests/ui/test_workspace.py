"""`wasmlab jupyter` in a real browser: the right tabs are open, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ui.conftest import ROOT, SHOTS, missing

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
TABS = ["00_start_here.ipynb", "live.ipynb", "README.md", "Terminal lab"]


def wait_for_tabs(page: Any) -> list[str]:
    """Return the labels of the open tabs, once they are the wanted ones or a minute has gone by."""
    deadline = time.monotonic() + 60
    while True:
        found: list[str] = page.eval_on_selector_all(
            "#jp-main-dock-panel .lm-TabBar-tabLabel", "all => all.map(one => one.innerText)"
        )
        if found == TABS or time.monotonic() > deadline:
            return found
        page.wait_for_timeout(200)


def test_the_tabs_of_the_lab_are_open_and_all_ends_with_ctrl_c(page: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # A copy: JupyterLab saves what is open, and it opens notebooks by adding to them.
    work = tmp_path / "work"
    shutil.copytree(ROOT / "notebooks", work / "notebooks")
    shutil.copy(ROOT / "README.md", work)
    with open(tmp_path / "said", "w") as said:
        command = subprocess.Popen(
            [sys.executable, "-m", "wasmlab", "jupyter", "--no-browser"],
            cwd=work, env=environment, stdout=subprocess.PIPE, stderr=said, text=True,
        )  # fmt: skip
    try:
        assert command.stdout is not None
        address = command.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (tmp_path / "said").read_text()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.goto(address)
        page.wait_for_selector("#jp-main-dock-panel .lm-TabBar-tabLabel", timeout=60_000)
        assert wait_for_tabs(page) == TABS
        # The first notebook is the one that is looked at, and it can be run.
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell", timeout=60_000)
        current = page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current .lm-TabBar-tabLabel")
        assert current.first.inner_text() == TABS[0]
        page.screenshot(path=SHOTS / "workspace.png")
        page.locator("#jp-main-dock-panel .lm-TabBar-tab", has_text="Terminal").click()
        page.wait_for_selector(".jp-Terminal .xterm-screen", timeout=30_000)
        assert page.get_by_text("Jupyter news").count() == 0, (
            "somebody's first sight is a question about news"
        )
        started = psutil.Process(command.pid).children(recursive=True)
        assert started
    finally:
        command.send_signal(signal.SIGINT)
        code = command.wait(90)
    assert code == 0
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


class _Somebody(BaseHTTPRequestHandler):
    """Answers everything, as another server on the wanted port might."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"version": "1"}')


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Somebody) as taken:
        threading.Thread(target=taken.serve_forever, daemon=True).start()
        port = taken.server_address[1]
        done = subprocess.run(
            [sys.executable, "-m", "wasmlab", "jupyter", "--no-browser", "--port", str(port)],
            cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        taken.shutdown()
    assert done.returncode == 1
    assert str(port) in done.stderr
