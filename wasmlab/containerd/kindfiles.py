"""Write what `kind create cluster` needs for nodes with the shim: its configuration, and what that mounts."""

from __future__ import annotations

from pathlib import Path

from wasmlab.cluster.kind import kind_config
from wasmlab.containerd import bundle as bundles
from wasmlab.containerd.config import handlers_table
from wasmlab.containerd.runtimeclass import runtime_classes
from wasmlab.paths import atomic_write


def write(out: Path, *, workers: int = 1, image: str | None = None, bundle: Path | None = None) -> Path:
    """Write ``kind.yaml``, ``runtimeclasses.yaml`` and, unless it is given, the bundle into `out`.

    Parameters
    ----------
    out : Path
        A directory.
    workers : int
        How many nodes run WASM.
    image : str, optional
        The nodes' image.
    bundle : Path, optional
        A bundle that exists; see `wasmlab.containerd.bundle`.

    Returns
    -------
    Path
        ``kind.yaml``. Paths in it are absolute: kind resolves relative ones against where it is called.

    Raises
    ------
    PrerequisiteError, ProcessError
        If the bundle cannot be made.
    """
    import yaml

    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if bundle is None:
        bundle = out / "bundle"
        if not bundle.exists():
            bundles.make(bundle)
    config = kind_config(
        bin_dir=str(bundle.absolute() / "bin"),
        programs=bundles.EXECUTABLES,
        bundle=str(bundle.absolute()),
        # The name of the CRI plugin before containerd 2, which translates it: it fits every image of kind.
        patches=[handlers_table(1)],
        workers=workers,
        image=image,
    )
    path = out / "kind.yaml"
    atomic_write(path, yaml.safe_dump(config, sort_keys=False), mode=0o644)
    classes = yaml.safe_dump_all(runtime_classes(), sort_keys=False)
    atomic_write(out / "runtimeclasses.yaml", classes, mode=0o644)
    return path
