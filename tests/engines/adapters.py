"""Every adapter by a name of its own, so that one suite can be held against all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from wasmlab import engines
from wasmlab.engines import native_binding

# Name -> (engine, binding).
ADAPTERS = {
    "wasmtime": ("wasmtime", ""),
    "wasmer-sdk": ("wasmer", "sdk"),
    "wasmer-native": ("wasmer", "native"),
    "wasmer-singlepass": ("wasmer", "native-singlepass"),
}


@contextlib.contextmanager
def chosen(name: str) -> Iterator[str]:
    """Let `engines.get` (here and in child processes) return that adapter; yields the engine's name.

    Skips the test if the native binding has not been built.
    """
    engine, binding = ADAPTERS[name]
    if binding.startswith("native") and native_binding.find() is None:
        pytest.skip("the native wasmer binding is not built: make native")
    before = os.environ.get(native_binding.OVERRIDE)
    os.environ[native_binding.OVERRIDE] = binding
    engines.get.cache_clear()
    try:
        yield engine
    finally:
        if before is None:
            del os.environ[native_binding.OVERRIDE]
        else:
            os.environ[native_binding.OVERRIDE] = before
        engines.get.cache_clear()
