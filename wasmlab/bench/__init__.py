"""Measure what it costs to start and run WASM: plans, runs, rows, intervals.

>>> from wasmlab.bench import load_recorded, summarize
>>> summarize(load_recorded().frame)[["path", "engine", "mode", "median"]]      # doctest: +SKIP

Modules
-------
phases       names of the phases, and the waterfall table made of spans (pure)
plan         arms, randomized blocks, seeds (pure)
stats        medians, percentiles, ratios, bootstrap intervals (pure)
environment  the fingerprint of the machine, and the load while measuring
store        tidy rows to and from Parquet
runner       carries out a plan: progress, failures as rows, Ctrl-C keeps what there is
local        path "local": a module in the sandbox, no cluster
pods         path "node": a module as a Pod, observed through the API
control      path "control": native processes, measured in the same run
figures      the headline numbers of ``make bench``
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Arm": "wasmlab.bench.plan",
    "Plan": "wasmlab.bench.plan",
    "Results": "wasmlab.bench.store",
    "fingerprint": "wasmlab.bench.environment",
    "load_all": "wasmlab.bench.store",
    "load_recorded": "wasmlab.bench.store",
    "measure": "wasmlab.bench.planned",
    "pool": "wasmlab.bench.store",
    "summarize": "wasmlab.bench.stats",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from wasmlab.bench.environment import fingerprint as fingerprint
    from wasmlab.bench.plan import Arm as Arm
    from wasmlab.bench.plan import Plan as Plan
    from wasmlab.bench.planned import measure as measure
    from wasmlab.bench.stats import summarize as summarize
    from wasmlab.bench.store import Results as Results
    from wasmlab.bench.store import load_all as load_all
    from wasmlab.bench.store import load_recorded as load_recorded
    from wasmlab.bench.store import pool as pool


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
