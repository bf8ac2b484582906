"""A small real measurement of pods: one cluster, every mode, both engines."""

from __future__ import annotations

import pytest

from wasmlab import engines
from wasmlab.bench import figures, live, planned
from wasmlab.bench.control import ControlExecutor
from wasmlab.bench.environment import fingerprint
from wasmlab.bench.phases import ENGINE_PHASES, declared, waterfall
from wasmlab.bench.plan import CONTROLS, Arm, Plan, cross
from wasmlab.bench.pods import PodExecutor
from wasmlab.bench.runner import carry_out
from wasmlab.bench.stopping import Stopping
from wasmlab.cluster import Cluster
from wasmlab.modules import workloads

# Of all moments those that a pod on a WASM node has; the others belong to the path through containerd.
MOMENTS = (
    "api_write", "scheduled", "seen", "pulled", "compiled", "started", "first_byte", "exited", "status_written",
    "status_observed",
)  # fmt: skip
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lab():
    with Cluster.embedded() as cluster, PodExecutor(cluster, cluster.nodes["wasm-node"].dir) as pods:
        yield cluster, pods


@pytest.fixture(scope="module")
def results(lab):
    cluster, pods = lab
    arms = cross(("node",), ("wasmtime", "wasmer"), ("cold", "cached", "warm"), [workloads.get("hello")])
    facts = fingerprint(kubernetes=cluster.status()["versions"]["kubernetes"])
    return carry_out(Plan(arms, 2, seed=4), {"node": pods, "control": ControlExecutor()}, facts, quiet=True)


def test_every_pod_succeeded_with_the_right_log(results) -> None:
    assert [row["error"] for row in results.failures] == []
    assert len(results.rows) == 2 * (6 + 2)
    assert results.environment["kubernetes"].startswith("v1.")


def test_a_plan_is_carried_out_in_a_lab_that_runs_and_leaves_it_running(lab) -> None:
    cluster, _ = lab
    arms = (Arm("node", "wasmtime", "warm", "hello"), Arm("local", "wasmtime", "warm", "hello"), *CONTROLS)
    plan = Plan(arms, 9, seed=2, stopping=Stopping(max_runs=8))
    results = planned.measure(plan, lab=cluster.state.root)
    assert results.failures == []
    assert results.plan["stopped"]["because"] == "runs" and results.plan["stopped"]["blocks"] == 2
    assert results.environment["kubernetes"].startswith("v1.")
    assert {row["path"] for row in results.rows} == {"node", "local", "control"}
    assert cluster.status()["versions"]["kubernetes"]


def test_every_moment_is_there_and_in_causal_order(results) -> None:
    for row in results.rows:
        if row["path"] != "node":
            continue
        missing = [name for name in MOMENTS if row.get(f"{name}_ns") is None]
        assert missing == [], f"{row['engine']} {row['mode']}"
        # On the node's own clock and in its own process nothing is seen late.
        own = [
            row[f"{name}_ns"]
            for name in ("seen", "pulled", "compiled", "started", "exited", "status_written")
        ]
        assert own == sorted(own)
        assert 0 < row["first_byte_ns"] <= row["total_ns"] == row["status_observed_ns"]
        hidden = engines.get(row["engine"]).capabilities.hidden_phases
        told = {name for name in ENGINE_PHASES if row.get(f"{name}_ns") is not None}
        assert told == set(declared("warm", hidden)), (
            "in every mode the Pod's own run is one of compiled code"
        )
        stages = waterfall(row)
        assert sum(stage.duration_ns for stage in stages) == row["total_ns"]


def test_modes_differ_as_they_are_defined_to(results) -> None:
    frame = results.frame
    frame = frame[frame["path"] == "node"]
    compiling = frame["compiled_ns"].astype(float) - frame["pulled_ns"].astype(float)
    starting = frame["started_ns"].astype(float) - frame["compiled_ns"].astype(float)
    for engine in ("wasmtime", "wasmer"):
        own = frame["engine"] == engine
        # Only a cold pod is compiled for; only a cached one waits for a new zygote.
        assert (
            compiling[own & (frame["mode"] == "cold")].min()
            > 2 * compiling[own & (frame["mode"] == "warm")].min()
        )
        assert (
            starting[own & (frame["mode"] == "cached")].min()
            > 5 * starting[own & (frame["mode"] == "warm")].min()
        )
    digests = frame.groupby("mode")["module_digest"].nunique()
    assert digests["cold"] == 4 and digests["warm"] == 1


