"""What containerd calls the WASM shim's executables, and putting them where it looks."""

from __future__ import annotations

from pathlib import Path

from wasmlab.containerd import native
from wasmlab.containerd.runtimeclass import HANDLERS as HANDLERS


def executable(runtime_type: str) -> str:
    """Return the executable's name for a runtime type: ``io.containerd.wasm.v1`` -> ``containerd-shim-wasm-v1``.

    References
    ----------
    containerd, core/runtime/v2: BinaryName.
    """
    name, version = runtime_type.rsplit(".", 2)[-2:]
    return f"containerd-shim-{name}-{version}"


def install(directory: Path) -> list[Path]:
    """Put one executable per handler into `directory` and return their paths.

    Raises
    ------
    PrerequisiteError, ProcessError
        If the launcher, a static program, cannot be compiled.
    """
    from wasmlab.shim import install as shim

    made = shim.install(directory, launcher=native.program(shim.LAUNCHER_SOURCE))
    wanted = {executable(kind) for kind in HANDLERS.values()}
    assert wanted <= {path.name for path in made}, "the shim has an executable for each handler"
    return made
