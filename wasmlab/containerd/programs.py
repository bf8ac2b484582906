"""Find the programs that a container node needs, or say which are missing and how to get them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wasmlab.errors import PrerequisiteError

_CNI_DIRS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
# Debian keeps some of them where an ordinary user's PATH does not look.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APT = "apt-get install -y containerd runc containernetworking-plugins iproute2"


@dataclass(frozen=True)
class Programs:
    """Where they are."""

    containerd: Path
    ctr: Path
    runc: Path
    ip: Path
    cni: Path
    major: int
    version: str


def path() -> str:
    """Return the PATH on which programs are looked for."""
    return f"{os.environ.get('PATH', '')}:{_PATH}"


def which(name: str) -> Path | None:
    """Return a program's path, or None."""
    found = shutil.which(name, path=path())
    return Path(found) if found else None


def cni_dir() -> Path | None:
    """Return the directory of the CNI plugins, or None if some are missing."""
    for directory in _CNI_DIRS:
        if all(os.access(directory / plugin, os.X_OK) for plugin in _CNI_PLUGINS):
            return directory
    return None


def missing() -> str:
    """Return why a container node cannot run here, or an empty string if it can.

    Says nothing about whether the kubelet has been built.
    """
    if os.geteuid() != 0:
        return "a container node needs root (mounts, namespaces, cgroups)"
    absent = [name for name in ("containerd", "ctr", "runc", "ip") if which(name) is None]
    if cni_dir() is None:
        absent.append("CNI plugins (bridge, host-local, loopback)")
    return f"not installed: {', '.join(absent)}" if absent else ""


def find(containerd: str | Path = "debian") -> Programs:
    """Return the programs.

    Parameters
    ----------
    containerd : {"debian", "2.x"} or path
        The system's; the one that `wasmlab.containerd.build` makes from its Go module; or a directory with
        ``containerd`` and ``ctr``.

    Raises
    ------
    PrerequisiteError
        If something is missing.
    """
    if why := missing():
        raise PrerequisiteError(f"cannot run a container node here: {why}", remedy=f"as root: {_APT}")
    if str(containerd) == "debian":
        daemon, control = which("containerd"), which("ctr")
    else:
        if str(containerd) == "2.x":
            from wasmlab.containerd import build

            directory = build.ensure()
        else:
            directory = Path(containerd)
        daemon, control = directory / "containerd", directory / "ctr"
    runc, ip, cni = which("runc"), which("ip"), cni_dir()
    if not (daemon and control and runc and ip and cni):
        raise PrerequisiteError("a program has just disappeared", remedy=f"as root: {_APT}")
    version = _version(daemon)
    return Programs(daemon, control, runc, ip, cni, int(version.split(".")[0]), version)


def _version(daemon: Path) -> str:
    try:
        done = subprocess.run([str(daemon), "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrerequisiteError(f"{daemon} does not run: {error}", remedy=f"as root: {_APT}") from error
    match = re.search(r"\sv?(\d+\.\d+\.\d+[^\s~+]*)", done.stdout)
    if done.returncode or not match:
        raise PrerequisiteError(
            f"{daemon} does not say its version: {(done.stdout or done.stderr).strip()}",
            remedy=f"as root: {_APT}",
        )
    return match[1]
