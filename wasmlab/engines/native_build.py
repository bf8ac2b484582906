"""Build the native wasmer binding (the crate in ``native/``), once, into the cache.

Guarantees: what `ensure` returns is complete (it is renamed into place); two builders do not build twice (file lock); a
change of the crate's sources or dependencies builds anew; an interrupted build leaves no half binding and continues
where it was, because cargo keeps what it compiled.

``python -m wasmlab.engines.native_build`` builds and prints the directory that holds ``wasmer_native.abi3.so`` and, to
be installed elsewhere, the wheel.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from wasmlab import wheelfile
from wasmlab.console import Meter, mark, say
from wasmlab.engines.native_binding import (
    KEY_FILE,
    LIBRARY,
    MODULE,
    SOURCES,
    installed,
    key,
    version,
    wasmer_version,
)
from wasmlab.errors import PrerequisiteError, ProcessError
from wasmlab.paths import cache_dir, file_lock

# Cargo.toml's rust-version; an older compiler would say so only after it fetched everything.
MINIMUM = (1, 95)
_LOCK_TIMEOUT_S = 7200.0
_TAIL_LINES = 25
_PACKAGE = f"""from .{MODULE} import *
from .{MODULE} import WASMER_VERSION, __version__

__doc__ = {MODULE}.__doc__
"""


def ensure(*, progress: bool = True) -> Path:
    """Return the directory of the binding, building it first if need be: about 12 minutes of one CPU.

    Parameters
    ----------
    progress : bool
        Say on stderr what is going on.

    Raises
    ------
    PrerequisiteError
        If there is no Rust compiler that is new enough, or crates cannot be downloaded.
    ProcessError
        If the compiler fails; with its last lines.
    """
    if library := installed():
        return library.parent
    directory = cache_dir("native") / key()
    if (directory / LIBRARY).exists():
        return directory
    cargo = _cargo()
    with file_lock(directory.parent / "lock", _LOCK_TIMEOUT_S, what="the build of the native wasmer binding"):
        if not (directory / LIBRARY).exists():  # another process was faster
            _build(cargo, directory, progress)
    return directory


def _cargo() -> str:
    cargo = shutil.which("cargo")
    remedy = (
        f"install Rust {MINIMUM[0]}.{MINIMUM[1]} or newer (https://rustup.rs) and a C compiler; "
        "until then engine wasmer runs by the package wasmer-sdk"
    )
    if cargo is None:
        raise PrerequisiteError("the native wasmer binding needs a Rust compiler, and there is none on PATH",
                                remedy=remedy)  # fmt: skip
    try:
        said = subprocess.run([cargo, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrerequisiteError(f"{cargo} does not run: {error}", remedy=remedy) from error
    match = re.match(r"cargo (\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM:
        raise PrerequisiteError(
            f"the native wasmer binding needs Rust {MINIMUM[0]}.{MINIMUM[1]}; {cargo} is {said.strip() or 'silent'}",
            remedy=remedy,
        )
    return cargo


def _build(cargo: str, directory: Path, progress: bool) -> None:
    started = time.monotonic()
    target = cache_dir("native", "target")
    lock = tomllib.loads((SOURCES / "Cargo.lock").read_text())
    meter = _Meter(progress, started, len(lock["package"]))
    argv = [cargo, "build", "--release", "--locked", "--manifest-path", str(SOURCES / "Cargo.toml"),
            "--target-dir", str(target)]  # fmt: skip
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with contextlib.closing(meter), _group(argv) as process:
        for line in process.stderr or ():
            last.append(line.rstrip())
            meter.saw(line)
        code = process.wait()
    if code:
        raise ProcessError(
            "building the native wasmer binding failed",
            argv=argv,
            returncode=code,
            log_tail="\n".join(last),
            remedy=_advice("\n".join(last)),
        )
    library = (target / "release" / f"lib{MODULE}.so").read_bytes()
    # Only the rename at the end makes it visible.
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".installing-") as scratch:
        work = Path(scratch, "work")
        work.mkdir(mode=0o700)
        (work / LIBRARY).write_bytes(library)
        write_wheel(library, work)
        shutil.rmtree(directory, ignore_errors=True)
        work.rename(directory)
    meter.finish(len(library))


def write_wheel(library: bytes, folder: Path) -> Path:
    """Write the wheel that holds `library` and return its path; it is reproducible byte for byte.

    The layout is that of maturin: a package around the library, because type checkers read the stubs of packages only.

    """
    about = (
        "Summary: The Wasmer WebAssembly runtime for Python 3.11 and newer, with its phases apart\n"
        "License-Expression: Apache-2.0\nRequires-Python: >=3.11\nDescription-Content-Type: text/markdown\n\n"
    )
    files = {
        f"{MODULE}/__init__.py": _PACKAGE.encode(),
        f"{MODULE}/__init__.pyi": (SOURCES / f"{MODULE}.pyi").read_bytes(),
        f"{MODULE}/py.typed": b"",
        f"{MODULE}/{LIBRARY}": library,
        f"{MODULE}/{KEY_FILE}": key().encode(),
    }
    return wheelfile.write(
        folder,
        name="wasmer-native",
        version=version(),
        tag=f"cp311-abi3-{wheelfile.platform_tag(library)}",
        metadata=about + (SOURCES / "README.md").read_text(),
        files=files,
        executable=[f"{MODULE}/{LIBRARY}"],
    )


@contextlib.contextmanager
def _group(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose whole process group (cargo starts compilers) ends with the body, Ctrl-C included."""
    process = subprocess.Popen(
        argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)


