"""A real JupyterLab and a real Chromium, once for all tests here."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wasmlab.process import free_ports

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
# Where a failed test leaves what the page looked like.
SHOTS = Path(os.environ.get("WASMLAB_SHOTS", ROOT / "reports" / "ui"))


def missing() -> str:
    """Say why there is no browser to test with; nothing if there is one."""
    if not CHROMIUM:
        return "no Chromium here (Debian: apt-get install chromium)"
    from playwright._impl._driver import compute_driver_executable

    driver = subprocess.run(
        [compute_driver_executable()[0], "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    return "" if driver.returncode == 0 else f"playwright's driver does not run here: {driver.stderr.strip()}"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the notebooks."""
    home = tmp_path_factory.mktemp("jupyter")
    work = home / "work"
    shutil.copytree(ROOT / "notebooks", work / "notebooks")
    (work / "data").symlink_to(ROOT / "data")
    (port,) = free_ports(1)
    token = secrets.token_hex(16)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": cache,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("WASMLAB_REPORTS", None)
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                *(
                    f"--ServerApp.port={port}",
                    "--ServerApp.ip=127.0.0.1",
                    f"--IdentityProvider.token={token}",
                ),
                *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={work}"),
                *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=work,
        )
    try:
        deadline = time.monotonic() + 60
        address = f"http://127.0.0.1:{port}"
        while True:
            assert server.poll() is None, (home / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline, (home / "lab.log").read_text()
                time.sleep(0.2)
        yield f"{address}/lab?token={token}"
    finally:
        server.terminate()  # it ends its kernels, and they what they started
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Not for the session: while the driver runs, this thread has an event loop, which other users of asyncio refuse.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        one = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield one
        one.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fresh page; its picture is kept at the end, whatever came of the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    one = context.new_page()
    one.set_default_timeout(30_000)
    yield one
    SHOTS.mkdir(parents=True, exist_ok=True)
    one.screenshot(path=SHOTS / f"{request.node.name}.png")
    context.close()
