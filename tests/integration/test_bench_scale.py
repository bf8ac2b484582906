"""The scale experiments on a real node, with the smallest sizes that show something."""

from __future__ import annotations

import pytest

from wasmlab.bench import memory, noise, scale, scale_curves
from wasmlab.bench.scale_rows import Budget
from wasmlab.bench.store import COLUMNS, Results

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]
SIZES = scale.Sizes(
    engines=("wasmtime",), burst=(2, 6), density=(0, 3), concurrency=(1, 3), blocks=1, probes=1, runs=6
)


@pytest.fixture(scope="module")
def measured(node_cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("scale")
    node = next(iter(node_cluster.nodes.values()))
    before = set(memory.running_workers(node.dir))  # of other tests, on the node that they share
    results = scale.measure_on(node_cluster, node, SIZES, out=out, quiet=True)
    assert set(memory.running_workers(node.dir)) <= before
    return node_cluster, node, results, out


def test_every_run_is_a_row_and_none_failed(measured) -> None:
    _, _, results, out = measured
    assert results.failures == []
    pods = [row for row in results.rows if row["path"] == "node"]
    count = {
        name: sum(row["experiment"] == name for row in pods) for name in ("burst", "density", "concurrency")
    }
    # Two bursts; one start timed at each of two levels; six Pods with one in flight, 18 (six rounds) with three.
    assert count == {"burst": 2 + 6, "density": 2, "concurrency": 6 + 18}
    assert sum(row["path"] == "local" for row in results.rows) == 6 + 18
    assert {row["workload"] for row in results.rows if row["path"] == "control"} == {"true"}
    assert set().union(*results.rows) <= set(COLUMNS)
    again = Results.load(out / "scale.parquet")
    assert len(again.rows) == len(results.rows) and again.plan["left_out"] == []
    assert again.extra["curves"]
    # The machine's noise is kept beside every block.
    kept = set(noise.by_block(again.conditions)["block"])
    assert kept == {row["block"] for row in again.rows} == {0, 1, 2}


def test_times_and_memory_are_there(measured) -> None:
    _, _, results, _ = measured
    for row in results.rows:
        assert row["total_ns"] > 0
        if row["experiment"] != "density" and row["path"] == "node":
            assert 0 < row["scheduled_ns"] <= row["total_ns"] and row["begun_ns"] >= 0
    levels = scale_curves.live(results.frame).set_index("level")
    # Three more Pods lived at the second level, beside the one that was timed at the first.
    assert levels.loc[3, "live"] == 3
    # By how much it grows is not said here: an agent that many tests share may give back memory in between.
    assert levels["node_uss_mb"].min() > 10 and levels["plane_uss_mb"].min() > 50
    assert (levels["node_pss_mb"] >= levels["node_uss_mb"]).all()


def test_no_pod_is_left(measured) -> None:
    cluster, _, _, _ = measured
    listed = cluster.core.list_pod_for_all_namespaces().items
    assert [pod.metadata.name for pod in listed if pod.metadata.namespace.startswith("bench-")] == []


def test_an_interruption_keeps_what_there_is(measured, tmp_path, monkeypatch) -> None:
    cluster, node, _, _ = measured

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scale, "density", interrupted)
    results = scale.measure_on(cluster, node, SIZES, out=tmp_path, budget=Budget(), quiet=True)
    assert results.plan["interrupted"]
    kept = Results.load(tmp_path / "scale.parquet")
    assert {row["experiment"] for row in kept.rows} == {"burst"} and kept.plan["interrupted"]


def test_a_breakdown_keeps_what_there_is_and_is_told(measured, tmp_path, monkeypatch) -> None:
    cluster, node, _, _ = measured

    def broken(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(scale, "density", broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        scale.measure_on(cluster, node, SIZES, out=tmp_path, quiet=True)
    assert "disk is full" in Results.load(tmp_path / "scale.parquet").extra["error"]