def _advice(text: str) -> str:
    if "linker `cc` not found" in text or 'failed to find tool "cc"' in text:
        return "install a C compiler (on Debian: apt-get install gcc libc6-dev)"
    if "No space left" in text or "no space left" in text:
        return "free some space: the build needs 2 GB below the cache directory"
    if "signal: 9" in text or "SIGKILL" in text:
        return "the system ended the compiler, probably for want of memory: try again with CARGO_BUILD_JOBS=1"
    if re.search(
        r"failed to (download|fetch|get)|Could not resolve|[Cc]ouldn't connect|timed? ?out|network", text
    ):
        return "the crate registry was not reachable: check the network, then try again"
    return "try again; until it works, engine wasmer runs by the package wasmer-sdk"


class _Meter:
    """Progress on stderr: how much is compiled, and how long the rest takes."""

    def __init__(self, shown: bool, started: float, total: int) -> None:
        self.shown, self.started, self.total = shown, started, total
        self.compiled = 0
        self._line = Meter("Build the native wasmer binding", total, quiet=not shown)
        if shown:
            say(" … Build the native wasmer binding (once; about 12 minutes of one CPU)")

    def saw(self, line: str) -> None:
        match = re.match(r"\s+Compiling (\S+)", line)
        if match:
            self.compiled += 1
            self._line.show(self.compiled, f"{self.compiled} of at most {self.total} crates, now {match[1]}")

    def close(self) -> None:
        self._line.close()

    def finish(self, size_bytes: int) -> None:
        if self.shown:
            took_s = time.monotonic() - self.started
            say(f" {mark(True)} Build the native wasmer binding  ({took_s:.0f} s, {size_bytes / 1e6:.0f} MB)")


def main() -> None:
    """Build and print the directory; ``--json`` also tells the wheel and the versions.

    With ``--if-possible`` it is no failure that this machine has no Rust compiler.
    """
    from wasmlab.errors import WasmlabError

    try:
        directory = ensure()
    except PrerequisiteError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(0 if "--if-possible" in sys.argv[1:] else 1)
    except WasmlabError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("wasmlab: interrupted; the next build continues where this one stopped", file=sys.stderr)
        sys.exit(130)
    if "--json" in sys.argv[1:]:
        wheel = next(directory.glob("*.whl"), None)
        print(json.dumps({"directory": str(directory), "wheel": str(wheel) if wheel else None,
                          "version": version(), "wasmer": wasmer_version()}))  # fmt: skip
    else:
        print(directory)


if __name__ == "__main__":
    main()
