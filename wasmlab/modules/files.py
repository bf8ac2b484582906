"""Where the lab's data files and notebooks are: in the checkout, or in the package if that came as a wheel."""

from __future__ import annotations

import os
from pathlib import Path

from wasmlab.errors import PrerequisiteError

# Below the package. Only wheels and source distributions have it (wasmlab.release puts it there).
MATERIAL = "_material"
_PACKAGE = Path(__file__).resolve().parents[1]


def root() -> Path:
    """Return the directory that ``data/`` and ``notebooks/`` are in: the checkout, or a part of the package."""
    material = _PACKAGE / MATERIAL
    return material if material.is_dir() else _PACKAGE.parent


def data_dir(*parts: str) -> Path:
    """Return ``data/<parts>`` of the lab (or of ``$WASMLAB_DATA``).

    Raises
    ------
    PrerequisiteError
        If it does not exist: the package was installed without its checkout.
    """
    override = os.environ.get("WASMLAB_DATA")
    base = Path(override) if override else root() / "data"
    path = base.joinpath(*parts)
    if not path.exists():
        raise PrerequisiteError(
            f"there is no {path}",
            remedy="work in a checkout of wasmlab, or set WASMLAB_DATA to the data directory of one",
        )
    return path


def fixture(name: str) -> Path:
    """Return the path of a test module, ``data/wasm/fixtures/<name>.wasm``."""
    return data_dir("wasm", "fixtures", f"{name}.wasm")
