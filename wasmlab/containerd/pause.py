"""The image of a pod's first container, built here from ten lines of C, so that no registry is needed for it."""

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

SOURCE = Path(__file__).with_name("pause.c")
NAME = "wasmlab.dev/pause:1"
_TIMEOUT_S = 300.0
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
        raise PrerequisiteError(f"no container node for {machine}", remedy=f"use one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def image() -> Image:
    """Return the pause image for this machine, compiling its program if the cache does not have it.

    Raises
    ------
    PrerequisiteError, ProcessError
        If there is no compiler, or it fails.
    """
    return scratch_image({"/pause": program().read_bytes()}, entrypoint=["/pause"], architecture=architecture())


def program() -> Path:
    """Return the statically linked program."""
    key = hashlib.sha256(f"{compiler()}\0{platform.machine()}\0".encode() + SOURCE.read_bytes()).hexdigest()[:16]
    path = cache_dir("pause") / f"pause-{key}"
    if path.exists():
        return path
    zig_cache = cache_dir("zig")
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(zig_cache), "ZIG_LOCAL_CACHE_DIR": str(cache_dir("zig", "local"))}
    with tempfile.TemporaryDirectory(dir=zig_cache, prefix="out-") as scratch:
        out = Path(scratch) / "pause"
        argv = [
            sys.executable, "-m", "ziglang", "cc", f"--target={platform.machine()}-linux-musl",
            "-static", "-Os", "-s", "-Wall", "-Wextra", "-o", str(out), str(SOURCE),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"compiling pause.c did not end within {_TIMEOUT_S:g} s", argv=argv, remedy="try again when idle"
            ) from None
        if done.returncode or not out.exists():
            raise ProcessError(
                "compiling pause.c failed", argv=argv, returncode=done.returncode, log_tail=done.stderr[-2000:]
            )
        atomic_write(path, out.read_bytes(), mode=0o755)
    return path
