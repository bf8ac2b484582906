"""Build containerd 2 from its Go module, once, into the cache: Debian's containerd sends no container events.

Guarantees as `wasmlab.cluster.binary`: what `ensure` returns is complete, two builders do not build twice, a change of
the module's version, its dependencies or the compiler's release builds anew.

``python -m wasmlab.containerd.build`` builds and prints the directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from wasmlab.cluster import gotoolchain
from wasmlab.cluster.binary import _advice
from wasmlab.console import step
from wasmlab.errors import ProcessError
from wasmlab.paths import cache_dir, file_lock

SOURCES = Path(__file__).with_name("go")
MODULE = "github.com/containerd/containerd/v2"
PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2")
# What needs C libraries or is of no use to a lab.
_TAGS = "urfave_cli_no_docs,no_btrfs,no_devmapper,no_zfs"
_LOCK_TIMEOUT_S = 3600.0
_BUILD_TIMEOUT_S = 3600.0
_TAIL_BYTES = 3000


def version() -> str:
    """Return the version that is built, e.g. ``v2.4.2``."""
    match = re.search(rf"{re.escape(MODULE)} (v[\d.]+)", (SOURCES / "go.mod").read_text())
    assert match, "go.mod requires containerd"
    return match[1]


def key(go: gotoolchain.Go) -> str:
    """Return what a build is known by: dependencies, tags, compiler release, architecture."""
    digest = hashlib.sha256(_TAGS.encode())
    for name in ("go.mod", "go.sum"):
        digest.update((SOURCES / name).read_bytes() + b"\0")
    return f"{digest.hexdigest()[:16]}-{go.tag}"


def find() -> Path | None:
    """Return the directory with the programs if they have been built, without building or installing anything."""
    go = gotoolchain.system() or gotoolchain.cached()
    if go is None:
        return None
    directory = cache_dir("containerd") / key(go)
    return directory if directory.exists() else None


def ensure(*, progress: bool = True) -> Path:
    """Return the directory with containerd, ctr and runc's shim, building them if need be: 2-3 minutes on 2 cores.

    Raises
    ------
    PrerequisiteError
        If there is no Go compiler and none can be installed.
    ProcessError
        If the compiler fails, or modules cannot be downloaded; with its last lines.
    """
    go = gotoolchain.find(progress=progress)
    parent = cache_dir("containerd")
    directory = parent / key(go)
    if directory.exists():
        return directory
    with file_lock(parent / "lock", _LOCK_TIMEOUT_S, what="the build of containerd"):
        if not directory.exists():
            # Only the rename makes it visible.
            partial = Path(tempfile.mkdtemp(dir=parent, prefix=".building-"))
            try:
                with step(
                    f"Build containerd {version()} (once; about 3 minutes on 2 cores)", quiet=not progress
                ):
                    _build(go, partial)
                partial.chmod(0o755)
                partial.rename(directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return directory


def _build(go: gotoolchain.Go, out: Path) -> None:
    stamp = f"{MODULE}/version"
    flags = f"-s -w -X {stamp}.Version={version()} -X {stamp}.Package={MODULE}"
    argv = [
        str(go.path), "build", "-mod=readonly", "-trimpath", "-tags", _TAGS, "-ldflags", flags,
        "-o", f"{out}/", *(f"{MODULE}/cmd/{name}" for name in PROGRAMS),
    ]  # fmt: skip
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    process = subprocess.Popen(
        argv, cwd=SOURCES, env=env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ProcessError(
            f"building containerd did not end within {_BUILD_TIMEOUT_S:g} s",
            argv=argv,
            remedy="try again when idle",
        ) from None
    finally:
        if process.poll() is None:  # Go starts compilers: the whole group has to end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
    if process.returncode:
        raise ProcessError(
            "building containerd failed",
            argv=argv,
            returncode=process.returncode,
            log_tail=text[-_TAIL_BYTES:],
            remedy=_advice(text),
        )


def main() -> None:
    """Build and print the directory."""
    from wasmlab.errors import WasmlabError

    try:
        print(ensure())
    except WasmlabError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
