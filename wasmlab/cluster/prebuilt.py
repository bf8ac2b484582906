"""The control plane as an installed package, ``wasmlab-kube``, so that nobody has to build it.

The wheel carries the program and what it was built from. A wasmlab whose Go sources are others does not take it: then
the program is built, as it is without the package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path

from wasmlab import wheelfile

SOURCES = Path(__file__).with_name("kube")
NAME = "wasmlab-kube"
PACKAGE = "wasmlab_kube"
_ABOUT = "built.json"
_METADATA = """Summary: The control plane of wasmlab: Kubernetes, etcd and a registry in one program
License-Expression: Apache-2.0
Requires-Python: >=3.11
Description-Content-Type: text/markdown

# wasmlab-kube

Kubernetes' API server, scheduler and controller manager, etcd, kubectl, kubelet and a registry, linked into one program
that an ordinary user can run. `wasmlab` finds it here, as long as it was built from the sources that `wasmlab` carries.
"""


def sources_digest(sources: Path = SOURCES) -> str:
    """Return what a program is known by, whoever compiled it: the Go sources and their dependencies."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        if path.suffix == ".go" or path.name in ("go.mod", "go.sum"):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find() -> Path | None:
    """Return the installed program if it was built for this machine from the sources that are here."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    try:
        about = json.loads((package / _ABOUT).read_text())
    except (OSError, ValueError):
        return None
    program = package / NAME
    return program if about == _about() and os.access(program, os.X_OK) else None


def write_wheel(program: Path, folder: Path, version: str) -> Path:
    """Write the wheel that holds a program which was built from the sources that are here, and return its path."""
    data = program.read_bytes()
    files = {
        f"{PACKAGE}/__init__.py": b'"""The control plane of wasmlab. See wasmlab.cluster.prebuilt."""\n',
        f"{PACKAGE}/{_ABOUT}": json.dumps(_about()).encode(),
        f"{PACKAGE}/{NAME}": data,
    }
    return wheelfile.write(
        folder,
        name=NAME,
        version=version,
        tag=f"py3-none-{wheelfile.platform_tag(data)}",
        metadata=_METADATA,
        files=files,
        executable=[f"{PACKAGE}/{NAME}"],
    )


def _about() -> dict[str, str]:
    return {"sources": sources_digest(), "machine": os.uname().machine}
