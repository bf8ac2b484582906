"""WebAssembly on Kubernetes down two paths, and what each one costs.

Importing this package is cheap: every public name is loaded when it is first used.

>>> import wasmlab
>>> module = wasmlab.Module.from_file("data/wasm/hello.wasm")      # doctest: +SKIP
>>> with wasmlab.Cluster.embedded() as cluster:                     # doctest: +SKIP
...     cluster.kubectl("get", "nodes")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> where it lives.
_EXPORTS = {
    "Module": "wasmlab.modules",
    "Client": "wasmlab.oci",
    "AsyncClient": "wasmlab.oci",
    "Reference": "wasmlab.oci",
    "Sandbox": "wasmlab.sandbox",
    "RunSpec": "wasmlab.sandbox",
    "Preopen": "wasmlab.sandbox",
    "Outcome": "wasmlab.sandbox",
    "Cluster": "wasmlab.cluster",
    "NodeAgent": "wasmlab.node",
    "NodeConfig": "wasmlab.node",
    "WasmlabError": "wasmlab.errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster as Cluster
    from wasmlab.errors import WasmlabError as WasmlabError
    from wasmlab.modules import Module as Module
    from wasmlab.node import NodeAgent as NodeAgent
    from wasmlab.node import NodeConfig as NodeConfig
    from wasmlab.oci import AsyncClient as AsyncClient
    from wasmlab.oci import Client as Client
    from wasmlab.oci import Reference as Reference
    from wasmlab.sandbox import Outcome as Outcome
    from wasmlab.sandbox import Preopen as Preopen
    from wasmlab.sandbox import RunSpec as RunSpec
    from wasmlab.sandbox import Sandbox as Sandbox


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: Any) -> None:
    """Offer ``%%wasm`` and ``%wasmlab`` to a notebook: called by ``%load_ext wasmlab``."""
    shell.register_magics(importlib.import_module("wasmlab.notebooks.magics").WasmMagics)
