from __future__ import annotations

import pytest

from wasmlab.bench import pooling
from wasmlab.bench.pooling import differences
from wasmlab.bench.store import Results

FACTS = {
    "cpu_model": "AMD EPYC", "cores": 2, "memory_gib": 24, "kernel": "6.18.44", "cgroup": "v2", "python": "3.11.7",
    "engines": {"wasmtime": "50.0.1", "wasmer": "7.4.2"}, "kubernetes": None, "wasmlab": "0.1.0",
    "virtualization": "unknown", "id": "a",
}  # fmt: skip


def results(plan=None, rows=(), **facts) -> Results:
    row = {"path": "local", "engine": "wasmtime", "mode": "warm", "workload": "hello", "engine_version": "50.0.1",
           "module_digest": "sha256:a"}  # fmt: skip
    return Results([row | one for one in rows or [{}]], FACTS | facts, [], plan or {})


@pytest.mark.parametrize(
    ("other", "kind", "said"),
    [
        (results(cores=128), "host", "cores is 2 here and 128 there"),
        (results(cpu_model="Xeon"), "host", "cpu_model is 'AMD EPYC' here and 'Xeon' there"),
        (results(memory_gib=8), "host", "memory_gib"),
        (results(kernel="6.18.45"), "host", "kernel"),
        (results(cgroup="v1"), "host", "cgroup"),
        (results(python="3.12.1"), "software", "python is '3.11.7' here and '3.12.1' there"),
        (results(wasmlab="0.2.0"), "lab", "wasmlab"),
        (results(engines={"wasmtime": "51", "wasmer": "7.4.2"}), "engines", "wasmtime is '50.0.1' here and '51' there"),
        (results(rows=[{"engine_version": "49"}]), "engines", "wasmtime is '50.0.1' here and '49' there"),
        (results(plan={"settings": {"limit_mib": 64}}), "settings", "limit_mib is None here and 64 there"),
        (results(rows=[{"module_digest": "sha256:b"}]), "workloads", "hello is 'sha256:a' here and 'sha256:b' there"),
    ],
)  # fmt: skip
def test_what_matters_is_named(other: Results, kind: str, said: str) -> None:
    (found,) = differences(results(), other)
    assert found.kind == kind and said in str(found)


@pytest.mark.parametrize(
    "other",
    [
        results(id="b"),
        results(virtualization="virtual machine"),
        results(kubernetes="v1.37.2"),
        results(engines={"wasmtime": "50.0.1"}),
        results(plan={"seed": 9, "blocks": 3, "repetitions": 2, "arms": []}),
        # Another workload and another engine are other arms, no contradiction.
        results(rows=[{"workload": "sha256", "module_digest": "sha256:c"}]),
        # A cold pod runs a module that nobody has seen: every run has a digest of its own.
        results(rows=[{"mode": "cold", "module_digest": "sha256:d"}]),
        results(rows=[{"engine_version": None, "module_digest": None}]),
    ],
)
def test_what_does_not_matter_is_not(other: Results) -> None:
    assert differences(results(), other) == []


def test_all_differences_at_once_in_order() -> None:
    found = differences(
        results(kubernetes="v1.36.0"), results({"settings": {"x": 1}}, cores=4, kubernetes="v1.37.2")
    )
    assert [one.kind for one in found] == ["host", "software", "settings"]
    assert pooling.describe(found) == (
        "cores is 2 here and 4 there; kubernetes is 'v1.36.0' here and 'v1.37.2' there; x is None here and 1 there"
    )


def test_settings_of_pooled_results_count() -> None:
    pooled = results({"pooled": [{"settings": {"x": 1}}, {"seed": 2}]})
    assert differences(pooled, results({"settings": {"x": 1}})) == []
    again = results({"pooled": [pooled.plan, {"seed": 3}]})
    assert [one.get("seed") for one in pooling.parts(again.plan)] == [None, 2, 3]
    assert differences(again, results({"settings": {"x": 1}})) == []
