"""What notebook 02 shows of the phases."""

from __future__ import annotations

import types

import pytest

from tests.test_plots import texts
from wasmlab import engines
from wasmlab.bench import phases
from wasmlab.engines import Capabilities
from wasmlab.notebooks import kit, starting

ROWS = [
    {"engine": "wasmtime", "mode": "cold", "spawn": 1.0, "compile": 8.0, "run": 1.0},
    {"engine": "wasmtime", "mode": "cold", "spawn": 3.0, "compile": 10.0, "run": 1.0},
    {"engine": "wasmtime", "mode": "cached", "spawn": 1.0, "run": 1.0},
]


def test_every_phase_is_defined_and_what_is_hidden_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    able = Capabilities(hidden_phases={"compile": "part of run"})
    monkeypatch.setattr(engines, "get", lambda name: types.SimpleNamespace(capabilities=able))
    table = starting.definitions(["sdk"])
    assert [row["phase"] for row in table] == list(phases.ENGINE_PHASES)
    assert {row["phase"]: row["hidden"] for row in table if row["hidden"]} == {"compile": "sdk: part of run"}


def test_medians_keep_what_was_not_measured_empty() -> None:
    found = starting.medians(ROWS, ["engine", "mode"], ["spawn", "compile", "load"])
    assert found.loc[("wasmtime", "cold")].tolist()[:2] == [2.0, 9.0]
    assert found["load"].isna().all() and found.loc[("wasmtime", "cached"), "compile"] != 9.0


def test_the_picture_has_a_bar_of_the_phases_that_were_told() -> None:
    took = starting.medians(ROWS, ["engine", "mode"], starting.STEPS)
    said = texts(starting.picture(took, kit.canvas))
    assert "wasmtime, cold" in said and "12.0 ms" in said and "2.0 ms" in said
    assert "compile" in said and "instantiate" not in said


def test_processes_are_timed_with_import_and_bind_apart() -> None:
    (row,) = starting.processes(["wasmtime"], 1)
    assert row["engine"] == "wasmtime"
    assert all(row[name] > 0 for name in starting.PROCESS)
