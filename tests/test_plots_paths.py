"""Figures that hold Pods of both paths, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import synthetic
from wasmlab import plots, report
from wasmlab.bench.store import Results
from wasmlab.errors import BenchmarkError
from wasmlab.notebooks import findings

# When, in milliseconds, an ordinary Pod of path 2 has come how far; runc's task takes 60 longer to be created.
MOMENTS = {
    "api_write": 3, "scheduled": 6, "seen": 7, "sandboxed": 50, "contained": 60, "created": 80, "started": 90,
    "first_byte": 95, "exited": 100, "noticed": 900, "status_observed": 2000,
}  # fmt: skip


@pytest.fixture(scope="module")
def both() -> Results:
    results = synthetic.results()
    for block in range(8):
        for engine in ("wasmtime", "wasmer", "runc"):
            for mode in ("cold", "cached"):
                late = 60 * (engine == "runc") + block / 10
                at = {
                    f"{name}_ns": int((ms + (late if 80 <= ms < 900 else 0)) * 1e6)
                    for name, ms in MOMENTS.items()
                }
                results.rows.append(
                    results.rows[0]
                    | {
                        "run_id": f"c-{block}-{engine}-{mode}",
                        "path": "containerd",
                        "engine": engine,
                        "mode": mode,
                        "workload": "hello",
                        "block": block,
                        "total_ns": at["status_observed_ns"],
                        **at,
                    }
                )
    return results


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_where_the_time_goes_is_drawn_for_every_kind_of_pod(both: Results, tmp_path: Path) -> None:
    figure = plots.where_time_goes(both)
    said = texts(figure)
    names = ["path 1, wasmtime", "path 1, wasmer", "path 2, wasmtime", "path 2, wasmer", "path 2, runc"]
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_yticklabels()] == names
    # Until the first byte, and until Succeeded; the median of eight.
    assert "95.3 ms" in said
    assert "155 ms" in said
    assert said.count("2,000 ms") == 3
    assert plots.save(figure, tmp_path / "where.png").stat().st_size > 10_000


def test_stages_fill_a_bar_without_gaps(both: Results) -> None:
    figure = plots.where_time_goes(both)
    for axis in figure.axes:
        rows: dict[float, list[tuple[float, float]]] = {}
        for bar in axis.patches:
            rows.setdefault(round(bar.get_y(), 3), []).append((bar.get_x(), bar.get_width()))
        assert len(rows) == 5
        for pieces in rows.values():
            at = 0.0
            for start, width in sorted(pieces):
                assert start == pytest.approx(at, abs=1e-6)
                at = start + width


def test_pods_of_both_paths_are_drawn_on_one_scale(both: Results) -> None:
    figure = plots.cold_start(both, paths=("node", "containerd"))
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert "runc, cached: 155 ms" in texts(figure)
    # What path 2 has is not in the figure of path 1 that it was never asked for.
    assert not any("runc" in text for text in texts(plots.cold_start(both)))


def test_a_pod_of_path_2_is_told_stage_by_stage(both: Results) -> None:
    said = texts(plots.pod_waterfall(both, path="containerd"))
    assert any("through containerd: 2,000 ms" in text for text in said)
    assert "kubelet notices the end" in said
    assert "800 ms" in said


def test_without_pods_there_is_nothing_to_draw() -> None:
    with pytest.raises(BenchmarkError, match="Pod of hello"):
        plots.where_time_goes(synthetic.results(paths=("local",)))


def test_the_report_has_both_paths(both: Results, tmp_path: Path) -> None:
    written = {path.name for path in report.write(tmp_path, both)}
    assert "where_time_goes.png" in written
    table = report.arm_table(both)[1]
    assert any(row[0] == "containerd runc cached hello" for row in table)


def test_both_paths_are_compared_in_words(both: Results) -> None:
    first, second, last = findings.about_paths(both, ["wasmtime", "wasmer"])
    assert "path 2 needs" in first
    assert "runc needs **1.6 times** as long to the first byte as the module" in first
    assert second.startswith("On **wasmer**")
    assert last.startswith("On path 2, 95% of the time")


def test_no_comparison_without_the_other_path() -> None:
    (sentence,) = findings.about_paths(synthetic.results(), ["wasmtime"])
    assert "not Pods of both paths" in sentence


def test_the_time_of_a_task_is_containerds(both: Results) -> None:
    tasks = findings.task_times(both)
    assert {row["path"] for row in tasks.rows} == {"containerd"}
    assert {row["total_ns"] for row in tasks.rows} == {20_000_000}
    assert "runc" in "".join(texts(plots.execution(tasks, path="containerd", mode="cached")))
