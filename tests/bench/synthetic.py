"""Made-up results for tests of figures and reports."""

from __future__ import annotations

import numpy as np

from wasmlab.bench.environment import fingerprint, fingerprint_id
from wasmlab.bench.store import Results

_START_MS = {"cold": {"wasmtime": 180, "wasmer": 420}, "cached": {"wasmtime": 120, "wasmer": 190},
             "warm": {"wasmtime": 0.8, "wasmer": 7.5}}  # fmt: skip
_RUN_MS = {"hello": (2.0, 9.0), "sha256": (9.0, 17.0), "python": (60.0, 250.0)}
_POD_MS = {"api_write": 3.1, "scheduled": 1.5, "seen": 0.8, "pulled": 0.05, "compiled": 0.1, "started": 1.2,
           "first_byte": 0.6, "exited": 1.1, "status_written": 3.0, "status_observed": 0.4}  # fmt: skip


def results(blocks: int = 12, paths: tuple[str, ...] = ("local", "node", "control")) -> Results:
    dice = np.random.default_rng(5)
    facts = fingerprint(kubernetes="v1.37.2") | {"cpu_model": "AMD EPYC", "cores": 2, "memory_gib": 24}
    facts["id"] = fingerprint_id(facts)
    rows: list[dict] = []

    def add(block: int, path: str, engine: str, mode: str, workload: str, **rest) -> None:
        rows.append(
            {
                "run_id": f"s-{len(rows):05d}",
                "session": "s",
                "block": block,
                "path": path,
                "engine": engine,
                "mode": mode,
                "workload": workload,
                "ok": True,
                "fingerprint": facts["id"],
                "started_at": "2026-11-24T09:00:00Z",
                **rest,
            }
        )

    for block in range(blocks):
        for path in paths:
            if path == "control":
                add(block, path, "native", "exec", "true", total_ns=int(dice.lognormal(13.8, 0.2)))
                continue
            for mode, per_engine in _START_MS.items():
                for engine, start_ms in per_engine.items():
                    for workload in _RUN_MS if (path, mode) == ("local", "warm") else ["hello"]:
                        run_ms = _RUN_MS[workload][engine == "wasmer"]
                        total = (start_ms * (mode != "warm") + run_ms) * dice.lognormal(0, 0.15) * 1e6
                        timing = {"total_ns": int(total), "first_byte_ns": int(total * 0.7)}
                        if path == "local":
                            shares = {"spawn": 0.05, "load": 0.05, "instantiate": 0.1, "run": 0.3}
                            if mode != "warm":
                                shares["import"] = 0.3
                            if mode == "cold":
                                shares["compile"] = 0.15
                            timing |= {f"{name}_ns": int(total * share) for name, share in shares.items()}
                        else:
                            at = 0.0
                            for moment, took in _POD_MS.items():
                                at += took * dice.lognormal(0, 0.1) * 1e6
                                timing[f"{moment}_ns"] = int(at)
                            timing["total_ns"] = int(at)
                        add(block, path, engine, mode, workload, **timing)
    conditions = [
        {
            "started_at": "2026-11-24T09:00:00Z",
            "ended_at": "2026-11-24T09:05:00Z",
            "load_1min_before": 0.3,
            "load_1min_after": 2.0,
            "busy_share": 0.8,
            "steal_share": 0.01,
        }
    ]
    return Results(rows, facts, conditions, {"interrupted": False})


def burst(count: int = 200) -> dict:
    dice = np.random.default_rng(6)
    created = np.sort(dice.uniform(0, 1, count))
    succeeded = np.sort(created + dice.uniform(0.05, 0.8, count))
    return {
        "count": count,
        "succeeded": count,
        "seconds": float(succeeded[-1]),
        "created_s": created.tolist(),
        "succeeded_s": succeeded.tolist(),
        "engine": "wasmtime",
        "writers": 4,
        "errors": [],
        "cpu_ms_per_pod": {"client": 2.0, "control plane": 6.0, "node agent": 3.0, "sandboxes": 4.0},
    }
