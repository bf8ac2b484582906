"""Build the Go program that is the control plane, once, into the cache.

Guarantees: a binary that `ensure` returns is complete (it is renamed into place); two builders do not build twice
(file lock); a change of the Go sources, their dependencies or the compiler's release builds anew; an interrupted
build leaves no half binary and continues where it was, because Go caches packages. A program that is installed as the
package ``wasmlab-kube`` and was built from the same sources is taken instead.

``python -m wasmlab.cluster.binary`` builds and prints the path.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from wasmlab.cluster import gotoolchain, prebuilt
from wasmlab.console import Meter, mark, say
from wasmlab.errors import PrerequisiteError, ProcessError
from wasmlab.memory import usable_bytes
from wasmlab.paths import cache_dir, file_lock

SOURCES = Path(__file__).with_name("kube")
NAME = "wasmlab-kube"
OVERRIDE = "WASMLAB_KUBE"
_LOCK_TIMEOUT_S = 3600.0
_TAIL_LINES = 25
_KEEP = 3
# The largest packages take about this much to compile.
_COMPILER_BYTES = 1024**3


def key(go: gotoolchain.Go) -> str:
    """Return what a binary is known by: sources, dependencies, compiler release, architecture."""
    return f"{prebuilt.sources_digest(SOURCES)}-{go.tag}"


def find() -> Path | None:
    """Return the binary if it is there already, without building or installing anything."""
    if there := _override() or prebuilt.find():
        return there
    go = gotoolchain.system() or gotoolchain.cached()
    if go is None:
        return None
    path = cache_dir("kube", key(go)) / NAME
    return path if path.exists() else None


def ensure(*, progress: bool = True) -> Path:
    """Return the binary, building it first if need be: about 8 minutes on 2 cores.

    Parameters
    ----------
    progress : bool
        Say on stderr what is going on.

    Returns
    -------
    Path
        The executable. The environment variable ``WASMLAB_KUBE`` names another one.

    Raises
    ------
    PrerequisiteError
        If there is no Go compiler and none can be installed, or modules cannot be downloaded.
    ProcessError
        If the compiler fails; with its last lines.
    """
    if there := _override() or prebuilt.find():
        return there
    go = gotoolchain.find(progress=progress)
    path = cache_dir("kube", key(go)) / NAME
    if path.exists():
        return path
    with file_lock(path.parent / "lock", _LOCK_TIMEOUT_S, what="the build of the control plane"):
        if not path.exists():
            _build(go, path, progress)
            _prune(path)
    return path


def _prune(current: Path) -> None:
    """Remove all but the newest few binaries: they are 160 MB each, and every change of the sources makes one."""
    others = [path for path in current.parent.parent.glob(f"*/{NAME}") if path != current]
    for path in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True)[_KEEP - 1 :]:
        # The lock beside it stays, since somebody may be waiting for it. A process that runs from it goes on.
        path.unlink(missing_ok=True)


def _override() -> Path | None:
    value = os.environ.get(OVERRIDE)
    if not value:
        return None
    if not os.access(value, os.X_OK):
        raise PrerequisiteError(
            f"{OVERRIDE} names {value}, which is not an executable file",
            remedy=f"unset {OVERRIDE}, or correct it",
        )
    return Path(value).absolute()


def _build(go: gotoolchain.Go, path: Path, progress: bool) -> None:
    started = time.monotonic()
    # GOFLAGS, GOPROXY and the cache locations stay as the user has them.
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    meter = _Meter(progress, started)
    # Listing the packages downloads the modules they are in, and tells how many there are to compile.
    packages = _run(go, ["list", "-deps", "."], env, meter.downloading)
    meter.count(len(packages))
    partial = path.with_name(f".{NAME}.{os.getpid()}")
    kubernetes = _kubernetes_version()
    stamp = "k8s.io/component-base/version"
    flags = (
        f"-s -w -X {stamp}.gitVersion={kubernetes} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor="
        + (kubernetes.split(".")[1])
    )
    try:
        argv = ["build", *_at_once(), "-v", "-trimpath", "-ldflags", flags, "-o", str(partial), "."]
        _run(go, argv, env, meter.compiling)
        partial.chmod(0o755)
        os.replace(partial, path)
    finally:
        meter.close()
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    meter.finish(path)


def _at_once() -> list[str]:
    """How many packages to compile at once: one a core, unless there is too little memory for that (as on Binder)."""
    if "-p=" in os.environ.get("GOFLAGS", ""):
        return []
    affordable = max(1, usable_bytes()[1] // _COMPILER_BYTES)
    return ["-p", str(affordable)] if affordable < len(os.sched_getaffinity(0)) else []


def _kubernetes_version() -> str:
    match = re.search(r"k8s\.io/kubernetes (v[\d.]+)", (SOURCES / "go.mod").read_text())
    assert match, "go.mod requires k8s.io/kubernetes"
    return match[1]


def _run(go: gotoolchain.Go, args: list[str], env: dict[str, str], seen: Callable[[str], None]) -> list[str]:
    """Run ``go args`` and hand every line of stderr to `seen`; return the lines of stdout."""
    argv = [str(go.path), *args]
    with _group(argv, env) as process:
        out: list[str] = []
        reader = threading.Thread(target=lambda: out.extend(process.stdout or ()), daemon=True)
        reader.start()
        last: deque[str] = deque(maxlen=_TAIL_LINES)
        for line in process.stderr or ():
            last.append(line.rstrip())
            seen(line.rstrip())
        reader.join()
        code = process.wait()
    if code:
        raise ProcessError(
            f"building the control plane failed at `go {args[0]}`",
            argv=argv,
            returncode=code,
            log_tail="\n".join(last),
            remedy=_advice("\n".join(last)),
        )
    return [line.strip() for line in out]


@contextlib.contextmanager
def _group(argv: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose whole process group (Go starts compilers) ends with the body, Ctrl-C included."""
    # A Ctrl-C while it starts would leave a group that nobody knows and no terminal reaches: it has to wait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            argv, cwd=SOURCES, env=env, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)


