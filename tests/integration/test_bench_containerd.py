"""Pods of path 2, measured for real: every moment is there, in order, for both engines and for runc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlab import engines
from wasmlab.bench.containerd_pods import ContainerdPodExecutor
from wasmlab.bench.environment import fingerprint
from wasmlab.bench.phases import ENGINE_PHASES, declared, waterfall
from wasmlab.bench.plan import Arm, Plan
from wasmlab.bench.record_paths import containers
from wasmlab.bench.runner import carry_out
from wasmlab.bench.store import Results
from wasmlab.containerd import ContainerdNode, missing
from wasmlab.shim.worker import enters_root

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=f"no container node here: {missing()}"),
]
# What every Pod goes through. `noticed` is the kubelet's relist, which may be overtaken by its own status.
MOMENTS = ("scheduled", "seen", "sandboxed", "contained", "created", "started", "exited", "status_observed")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    from wasmlab.cluster import Cluster

    arms = containers(("wasmtime", "wasmer"), ("cold", "cached"), ("hello",))
    # A component, and one that needs a volume to write to.
    arms += tuple(
        Arm("containerd", "wasmtime", "cached", name) for name in ("hello/component", "files/small")
    )
    # One that must fail, and be a row that says why: nobody has the source of Boolector for runc.
    arms += (Arm("containerd", "runc", "cached", "boolector"), Arm("containerd", "wasmer", "warm", "hello"))
    lab = tmp_path_factory.mktemp("lab")
    with Cluster.embedded(lab, node=False) as cluster, ContainerdNode(cluster) as node:
        with ContainerdPodExecutor(cluster, node) as executor:
            executor.prepare(arms)
            measured = carry_out(Plan(arms, 1), {"containerd": executor}, fingerprint(), quiet=True)
        yield measured
    assert node.traces() == []


def test_pods_of_both_engines_and_runc_succeed(results: Results) -> None:
    failed = {(row["engine"], row["workload"], row["mode"]): row["error"] for row in results.failures}
    assert set(failed) == {("runc", "boolector", "cached"), ("wasmer", "hello", "warm")}, failed
    assert "no source to compile natively" in failed["runc", "boolector", "cached"]
    assert "no warm start" in failed["wasmer", "hello", "warm"]
    assert len(results.rows) - len(failed) == 8


def test_every_moment_is_there_and_in_causal_order(results: Results) -> None:
    for row in results.rows:
        if not row["ok"]:
            continue
        which = f"{row['engine']} {row['mode']}"
        wanted = (*MOMENTS, *(["pulled"] if row["mode"] == "cold" else []))
        assert [name for name in wanted if row.get(f"{name}_ns") is None] == [], which
        own = [row[f"{name}_ns"] for name in ("sandboxed", "contained", "created", "started")]
        assert own == sorted(own), which
        assert row["contained_ns"] < row["first_byte_ns"] < row["status_observed_ns"], which
        assert row["created_ns"] < row["exited_ns"] <= row["total_ns"] == row["status_observed_ns"], which
        assert sum(stage.duration_ns for stage in waterfall(row)) == row["total_ns"]
        if row["mode"] == "cold":
            assert row["sandboxed_ns"] < row["pulled_ns"] <= row["contained_ns"], which


def test_the_shims_spans_are_in_the_rows_of_modules(results: Results) -> None:
    for row in results.rows:
        if not row["ok"]:
            continue
        told = {name for name in ENGINE_PHASES if row.get(f"{name}_ns") is not None}
        if row["engine"] == "runc":
            assert told == set()
        else:
            engine = engines.get(row["engine"])
            # One that does not enter the container's root is confined before it is warmed up.
            confined = {"confine"} if enters_root(engine) else set()
            assert told == {*declared("warm", engine.capabilities.hidden_phases), *confined}, row["engine"]


def test_rows_survive_a_file(results: Results, tmp_path: Path) -> None:
    loaded = Results.load(results.save(tmp_path / "paths.parquet"))
    for name in ("sandboxed_ns", "noticed_ns"):
        assert [row.get(name) for row in results.rows] == [row[name] for row in loaded.rows]
