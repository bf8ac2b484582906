"""Where the lab's data files are."""

from __future__ import annotations

import os
from pathlib import Path

from wasmlab.errors import PrerequisiteError


def data_dir(*parts: str) -> Path:
    """Return ``data/<parts>`` of the checkout (or of ``$WASMLAB_DATA``).

    Raises
    ------
    PrerequisiteError
        If it does not exist: the package was installed without its checkout.
    """
    override = os.environ.get("WASMLAB_DATA")
    base = Path(override) if override else Path(__file__).resolve().parents[2] / "data"
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
