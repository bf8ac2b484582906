"""Compile C to a program for this machine with the compiler that makes the modules; the result is cached."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wasmlab.errors import ProcessError
from wasmlab.paths import atomic_write, cache_dir

STATIC = ("-static", "-std=gnu17", "-O2", "-s", "-Wall", "-Wextra")
# The compiler's first native program brings its C library along: half a minute alone, more on a busy machine.
_TIMEOUT_S = 600.0


def path_of(source: Path, *, libc: str = "musl", flags: Sequence[str] = STATIC) -> Path:
    """Return where the program made from one C file is, or would be, in the cache."""
    text = "\0".join((platform.machine(), libc, *flags))
    key = hashlib.sha256(text.encode() + source.read_bytes()).hexdigest()[:16]
    return cache_dir("native") / f"{source.stem}-{key}"


def program(source: Path, *, libc: str = "musl", flags: Sequence[str] = STATIC) -> Path:
    """Return the program made from one C file, compiled if the cache does not have it.

    Parameters
    ----------
    source : Path
        The C file.
    libc : str
        Which C library, as the compiler calls it: ``musl``, ``gnu.2.28``.
    flags : sequence of str
        The compiler's flags.

    Raises
    ------
    PrerequisiteError
        If the compiler is missing.
    ProcessError
        If it fails.
    """
    path = path_of(source, libc=libc, flags=flags)
    if path.exists():
        return path
    from wasmlab.modules.build import compiler  # what only looks for a program pays for none of its imports

    compiler()
    zig_cache = cache_dir("zig")
    env = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(zig_cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache_dir("zig", "local")),
    }
    with tempfile.TemporaryDirectory(dir=zig_cache, prefix="out-") as scratch:
        out = Path(scratch) / "program"
        argv = [
            sys.executable, "-m", "ziglang", "cc", f"--target={platform.machine()}-linux-{libc}",
            *flags, "-o", str(out), str(source),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"compiling {source.name} did not end within {_TIMEOUT_S:g} s",
                argv=argv,
                remedy="try again when idle",
            ) from None
        if done.returncode or not out.exists():
            raise ProcessError(
                f"compiling {source.name} failed",
                argv=argv,
                returncode=done.returncode,
                log_tail="\n".join(done.stderr.splitlines()[-20:]),
            )
        atomic_write(path, out.read_bytes(), mode=0o755)
    return path
