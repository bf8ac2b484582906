"""Registries and WASM artifacts: push, pull, inspect, and a content-addressed store of pulled modules.

The pure part (`reference`, `media_types`, `digest`, `artifact`, `component`, `auth`, `protocol`, `answers`) decides; it
never touches a socket or a file. `session` and `transfer` carry its decisions out over `transport`; `async_client` and,
for scripts and notebooks, `client` offer them.

>>> from wasmlab.oci import Reference
>>> Reference.parse("127.0.0.1:5000/hello:v1").repository
'hello'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "AsyncClient": "wasmlab.oci.async_client",
    "Client": "wasmlab.oci.client",
    "Inspected": "wasmlab.oci.results",
    "Pulled": "wasmlab.oci.results",
    "Pushed": "wasmlab.oci.results",
    "Timeouts": "wasmlab.oci.protocol",
    "Credentials": "wasmlab.oci.credentials",
    "Reference": "wasmlab.oci.reference",
    "Descriptor": "wasmlab.oci.artifact",
    "pack": "wasmlab.oci.artifact",
    "select_wasm_layer": "wasmlab.oci.artifact",
    "ModuleStore": "wasmlab.oci.store",
    "StoredModule": "wasmlab.oci.store",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from wasmlab.oci.artifact import Descriptor as Descriptor
    from wasmlab.oci.artifact import pack as pack
    from wasmlab.oci.artifact import select_wasm_layer as select_wasm_layer
    from wasmlab.oci.async_client import AsyncClient as AsyncClient
    from wasmlab.oci.client import Client as Client
    from wasmlab.oci.credentials import Credentials as Credentials
    from wasmlab.oci.protocol import Timeouts as Timeouts
    from wasmlab.oci.reference import Reference as Reference
    from wasmlab.oci.results import Inspected as Inspected
    from wasmlab.oci.results import Pulled as Pulled
    from wasmlab.oci.results import Pushed as Pushed
    from wasmlab.oci.store import ModuleStore as ModuleStore
    from wasmlab.oci.store import StoredModule as StoredModule


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
