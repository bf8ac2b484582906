"""The image of a pod's first container, built here from ten lines of C, so that no registry is needed for it."""

from __future__ import annotations

from pathlib import Path

from wasmlab.containerd import native
from wasmlab.oci.image import Image

SOURCE = Path(__file__).with_name("pause.c")
NAME = "wasmlab.dev/pause:1"


def image() -> Image:
    """Return the pause image for this machine; its program comes from the cache, or is compiled.

    Raises
    ------
    PrerequisiteError, ProcessError
        If there is no compiler, or it fails.
    """
    return native.image(SOURCE)