def test_workloads_with_files_and_components_run_as_pods_or_say_why_not(lab) -> None:
    from wasmlab.bench.local import refusal

    arms = [
        Arm("node", engine, "warm", name)
        for engine in ("wasmtime", "wasmer")
        for name in ("files/small", "hello/component")
    ]
    results = carry_out(Plan(tuple(arms), 1), {"node": lab[1]}, {"id": "x"}, quiet=True)
    assert len(results.rows) == len(arms)
    for row in results.rows:
        refused = refusal(row["engine"], workloads.get(row["workload"]))
        assert row["error"] == (f"Unsupported: {refused}" if refused else None), row["workload"]
        assert row["ok"] is not bool(refused)


def test_a_pod_that_fails_is_a_row(lab, monkeypatch) -> None:
    import dataclasses

    wrong = dataclasses.replace(workloads.get("hello"), expected_log="never\n")
    monkeypatch.setattr(workloads, "get", lambda name: wrong)
    results = carry_out(
        Plan((Arm("node", "wasmtime", "warm", "hello"),), 1), {"node": lab[1]}, {"id": "x"}, quiet=True
    )
    (row,) = results.rows
    assert row["ok"] is False and "wrong output" in row["error"]


def test_burst_loses_no_pod(lab) -> None:
    cluster, pods = lab
    one = figures.burst(cluster, pods, 30)
    assert one["errors"] == []
    assert one["succeeded"] == 30 == len(one["created_s"]) == len(one["succeeded_s"])
    assert all(value > 0 for value in one["cpu_ms_per_pod"].values())
    assert 0 < one["seconds"] == pytest.approx(max(one["succeeded_s"]), abs=0.01)


def test_idle_memory_is_that_of_the_workers(lab) -> None:
    cluster, pods = lab
    samples: dict[str, list[float]] = {}
    node = cluster.nodes["wasm-node"]
    live.idle_memory(pods, node.dir, 3, samples, agent=node.child.pid)
    assert len(samples["pod Running"]) == 3
    assert len(samples["idle pod private"]) == 4
    assert all(0.5 < value < 30 for value in samples["idle pod private"])
    lines = figures.headlines(type("R", (), {"rows": [], "extra": {}})(), samples)
    assert {line.name for line in lines} >= {"private memory of an idle pod (USS)"}


def test_the_headline_figures_from_start_to_table(tmp_path) -> None:
    from wasmlab import report
    from wasmlab.bench.store import Results

    sizes = figures.Sizes(starts=1, pods=2, burst=10, idle_pods=2, live_pods=4, settle_s=0.5)
    results = figures.measure(tmp_path, sizes, quiet=True)
    assert results.failures == []
    names = [one["name"] for one in results.extra["headlines"]]
    for part in (
        "control plane ready", "first pod bound", "node joined", "Succeeded seen, wasmtime", "Succeeded seen, wasmer",
        "first byte in a warm worker, wasmtime", "control: native /bin/true", "Running seen", "burst of 10 pods, 10",
        "idle pod (USS)", "control plane at idle", "Succeeded seen, wasmtime-runner", "10 Succeeded, wasmtime-runner",
        "beside 4 live idle pods", "with 4 live idle pods (PSS)", "agent at idle (RSS)", "share of a core",
    ):  # fmt: skip
        assert any(part in name for name in names), part
    again = Results.load(tmp_path / "figures.parquet")
    assert again.extra["headlines"] == results.extra["headlines"]
    assert len(again.rows) == 2 * 8
    assert {path.name for path in report.write(tmp_path)} >= {"burst.png", "pod_waterfall.png", "report.md"}