def _advice(text: str) -> str:
    if "no space left" in text:
        return "free some space: the Go caches need 4 GB (or point GOCACHE, GOMODCACHE and TMPDIR elsewhere)"
    if "signal: killed" in text:
        return "the system ended the compiler, probably for want of memory: try again with GOFLAGS=-p=1"
    if re.search(r"dial tcp|no such host|proxyconnect|i/o timeout|connection refused|TLS handshake", text):
        return "the Go module proxy was not reachable: check the network, or set GOPROXY; then try again"
    return "try again; if it fails in the same way, `go clean -cache` and try once more"


class _Meter:
    """Progress on stderr: how much is compiled, and how long the rest takes."""

    def __init__(self, shown: bool, started: float) -> None:
        self.shown = shown
        self.started = started
        self.downloads = 0
        self.compiled = 0
        self._line = Meter("Build the control plane", quiet=not shown)
        if shown:
            say(" … Build the control plane (once; about 8 minutes on 2 cores)")

    def downloading(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self.downloads += 1
            self._line.show(0, f"{self.downloads} modules downloaded")

    def count(self, packages: int) -> None:
        self._line.count(packages)

    def compiling(self, line: str) -> None:
        if line and not line.startswith(("go: ", "#", "\t")):
            self.compiled += 1
            self._line.show(
                self.compiled, f"{self.compiled} of at most {self._line.total} packages compiled, last {line}"
            )

    def close(self) -> None:
        self._line.close()

    def finish(self, path: Path) -> None:
        if self.shown:
            size_mb = path.stat().st_size / 1e6
            say(
                f" {mark(True)} Build the control plane  ({time.monotonic() - self.started:.0f} s, {size_mb:.0f} MB)"
            )


def main() -> None:
    """Build and print the path of the binary."""
    from wasmlab.errors import WasmlabError

    try:
        print(ensure())
    except WasmlabError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("wasmlab: interrupted; the next build continues where this one stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
