"""The only place where modules run: single-use worker processes, pre-forked by a zygote per engine.

>>> from wasmlab.sandbox import RunSpec, Sandbox
>>> with Sandbox("wasmtime") as sandbox:                                    # doctest: +SKIP
...     outcome = sandbox.run(RunSpec("hello.wasm", digest, ("hello",)))
...     outcome.exit_code, outcome.stdout
(0, b'hello from stdout!...')

How it is cut: `spec` (what to run, how it ended), `protocol` (messages), `limits`, `stdio` and `worker` (the process a
guest runs in), `verdict` (what an ended process means), `logs` (CRI log pump), `records` (runs on disk); of these
`loop`, `pool`, `runs` and `peers` make a `zygote`; `launch` starts one; `client` and `aio` are the faces; `direct` is
one run with no zygote.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "RunSpec": "wasmlab.engines.spec",
    "Preopen": "wasmlab.engines.spec",
    "Outcome": "wasmlab.engines.spec",
    "CapturedOutcome": "wasmlab.engines.spec",
    "Span": "wasmlab.engines.spec",
    "Sandbox": "wasmlab.sandbox.client",
    "AsyncSandbox": "wasmlab.sandbox.aio",
    "Run": "wasmlab.sandbox.aio",
    "run_once": "wasmlab.sandbox.direct",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from wasmlab.engines.spec import CapturedOutcome as CapturedOutcome
    from wasmlab.engines.spec import Outcome as Outcome
    from wasmlab.engines.spec import Preopen as Preopen
    from wasmlab.engines.spec import RunSpec as RunSpec
    from wasmlab.engines.spec import Span as Span
    from wasmlab.sandbox.aio import AsyncSandbox as AsyncSandbox
    from wasmlab.sandbox.aio import Run as Run
    from wasmlab.sandbox.client import Sandbox as Sandbox
    from wasmlab.sandbox.direct import run_once as run_once


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
