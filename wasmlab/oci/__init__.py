"""Registries and WASM artifacts: push, pull, inspect, and a content-addressed store of pulled modules.

The pure part (`reference`, `media_types`, `digest`, `artifact`, `component`, `auth`, `protocol`) decides; it never
touches a socket or a file. `session` and `transfer` carry its decisions out over `transport`; `client` offers them
as `AsyncClient` and, for scripts and notebooks, as `Client`.

>>> from wasmlab.oci import Reference
>>> Reference.parse("127.0.0.1:5000/hello:v1").repository
'hello'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "AsyncClient": "wasmlab.oci.client",
    "Client": "wasmlab.oci.client",
    "Inspected": "wasmlab.oci.client",
    "Pulled": "wasmlab.oci.client",
    "Pushed": "wasmlab.oci.client",
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
    from wasmlab.oci.client import AsyncClient as AsyncClient
    from wasmlab.oci.client import Client as Client
    from wasmlab.oci.client import Inspected as Inspected
    from wasmlab.oci.client import Pulled as Pulled
    from wasmlab.oci.client import Pushed as Pushed
    from wasmlab.oci.credentials import Credentials as Credentials
    from wasmlab.oci.protocol import Timeouts as Timeouts
    from wasmlab.oci.reference import Reference as Reference
    from wasmlab.oci.store import ModuleStore as ModuleStore
    from wasmlab.oci.store import StoredModule as StoredModule


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
