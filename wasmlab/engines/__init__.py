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
    "pod_names",
    "variants",
]

_NAMES = ("wasmtime", "wasmer")
_VARIANTS = (
    "wasmtime",
    "wasmtime-runner",
    "wasmtime-winch",
    "wasmer-native",
    "wasmer-singlepass",
    "wasmer-sdk",
)


def names() -> tuple[str, ...]:
    """Return the names of all engines, the default first."""
    return _NAMES


def pod_names() -> tuple[str, ...]:
    """Return the names that a node takes from Pods: all engines, and those of their variants that nodes are for."""
    return (*_NAMES, "wasmtime-runner")


def variants() -> tuple[str, ...]:
    """Return every adapter by the name that `get` takes: an engine by each of its compilers, bindings and workers.

    ``wasmer`` is one of those called ``wasmer-...``; which, its version tells.
    """
    return _VARIANTS


@functools.cache
def get(name: str) -> Engine:
    """Return the adapter called `name`, one of `names` or `variants`. Its bindings are imported only when it is used.

    ``wasmer`` is the native binding where that has been built (see `native_binding`), else the package ``wasmer-sdk``;
    the adapter's ``version`` tells which.

    Raises
    ------
    Unsupported
        If there is no such engine.
    PrerequisiteError
        If the name, or the environment, asks for a binding of wasmer that is not there; or ``wasmtime-runner`` has
        not been compiled.
    """
    # Nothing is imported before it is asked for: `import wasmtime` alone takes 60-140 ms.
    if name in ("wasmtime", "wasmtime-winch"):
        from wasmlab.engines.wasmtime import WasmtimeEngine

        return WasmtimeEngine(name.partition("-")[2] or "cranelift", name)
    if name == "wasmtime-runner":
        from wasmlab.engines.wasmtime_runner import WasmtimeRunnerEngine

        return WasmtimeRunnerEngine()
    if name in _NAMES or name in _VARIANTS:
        from wasmlab.engines import wasmer_native

        native = wasmer_native.make(name)
        if native is not None:
            return native
        from wasmlab.engines.wasmer import WasmerEngine

        return WasmerEngine(name)
    raise Unsupported(
        f"there is no engine called {name!r}",
        remedy=f"use one of: {', '.join(dict.fromkeys((*_NAMES, *_VARIANTS)))}",
        capability="engine",
    )
