"""The WASM engines, behind one protocol.

>>> from wasmlab import engines
>>> engines.names()
('wasmtime', 'wasmer')
>>> engines.get("wasmtime").capabilities.components        # doctest: +SKIP
True

Engines are adapters: each says in its `Capabilities` what it cannot do and why, and refuses (`Unsupported`) what it
cannot do rather than dropping it. Guests never run here: only `wasmlab.sandbox` calls `Engine.run`, in a worker.
"""

from __future__ import annotations

import functools
import importlib

from wasmlab.engines.base import Capabilities, Compiled, Engine, GuestResult
from wasmlab.engines.cache import CompileCache
from wasmlab.errors import Unsupported

__all__ = [
    "Capabilities",
    "CompileCache",
    "Compiled",
    "Engine",
    "GuestResult",
    "get",
    "names",
]

# Name -> (module, class). Nothing is imported before it is asked for: `import wasmtime` alone takes 60-140 ms.
_ADAPTERS = {
    "wasmtime": ("wasmlab.engines.wasmtime", "WasmtimeEngine"),
    "wasmer": ("wasmlab.engines.wasmer", "WasmerEngine"),
}


def names() -> tuple[str, ...]:
    """Return the names of all engines, the default first."""
    return tuple(_ADAPTERS)


@functools.cache
def get(name: str) -> Engine:
    """Return the adapter called `name`; the engine's bindings are imported only when it is used.

    ``wasmer`` is the native binding where that has been built (see `native_binding`), else the package ``wasmer-sdk``;
    the adapter's ``version`` tells which.

    Raises
    ------
    Unsupported
        If there is no such engine.
    PrerequisiteError
        If the environment asks for a binding of wasmer that is not there.
    """
    if name not in _ADAPTERS:
        raise Unsupported(
            f"there is no engine called {name!r}",
            remedy=f"use one of: {', '.join(names())}",
            capability="engine",
        )
    if name == "wasmer":
        from wasmlab.engines import wasmer_native

        native = wasmer_native.make()
        if native is not None:
            return native
    module, cls = _ADAPTERS[name]
    engine: Engine = getattr(importlib.import_module(module), cls)()
    return engine
