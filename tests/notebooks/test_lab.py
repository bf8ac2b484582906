"""Every notebook of the lab, executed for real with the fewest repetitions, as `wasmlab lab --quick` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebooks import toys
from wasmlab.bench.store import Results
from wasmlab.containerd import missing
from wasmlab.notebooks import execute, measure

# In order: 09 reads what 07 and 08 measured, so all of them write to one report directory.
WITHOUT_CLUSTER = ("00", "01", "02", "08")
WITH_CLUSTER = ("03", "04", "05", "06", "07", "09", "10")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def executed(number: str, reports: Path) -> Path:
    paths = execute.select(execute.find_directory(), [number])
    (result,) = execute.run(execute.plan(paths, preset="quick"), reports, cell_timeout_s=100)
    assert result.status == "ok", result.error
    assert (reports / f"{result.name}.html").stat().st_size > 10_000
    return reports / f"{result.name}.ipynb"


@pytest.mark.parametrize("number", WITHOUT_CLUSTER)
def test_it_executes(number: str, reports: Path) -> None:
    text = toys.outputs(executed(number, reports))
    if number == "01":
        assert "Exec format error" in text


@pytest.mark.integration
@pytest.mark.parametrize("number", WITH_CLUSTER)
def test_it_executes_on_a_real_cluster(number: str, reports: Path) -> None:
    text = toys.outputs(executed(number, reports))
    if number == "05":
        assert "wasm-node-tls approved" in text
        assert "message: Module run completed" in text
        assert "hello from stdout!\nhello from stderr!\nArgs are: []" in text
        assert "kubernetes.io/arch=wasm32-wasi:NoExecute" in text
    if number == "06":
        # As root it happened just now; else what is shown says that it was recorded.
        assert ("Skipped here: " in text) == ("[recorded 20" in text) == bool(missing())
        assert "Hello from WebAssembly!" in text


@pytest.mark.integration
def test_plots_and_results_are_left(reports: Path) -> None:
    plots = {path.name for path in (reports / "plots").glob("*.png")}
    assert {"07_cold_start.png", "07_pod_waterfall.png", "08_execution.png"} <= plots
    cold = Results.load(reports / "results" / "07_cold_start.parquet")
    assert {row["path"] for row in cold.rows} - {"containerd"} == {"local", "node", "control"}
    assert any(row["engine"] == "runc" for row in cold.rows) != bool(missing())
    assert not cold.failures and not cold.is_recorded


def test_pods_of_both_paths_come_from_one_machine() -> None:
    shown = measure.both_paths(None)
    assert shown.is_recorded
    assert {"node", "containerd"} <= {row["path"] for row in shown.rows}
    # Failed runs stay rows, each with its reason; a recording in which more than a few failed must not be shown.
    assert all(row["error"] for row in shown.failures)
    assert len(shown.failures) < 0.01 * len(shown.rows)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(measure.NotebookError, match="no source 'guessed'"):
        measure.gathered("07_cold_start", "guessed")
