"""Proof that the lab fits into a Binder session: as an ordinary user, in a clean home, with 2 GB of memory.

``make binder`` (as root; about 15 minutes the first time, because the control plane is built in the clean home) does
what Binder does, in a `Box`: the environment from the lock that ``environment.yml`` names, ``binder/postBuild``, then
``binder/start`` with JupyterLab under the limit. In it a person runs notebooks by hand and, with the live board and its
cluster still open, the whole lab in a terminal. It fails if anything fails, if the kernel had to end a process for want
of memory, or if anything is left running.

    python -m tests.binder.session [--dir DIR] [--memory-mib 2048] [--fresh]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.binder.box import BIN, CONDA, ROOT, Box
from tests.binder.jupyter import run_notebook
from tests.binder.meter import Meter, Peak
from wasmlab.process import free_ports

_MIB = 1024**2
# Before which cell a person stops. The one that ends the cluster of the live notebook is not run: the board stays open
# while the whole lab runs, and ending JupyterLab has to end the cluster.
_BY_HAND = {"00_start_here": "", "05_the_node": "", "live": "cluster.stop()"}
_LEFT_TIMEOUT_S = 30.0


class Steps:
    """Runs named steps and keeps what each took."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.rows: list[tuple[str, float, Peak]] = []
        self._started = time.monotonic()

    def begin(self, name: str) -> None:
        print(f" … {name}", file=sys.stderr, flush=True)
        self._meter.take()
        self._started = time.monotonic()

    def end(self, name: str) -> None:
        peak = self._meter.take()
        took_s = time.monotonic() - self._started
        self.rows.append((name, took_s, peak))
        held, working = peak.unreclaimable_bytes / _MIB, peak.working_set_bytes / _MIB
        print(f" ✓ {name}: {took_s:.0f} s, peak {held:.0f} MiB unreclaimable, {working:.0f} MiB working set",
              file=sys.stderr, flush=True)  # fmt: skip


def requirements() -> list[str]:
    """What ``environment.yml`` gives to pip; a path is relative to its own directory, which is ``binder/``."""
    import yaml

    wanted = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())["dependencies"]
    (lines,) = [one["pip"] for one in wanted if isinstance(one, dict)]
    return [re.sub(r"^-r (?=[^/])", "-r binder/", line) for line in lines]


def environment(box: Box, log: Path, steps: Steps) -> None:
    """The image, first half: what conda's pip installs."""
    steps.begin("the environment")
    base = f"{sys.base_prefix}/bin/python3"  # the checkout's own environment is hidden
    box.run([base, "-m", "venv", BIN.removesuffix("/bin")], log, 120)
    words = [word for line in requirements() for word in line.split()]
    box.run([f"{BIN}/python", "-m", "pip", "install", "-q", *words], log, 1800)
    steps.end("the environment")


def post_build(box: Box, log: Path, steps: Steps) -> None:
    """The image, second half. Who builds images has more memory than a session."""
    steps.begin("binder/postBuild")
    box.run(["binder/postBuild"], log, 3600)
    steps.end("binder/postBuild")


def session(box: Box, log: Path, steps: Steps) -> None:
    """A session: JupyterLab by way of ``start``, notebooks by hand, the whole lab in a terminal."""
    (port,) = free_ports(1)
    token = secrets.token_hex(16)
    steps.begin("JupyterLab")
    lab = box.start(
        ["binder/start", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
         f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"],
        log,
    )  # fmt: skip
    try:
        for name, before in _BY_HAND.items():
            notebook = box.root / "home" / "notebooks" / f"{name}.ipynb"
            asyncio.run(run_notebook(f"http://127.0.0.1:{port}", token, notebook, 300, before=before))
            steps.end(f"JupyterLab, {name} by hand")
            steps.begin("the next")
        box.run(["binder/start", "wasmlab", "lab", "--out", "reports"], log, 1800)
        steps.end("JupyterLab, the open board, the whole lab in a terminal")
    finally:
        lab.terminate()
        try:
            lab.wait(30)
        except subprocess.TimeoutExpired:
            lab.kill()


def left(box: Box) -> list[str]:
    """Command lines of what still runs when everything has had time to end."""
    deadline = time.monotonic() + _LEFT_TIMEOUT_S
    while (pids := box.running()) and time.monotonic() < deadline:
        time.sleep(0.2)
    lines = []
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended just now
            lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200])
    return lines


def verify(box: Box) -> None:
    """Look at what the lab made: every notebook done, path 2 from recorded data and saying so."""
    reports = box.root / "home" / "reports"
    runs: dict[str, dict[str, Any]] = json.loads((reports / "runs.json").read_text())
    bad = {name: entry["status"] for name, entry in runs.items() if entry["status"] != "ok"}
    expected = {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    if bad or set(runs) != expected:
        raise SystemExit(f"not every notebook is done: {bad or expected ^ set(runs)}")
    page = (reports / "06_the_runtime_class.html").read_text()
    if not re.search(
        r"Skipped here: a container node needs root.*What follows was recorded", page, re.DOTALL
    ):
        raise SystemExit("the page of notebook 06 does not say that path 2 is shown from recorded data")


def main() -> None:
    """Run the proof and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("/tmp/wasmlab-binder"))
    parser.add_argument("--memory-mib", type=int, default=2048)
    parser.add_argument(
        "--fresh", action="store_true", help="remove the directory first: build everything again"
    )
    parser.add_argument("--only", choices=("environment", "postBuild", "session"), help="one step alone")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(options.dir, ignore_errors=True)
    box = Box(options.dir)
    log = options.dir / "log"
    box.clone()
    box.limit(-1)
    meter = Meter(box.group.directories[0])
    steps = Steps(meter)
    try:
        if options.only in (None, "environment"):
            environment(box, log, steps)
        if options.only in (None, "postBuild"):
            post_build(box, log, steps)
        if options.only in (None, "session"):
            box.limit(options.memory_mib * _MIB)
            session(box, log, steps)
            verify(box)
        remaining, kills = left(box), box.kills()
    finally:
        meter.stop()
        box.close()
    for name, took_s, peak in steps.rows:
        held, working = peak.unreclaimable_bytes / _MIB, peak.working_set_bytes / _MIB
        print(f"{name:55} {took_s:6.0f} s {held:7.0f} MiB unreclaimable {working:7.0f} MiB working set")
    print(f"limit of the session {options.memory_mib} MiB; {kills} processes ended for want of memory; "
          f"{len(remaining)} left running in {CONDA}'s user")  # fmt: skip
    if remaining or kills:
        raise SystemExit("\n".join(remaining) or "the memory did not suffice")


if __name__ == "__main__":
    main()
