"""Install the WASM shim's executables where a containerd looks for them."""

from __future__ import annotations

import sys
from pathlib import Path

from wasmlab.containerd.runtimeclass import HANDLERS as HANDLERS
from wasmlab.paths import atomic_write


def executable(runtime_type: str) -> str:
    """Return the executable's name for a runtime type: ``io.containerd.wasm.v1`` -> ``containerd-shim-wasm-v1``."""
    name, version = runtime_type.rsplit(".", 2)[-2:]
    return f"containerd-shim-{name}-{version}"


def install(directory: Path) -> list[Path]:
    """Write one small executable per handler into `directory` and return their paths.

    Each runs ``wasmlab/shim/entry.py`` under this very interpreter, without site packages: it has to be cheap, and it
    needs nothing but the standard library.
    """
    import wasmlab

    entry = Path(wasmlab.__file__).parent / "shim" / "entry.py"
    made = []
    for kind in HANDLERS.values():
        path = directory / executable(kind)
        # exec by the shell costs a millisecond; a script of Python would be compiled anew at every start.
        atomic_write(path, f'#!/bin/sh\nexec "{sys.executable}" -IS "{entry}" "$0" "$@"\n', mode=0o755)
        made.append(path)
    return made
