"""The installer's image: the bundle, and the C library that its Python needs, in one layer on nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from wasmlab.containerd import native
from wasmlab.containerd.installmanifests import PYTHON
from wasmlab.oci.image import Image, scratch_image

_GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1")
_TIMEOUT_S = 60.0


def installer_image(bundle: Path) -> Image:
    """Return the image for this machine's architecture.

    Parameters
    ----------
    bundle : Path
        As `wasmlab.containerd.bundle.make` wrote it.
    """
    files = {
        f"/opt/wasmlab-shim/{path.relative_to(bundle)}": path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file()
    }
    files |= {path: Path(os.path.realpath(path)).read_bytes() for path in c_library()}
    return scratch_image(
        files,
        entrypoint=[PYTHON],
        env={"PYTHONPATH": "/opt/wasmlab-shim/site"},
        architecture=native.architecture(),
    )


def c_library() -> list[str]:
    """Return the paths of this machine's C library and its loader."""
    said = subprocess.run(
        ["ldd", os.path.realpath(sys.executable)],
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
    ).stdout
    loader = re.findall(r"(/\S+/ld-\S+)", said)
    directory = Path(next(path for path in re.findall(r"=> (/\S+)", said) if "libc.so" in path)).parent
    return [*loader, *(str(directory / name) for name in _GLIBC if (directory / name).exists())]
