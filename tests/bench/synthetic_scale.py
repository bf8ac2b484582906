"""Made-up results of scale experiments, with curves whose knees are known."""

from __future__ import annotations

import numpy as np

from tests.bench import synthetic
from wasmlab.bench.scale_rows import Rows
from wasmlab.bench.store import Results

BURST = (5, 15, 50, 150, 500)
LEVELS = (0, 10, 25, 50, 100, 150, 200)
IN_FLIGHT = (1, 2, 3, 4, 6, 8, 16)


def results(blocks: int = 3, engines: tuple[str, ...] = ("wasmtime", "wasmer")) -> Results:
    """Bursts bend at 50 Pods (10 ms each, then 20); the next start does at 100 live Pods; two cores saturate at 2."""
    dice = np.random.default_rng(11)
    made = synthetic.results(blocks=1, paths=())
    rows = Rows(made.environment["id"])

    def noise() -> float:
        return float(dice.lognormal(0, 0.02))

    for block in range(blocks):
        for place, engine in enumerate(engines):
            number = block * 2 * len(engines) + place
            for size in BURST:
                took = (0.1 + 0.010 * size + 0.010 * max(0, size - 50)) * noise()
                rows.add("burst", size, number, ("control", "native", "true"), total_ns=700_000)
                for pod in range(size):
                    begun = took * 0.5 * pod / size
                    end = took * (0.5 + 0.5 * (pod + 1) / size)
                    timing = {"begun_ns": int(begun * 1e9), "total_ns": int((end - begun) * 1e9)}
                    rows.add("burst", size, number, ("node", engine, "hello"), **timing)
            for level in LEVELS:
                memory = {
                    "node_uss_bytes": int((80 + 4 * level) * noise() * 1e6),
                    "node_pss_bytes": int((110 + 4.2 * level) * noise() * 1e6),
                    "plane_uss_bytes": int((330 + 0.05 * level) * noise() * 1e6),
                    "plane_pss_bytes": int((331 + 0.05 * level) * noise() * 1e6),
                }
                for probe in range(3):
                    took = (35 + 0.4 * max(0, level + probe - 100)) * noise()
                    rows.add(
                        "density", level + probe, number + len(engines), ("node", engine, "sleep"),
                        level=level, total_ns=int(took * 1e6), **(memory if probe == 0 else {}),
                    )  # fmt: skip
        for path, engine, name, rate in (
            ("control", "native", "true", 900), *(("local", one, "hello", 300) for one in engines),
            *(("node", one, "hello", 60) for one in engines),
        ):  # fmt: skip
            for level in IN_FLIGHT:
                latency = max(1.0, level / 2) / rate * noise()
                for run in range(4 * level):
                    begun = run // level * latency
                    timing = {"begun_ns": int(begun * 1e9), "total_ns": int(latency * 1e9)}
                    rows.add("concurrency", level, 100 + block, (path, engine, name), **timing)
    made.rows = rows.rows
    return made
