"""Figures say what was measured, where, when and how often; and they leave no pyplot state behind."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.bench import synthetic
from wasmlab import plots
from wasmlab.errors import BenchmarkError


@pytest.fixture(scope="module")
def results():
    return synthetic.results()


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


FIGURES = {
    "cold_start": lambda r: plots.cold_start(r),
    "execution": lambda r: plots.execution(r),
    "pod_waterfall": lambda r: plots.pod_waterfall(r),
    "run_waterfall": lambda r: plots.run_waterfall(r, engine="wasmtime"),
    "start_phases": lambda r: plots.start_phases(r),
    "burst": lambda r: plots.burst(
        r, synthetic.burst()["created_s"], synthetic.burst()["succeeded_s"], what="hello"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_when_and_where_and_draws(name: str, results, tmp_path: Path) -> None:
    figure = FIGURES[name](results)
    said = texts(figure)
    assert "2026-11-24 on 2 cores of AMD EPYC, 24 GiB, Linux" in said
    assert "recorded" not in said
    path = plots.save(figure, tmp_path / "deep" / f"{name}.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("name", FIGURES)
def test_recorded_results_are_marked(name: str) -> None:
    results = synthetic.results(blocks=4)
    results.is_recorded = True
    assert "recorded 2026-11-24 on 2 cores of AMD EPYC" in texts(FIGURES[name](results))


def test_counts_are_on_the_figure(results) -> None:
    assert "n = 12 per arm" in texts(plots.cold_start(results))
    results = synthetic.results(blocks=5, paths=("local",))
    del results.rows[0]
    assert "n = 4 to 5 per arm" in texts(plots.execution(results)) + texts(plots.cold_start(results))


def test_medians_and_ratios_are_those_of_the_rows(results) -> None:
    import numpy as np

    def middle(engine: str, workload: str) -> float:
        rows = [
            row["total_ns"] * 1e-6
            for row in results.rows
            if (row["path"], row["mode"], row["engine"], row["workload"])
            == ("local", "warm", engine, workload)
        ]
        return float(np.median(rows))

    said = texts(plots.execution(results))
    assert f"{middle('wasmtime', 'python'):.1f}" in said
    assert f"{middle('wasmer', 'sha256') / middle('wasmtime', 'sha256'):.2f}×" in said
    assert "wasmer / wasmtime" in said


def test_execution_keeps_the_order_that_was_asked_for(results) -> None:
    figure = plots.execution(results, workloads=["python", "hello"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["python", "hello"]


def test_waterfall_shows_a_typical_pod_or_the_one_asked_for(results) -> None:
    pods = [row for row in results.rows if row["path"] == "node"]
    slowest = max(pods, key=lambda row: row["total_ns"])
    assert f"Where a pod's time goes: {slowest['total_ns'] * 1e-6:.1f} ms" in texts(
        plots.pod_waterfall(results, slowest["run_id"])
    )
    typical = plots.pod_waterfall(results)
    assert "API server stores the Pod" in texts(typical) and "client sees Succeeded" in texts(typical)
    totals = sorted(row["total_ns"] for row in pods)
    shown = float(typical.get_suptitle().split(":")[1].split()[0])
    assert totals[len(totals) // 4] * 1e-6 - 0.1 <= shown <= totals[3 * len(totals) // 4] * 1e-6 + 0.1


def test_failed_runs_are_not_drawn() -> None:
    results = synthetic.results(blocks=3, paths=("local",))
    for row in results.rows:
        if row["engine"] == "wasmer":
            row["ok"] = False
    assert "wasmer" not in texts(plots.cold_start(results))


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: plots.cold_start(r, workload="nbody"),
        lambda r: plots.execution(r, path="node", mode="warm", workloads=["sha256"]),
        lambda r: plots.pod_waterfall(r, "no such run"),
        lambda r: plots.burst(r, [], []),
        lambda r: plots.start_phases(r, workload="nbody"),
    ],
)
def test_what_was_not_measured_cannot_be_drawn(draw, results) -> None:
    with pytest.raises(BenchmarkError):
        draw(results)


def test_engines_have_colors_that_differ_in_gray_too() -> None:
    import matplotlib.colors

    def lightness(color: str) -> float:
        r, g, b = matplotlib.colors.to_rgb(color)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    shades = [lightness(plots.ENGINE_COLORS[name]) for name in ("wasmtime", "wasmer")]
    assert abs(shades[0] - shades[1]) > 0.02


def test_the_same_figure_gives_the_same_bytes(results, tmp_path: Path) -> None:
    one = plots.save(plots.cold_start(results), tmp_path / "1.png").read_bytes()
    assert one == plots.save(plots.cold_start(results), tmp_path / "2.png").read_bytes()


def test_a_notebook_gets_a_sharp_picture_once(results) -> None:
    data, size = plots.cold_start(results)._repr_png_()
    assert data[:4] == b"\x89PNG"
    import struct

    width = struct.unpack(">I", data[16:20])[0]
    assert width == 2 * size["width"]


def test_pyplot_is_not_touched() -> None:
    code = (
        "import sys; from tests.bench import synthetic; from wasmlab import plots;"
        "plots.cold_start(synthetic.results(3)); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])


def test_the_picture_of_the_phases_shows_all_of_them_where_they_belong() -> None:
    from wasmlab.bench import phases
    from wasmlab.plots.phase_map import PHASE_COLORS

    figure = plots.phase_map()
    for axis, table in zip(figure.axes, (phases.ENGINE, phases.POD), strict=True):
        lanes = [label.get_text() for label in axis.get_yticklabels()]
        shown = {text.get_text().replace("\n", "_"): text.get_position()[1] for text in axis.texts}
        for phase in table:
            assert lanes[round(shown[phase.name])] == phase.place, phase.name
    # Every engine phase has a color of its own, here and in every other figure.
    assert tuple(PHASE_COLORS) == phases.ENGINE_PHASES
    assert len(set(PHASE_COLORS.values())) == len(PHASE_COLORS)


def test_the_picture_marks_the_phases_of_every_kind_of_start() -> None:
    from wasmlab.bench import phases

    above = plots.phase_map().axes[0]
    marks = [line.get_data() for line in above.lines if line.get_linewidth() > 2]
    assert len(marks) == sum(len(names) for names in phases.LOCAL.values())
    rows = sorted({round(float(y[0]), 3) for _, y in marks})
    for row, mode in zip(rows, ("cold", "cached", "warm"), strict=True):
        columns = [int(x[0]) for x, y in marks if round(float(y[0]), 3) == row]
        assert [phases.ENGINE_PHASES[column] for column in sorted(columns)] == list(phases.LOCAL[mode])


def test_a_workload_of_one_engine_is_marked_so() -> None:
    results = synthetic.results(blocks=4)
    results.rows = [row for row in results.rows if (row["engine"], row["workload"]) != ("wasmer", "sha256")]
    said = texts(plots.execution(results))
    assert said.count("wasmtime only") == 1 and "×" in said


def test_three_engines_fit_into_the_picture_of_starts(tmp_path: Path) -> None:
    results = synthetic.results(blocks=4)
    results.rows += [
        row | {"engine": "wasmtime-runner"} for row in results.rows if row["engine"] == "wasmtime"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns when the legends leave no room for the axes
        plots.cold_start(results).savefig(tmp_path / "starts.png")
