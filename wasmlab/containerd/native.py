"""Compile C to a static program for this machine: the pause image's, and runc's arm in comparisons.

The same compiler makes both sides of a comparison, ``data/wasm/hello.c`` as a module and as a native program.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from wasmlab.errors import PrerequisiteError, ProcessError
from wasmlab.modules.build import compiler
from wasmlab.oci.image import Image, scratch_image
from wasmlab.paths import atomic_write, cache_dir

_FLAGS = ("-static", "-std=gnu17", "-O2", "-s", "-Wall", "-Wextra")
# The compiler's first native program brings its C library along: half a minute alone, more on a busy machine.
_TIMEOUT_S = 600.0
#: What the kernel calls a machine -> what Go calls it.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return this machine's architecture in Go's names, which images use.

    Raises
    ------
    PrerequisiteError
        If it is one that the lab does not know.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise PrerequisiteError(
            f"no container node for {machine}", remedy=f"use one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[machine]


def program(source: Path) -> Path:
    """Return the program made from one C file, compiled if the cache does not have it.

    Raises
    ------
    PrerequisiteError
        If the compiler is missing.
    ProcessError
        If it fails.
    """
    text = "\0".join((compiler(), platform.machine(), *_FLAGS))
    key = hashlib.sha256(text.encode() + source.read_bytes()).hexdigest()[:16]
    path = cache_dir("native") / f"{source.stem}-{key}"
    if path.exists():
        return path
    zig_cache = cache_dir("zig")
    env = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(zig_cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache_dir("zig", "local")),
    }
    with tempfile.TemporaryDirectory(dir=zig_cache, prefix="out-") as scratch:
        out = Path(scratch) / "program"
        argv = [
            sys.executable, "-m", "ziglang", "cc", f"--target={platform.machine()}-linux-musl",
            *_FLAGS, "-o", str(out), str(source),
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


def image(source: Path) -> Image:
    """Return an image for this machine whose only file is the program made from `source`, and which runs it."""
    path = f"/{source.stem}"
    return scratch_image({path: program(source).read_bytes()}, cmd=[path], architecture=architecture())
