"""Every adapter, so that one suite can be held against all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from wasmlab import engines
from wasmlab.engines import native_binding, wasmtime_runner

ADAPTERS = engines.variants()
# One adapter of each: what does not concern the code that a compiler makes is tested on these.
BINDINGS = ("wasmtime", "wasmer-native", "wasmer-sdk")
_OF_THE_BINDING = ("wasmer-native", "wasmer-singlepass")


@contextlib.contextmanager
def chosen(name: str) -> Iterator[str]:
    """Yield the name for `engines.get`; skips the test if the native binding it needs has not been built."""
    if name in _OF_THE_BINDING and native_binding.find() is None:
        pytest.skip("the native wasmer binding is not built: make native")
    if name == wasmtime_runner.NAME:
        wasmtime_runner.build()
    yield name
