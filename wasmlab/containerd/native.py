"""Static programs for this machine: the pause image's, and runc's arm in comparisons.

The same compiler makes both sides of a comparison, ``data/wasm/hello.c`` as a module and as a native program.
"""

from __future__ import annotations

import platform
from pathlib import Path

from wasmlab.errors import PrerequisiteError
from wasmlab.modules.hostprogram import program as program
from wasmlab.oci.image import Image, scratch_image

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


def image(source: Path) -> Image:
    """Return an image for this machine whose only file is the program made from `source`, and which runs it."""
    path = f"/{source.stem}"
    return scratch_image({path: program(source).read_bytes()}, cmd=[path], architecture=architecture())
