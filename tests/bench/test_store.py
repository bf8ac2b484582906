from __future__ import annotations

import json
from pathlib import Path

import pytest

from wasmlab.bench import store
from wasmlab.bench.environment import fingerprint, fingerprint_id
from wasmlab.bench.store import Results
from wasmlab.errors import BenchmarkError


def results(session: str = "s1", count: int = 3, **environment) -> Results:
    facts = {**fingerprint(), **environment}
    facts["id"] = fingerprint_id(facts)
    rows = [
        {
            "run_id": f"{session}-{i:05d}",
            "session": session,
            "block": i,
            "path": "local",
            "engine": "wasmtime",
            "mode": "warm",
            "workload": "hello",
            "ok": i != 1,
            "error": "Trap: unreachable" if i == 1 else None,
            "total_ns": 1_000_000 + i,
            "spawn_ns": None if i == 1 else 5,
            "fingerprint": facts["id"],
        }
        for i in range(count)
    ]
    return Results(rows, facts, [{"started_at": "2026-11-24T09:00:00Z"}], {"seed": 7}, {"note": 1})


def test_round_trip(tmp_path: Path) -> None:
    before = results()
    path = before.save(tmp_path / "new" / "runs.parquet")
    after = Results.load(path)
    assert after.meta() == before.meta()
    assert len(after.rows) == 3
    for row, again in zip(before.rows, after.rows, strict=True):
        assert {key: again[key] for key in row} == row
    frame = after.frame
    assert tuple(frame.columns) == store.COLUMNS
    assert frame["total_ns"].tolist() == [1_000_000, 1_000_001, 1_000_002]
    assert frame["spawn_ns"].isna().tolist() == [False, True, False]
    assert frame["ok"].dtype == bool
    assert frame.loc[1, "error"] == "Trap: unreachable"
    assert after.failures == [after.rows[1]]


def test_parquet_is_readable_without_wasmlab(tmp_path: Path) -> None:
    import pandas as pd

    path = results().save(tmp_path / "runs.parquet")
    frame = pd.read_parquet(path)
    assert len(frame) == 3
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["rows"] == 3 and about["failed"] == 1
    assert about["environment"]["id"] == frame["fingerprint"][0]


def test_empty_results_keep_their_columns(tmp_path: Path) -> None:
    path = Results(environment=fingerprint()).save(tmp_path / "none.parquet")
    assert tuple(Results.load(path).frame.columns) == store.COLUMNS


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    import pandas as pd

    with pytest.raises(BenchmarkError, match="cannot read"):
        Results.load(tmp_path / "missing.parquet")
    (tmp_path / "junk.parquet").write_text("not parquet")
    with pytest.raises(BenchmarkError, match="cannot read"):
        Results.load(tmp_path / "junk.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(BenchmarkError, match="not written by wasmlab"):
        Results.load(tmp_path / "foreign.parquet")


def test_pooling_one_environment() -> None:
    both = store.pool([results("a"), results("b", 2)])
    assert len(both.rows) == 5
    assert len(both.conditions) == 2


def test_pooling_refuses_other_environments_and_says_why() -> None:
    with pytest.raises(BenchmarkError, match="not measured in the same environment") as caught:
        store.pool([results("a"), results("b", cores=128)])
    assert "cores is" in str(caught.value) and "128" in str(caught.value)


def test_a_measurement_without_a_cluster_goes_with_one_that_has_one() -> None:
    both = store.pool([results("a", kubernetes=None), results("b", kubernetes="v1.37.2")])
    assert both.environment["kubernetes"] == "v1.37.2"
    with pytest.raises(BenchmarkError, match="kubernetes is"):
        store.pool([results("a", kubernetes="v1.36.0"), results("b", kubernetes="v1.37.2")])


def test_pooling_compares_all_with_all() -> None:
    one, other = results("a"), results("b")
    other.plan["settings"] = {"limit_mib": 64}
    with pytest.raises(BenchmarkError, match="limit_mib is None here and 64 there"):
        store.pool([one, other])
    with pytest.raises(BenchmarkError, match="kubernetes is"):
        store.pool([results("a"), results("b", kubernetes="v1.36.0"), results("c", kubernetes="v1.37.2")])


def test_warm_up_is_a_column(tmp_path: Path) -> None:
    before = results()
    before.rows[0]["warmup"] = True
    after = Results.load(before.save(tmp_path / "runs.parquet"))
    assert after.frame["warmup"].tolist() == [True, False, False]


def test_pooling_keeps_that_one_was_interrupted() -> None:
    one, other = results("a"), results("b")
    other.plan["interrupted"] = True
    assert store.pool([one, other]).plan["interrupted"] is True
    assert store.pool([one]).plan["interrupted"] is False


def test_pooling_refuses_the_same_measurement_twice() -> None:
    with pytest.raises(BenchmarkError, match="counted twice"):
        store.pool([results("a"), results("a")])
    with pytest.raises(BenchmarkError, match="nothing to pool"):
        store.pool([])


def test_load_all(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no results"):
        store.load_all(tmp_path)
    results("a").save(tmp_path / "a.parquet")
    results("b").save(tmp_path / "b.parquet")
    assert len(store.load_all(tmp_path).rows) == 6


def test_where_line() -> None:
    line = results(cpu_model="AMD EPYC", cores=2, memory_gib=24, kernel="6.1.5").where
    assert line == "2026-11-24 on 2 cores of AMD EPYC, 24 GiB, Linux 6.1"


def test_a_busy_machine_is_said_with_the_results() -> None:
    one = results(cpu_model="AMD EPYC", cores=2, memory_gib=24, kernel="6.1.5")
    one.conditions[0]["busy_share_before"] = 0.04
    assert "busy" not in one.where
    one.conditions[0]["busy_share_before"] = 0.75
    assert one.where.endswith("Linux 6.1, busy with other work (75% before this)")


def test_the_recorded_run_is_complete_small_and_marked() -> None:
    from wasmlab.modules.files import data_dir

    path = data_dir("recorded", "bench.parquet")
    assert path.stat().st_size < 300_000
    recorded = store.load_recorded()
    assert recorded.is_recorded
    assert recorded.plan["interrupted"] is False
    arms = {(row["path"], row["engine"], row["mode"], row["workload"]) for row in recorded.rows if row["ok"]}
    for engine in ("wasmtime", "wasmer"):
        assert {
            (path, engine, mode, "hello") for path in ("local", "node") for mode in ("cold", "cached", "warm")
        } <= arms
        assert ("local", engine, "warm", "python") in arms
    assert ("control", "native", "exec", "true") in arms


def test_sessions_are_unique() -> None:
    assert store.new_session() != store.new_session()
