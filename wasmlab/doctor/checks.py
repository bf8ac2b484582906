"""The checks behind ``wasmlab doctor``: each looks at the real thing and says what it found.

A check never changes the machine and never raises: a check that fails unexpectedly is itself a finding, because a
doctor that crashes helps nobody.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "limited", "missing"]

_GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        What was looked at.
    state : {"ok", "limited", "missing"}
        ``limited``: the lab runs, with the restriction that `detail` names.
    detail : str
        What was found, and why it matters.
    remedy : str
        What to do; empty if there is nothing to do.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


def _python() -> Iterator[Finding]:
    ok = sys.version_info >= (3, 11)
    yield Finding(
        "Python",
        "ok" if ok else "missing",
        f"{platform.python_version()} ({platform.python_implementation()})",
        "" if ok else "install Python 3.11 or newer",
    )


def _platform() -> Iterator[Finding]:
    ok = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
    yield Finding(
        "Platform",
        "ok" if ok else "missing",
        f"{platform.system()} {platform.release()} on {platform.machine()}",
        "" if ok else "use Linux on x86_64 or aarch64 (Binder or a virtual machine will do)",
    )


def _memory() -> Iterator[Finding]:
    from wasmlab.memory import usable_bytes

    total, available = usable_bytes()
    ok = available >= 1 * _GIB
    yield Finding(
        "Memory",
        "ok" if ok else "limited",
        f"{available / _GIB:.1f} GiB available of {total / _GIB:.1f} GiB; the control plane takes about 0.4 GiB",
        "" if ok else "close other programs, or run the notebooks one at a time",
    )


def _disk() -> Iterator[Finding]:
    from wasmlab.paths import cache_dir

    free = shutil.disk_usage(cache_dir()).free
    # A first build of the control plane needs the module cache, the build cache and the binary.
    enough = free >= 6 * _GIB or _kube_binary() is not None
    yield Finding(
        "Disk",
        "ok" if enough else "limited",
        f"{free / _GIB:.1f} GiB free where the cache is; the first build of the control plane needs about 5 GiB",
        "" if enough else "free some space, or set XDG_CACHE_HOME to a larger disk",
    )


def _kube_binary() -> Path | None:
    from wasmlab.cluster import binary

    return binary.find()


def _control_plane() -> Iterator[Finding]:
    found = _kube_binary()
    if found is not None:
        yield Finding(
            "Control plane", "ok", f"built, {found.stat().st_size / 1e6:.0f} MB: Kubernetes in one process"
        )
        return
    yield Finding(
        "Control plane",
        "limited",
        "not built yet; the first use builds it (about 8 minutes on 2 cores, once)",
        "make kube",
    )


def _engines() -> Iterator[Finding]:
    from wasmlab.sandbox.report import doctor

    for report in doctor():
        lacks = "; ".join(f"{name}: {reason}" for name, reason in report.lacks.items())
        if not report.works:
            yield Finding(f"Engine {report.name}", "missing", report.reason, report.remedy)
        elif lacks:
            yield Finding(f"Engine {report.name}", "limited", f"{report.version} runs here; lacks {lacks}")
        else:
            yield Finding(f"Engine {report.name}", "ok", f"{report.version} runs here, with every capability")


def _compiler() -> Iterator[Finding]:
    import importlib.util

    ok = importlib.util.find_spec("ziglang") is not None
    yield Finding(
        "C compiler for WASM",
        "ok" if ok else "limited",
        "zig cc --target=wasm32-wasi, from the package ziglang" if ok else "the package ziglang is missing",
        "" if ok else "pip install ziglang (only needed to rebuild modules)",
    )


def _container_client() -> Iterator[Finding]:
    found = [name for name in ("skopeo", "podman", "ctr") if shutil.which(name)]
    yield Finding(
        "Container client",
        "ok" if found else "limited",
        ", ".join(found) if found else "none found: notebook 03 shows recorded output instead, marked so",
        "" if found else "apt-get install skopeo",
    )


def _cgroup() -> Iterator[Finding]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    yield Finding("cgroup", "ok", "v2 (unified)" if unified else "v1 or hybrid")


def _containerd_path() -> Iterator[Finding]:
    from wasmlab.containerd import programs

    missing = programs.missing()
    if not missing:
        yield Finding("Path 2 (containerd)", "ok", "root, containerd, runc and the CNI plugins are here")
        return
    yield Finding(
        "Path 2 (containerd)",
        "limited",
        f"{missing}; path 1 and the engines run without it",
        "as root on Debian: make containerd",
    )


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _platform,
    _python,
    _memory,
    _disk,
    _cgroup,
    _control_plane,
    _engines,
    _compiler,
    _container_client,
    _containerd_path,
)


def check() -> list[Finding]:
    """Look at everything and return the findings in a fixed order.

    Returns
    -------
    list of Finding
        One or more per check.
    """
    findings: list[Finding] = []
    for one in _CHECKS:
        try:
            findings.extend(one())
        except Exception as error:  # a doctor reports even what it did not foresee
            name = one.__name__.strip("_").replace("_", " ").capitalize()
            findings.append(Finding(name, "missing", f"the check failed: {type(error).__name__}: {error}"))
    return findings
