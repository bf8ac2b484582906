"""Install what a container node needs, on Debian and its relatives, as root: ``python -m wasmlab.containerd.install``.

`make lab` and `make test` call this first. It changes nothing, and says why, where it is not root, where the system is
not Debian-like, where everything is there already, or where ``WASMLAB_NO_INSTALL`` is set; the lab then skips path 2
and shows what was recorded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from wasmlab.console import say, step
from wasmlab.containerd import programs
from wasmlab.errors import ProcessError

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iproute2")
SKIP = "WASMLAB_NO_INSTALL"
_TIMEOUT_S = 600.0
_OS_RELEASE = Path("/etc/os-release")


def debian_like(text: str) -> bool:
    """Tell whether an os-release file is Debian's or that of a distribution made from it."""
    words: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key in ("ID", "ID_LIKE"):
            words |= set(value.strip().strip("\"'").split())
    return bool(words & {"debian", "ubuntu"})


def why_not(environment: Mapping[str, str] = os.environ, os_release: Path = _OS_RELEASE) -> str:
    """Return why nothing can be installed here, or an empty string."""
    if environment.get(SKIP):
        return f"{SKIP} is set"
    if os.geteuid() != 0:
        return "only root can install packages"
    try:
        known = debian_like(os_release.read_text())
    except OSError:
        known = False
    if not known or shutil.which("apt-get", path=programs.path()) is None:
        return "this is not Debian or a relative of it"
    return ""


def ensure(run: Callable[[list[str]], None] | None = None) -> bool:
    """Install the packages if something is missing and it is possible here.

    Parameters
    ----------
    run : callable, optional
        Runs a command; a seam for tests.

    Returns
    -------
    bool
        Whether a container node can run here now. If not, why has been said.

    Raises
    ------
    ProcessError
        If apt-get fails, with its last lines.
    """
    absent = programs.missing()
    if not absent:
        return True
    reason = why_not()
    if reason:
        say(f"path 2 (containerd) will be skipped: {absent}; {reason}")
        return False
    run = run or _run
    with step(f"Install {', '.join(PACKAGES)} with apt-get"):
        apt = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", "install"]
        try:
            run([*apt, *PACKAGES])
        except ProcessError:
            # A fresh machine has no list of packages yet, and an old list names files that are gone.
            run(["apt-get", "-q", "update"])
            run([*apt, *PACKAGES])
    absent = programs.missing()
    if absent:
        say(f"path 2 (containerd) will be skipped: {absent}, although apt-get succeeded")
    return not absent


def _run(argv: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": programs.path()}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(
            f"{argv[0]} did not end within {_TIMEOUT_S:g} s",
            argv=argv,
            remedy=f"try it by hand, or set {SKIP}=1 to go on without path 2",
        ) from None
    if done.returncode:
        raise ProcessError(
            f"`{' '.join(argv)}` failed",
            argv=argv,
            returncode=done.returncode,
            log_tail="\n".join(done.stdout.splitlines()[-15:]),
            remedy=f"is the network up? Set {SKIP}=1 to go on without path 2",
        )


def main() -> int:
    """Install, and return an exit code: 0 also where nothing can be installed, for the lab runs without."""
    try:
        ensure()
    except ProcessError as error:
        print(f"{error}", file=sys.stderr)
        say("path 2 (containerd) will be skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
