"""The headline figures lose nothing when something goes wrong on the way."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.bench import synthetic
from wasmlab.bench import figures
from wasmlab.bench.store import Results
from wasmlab.errors import NotReady, ProcessError


@pytest.fixture
def started(monkeypatch):
    def starts(sizes, samples, stack, quiet):
        samples["control plane ready"] = [2.5, 2.7, 2.6]

    monkeypatch.setattr(figures, "_starts", starts)
    monkeypatch.setattr(figures, "_version", lambda cluster: "v1.37.2")


def on_cluster(error: BaseException):
    def measure(cluster, sizes, results, samples, quiet):
        results.rows += synthetic.results(blocks=3).rows
        raise error

    return measure


def test_a_failure_keeps_what_was_measured(started, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "_on_cluster", on_cluster(NotReady("the burst did not end", events=[])))
    with pytest.raises(NotReady):
        figures.measure(tmp_path, quiet=True)
    results = Results.load(tmp_path / "figures.parquet")
    assert len(results.rows) == len(synthetic.results(blocks=3).rows)
    assert results.extra["error"] == "NotReady: the burst did not end"
    assert results.extra["headlines"][0]["median"] == 2.6


def test_ctrl_c_keeps_what_was_measured(started, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "_on_cluster", on_cluster(KeyboardInterrupt()))
    results = figures.measure(tmp_path, quiet=True)
    assert results.plan["interrupted"] is True
    assert Results.load(tmp_path / "figures.parquet").rows


def test_nothing_is_written_if_nothing_was_measured(monkeypatch, tmp_path: Path) -> None:
    def starts(*_):
        raise ProcessError("the control plane did not start")

    monkeypatch.setattr(figures, "_starts", starts)
    with contextlib.suppress(ProcessError):
        figures.measure(tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_headlines_leave_out_what_was_not_measured() -> None:
    assert figures.headlines(Results(), {}) == []
    (line,) = figures.headlines(Results(), {"node joined": [1.0, 3.0, 2.0]})
    assert (line.name, line.unit, line.median, line.n, line.p95, line.met) == (
        "node joined",
        "s",
        2.0,
        3,
        None,
        None,
    )


def test_failed_pods_do_not_count_as_fast_ones() -> None:
    results = synthetic.results(blocks=4, paths=("node",))
    for row in results.rows:
        if row["engine"] == "wasmtime":
            row |= {"ok": False, "error": "x", "total_ns": 1}
    names = [line.name for line in figures.headlines(results, {})]
    assert not any("wasmtime" in name for name in names)
    assert any("wasmer" in name for name in names)
