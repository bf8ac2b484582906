"""Ratio plots show what the rows say: each value with its interval, its control, and how sure it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import synthetic
from wasmlab import plots
from wasmlab.bench import ratios
from wasmlab.bench.store import Results, load_recorded
from wasmlab.errors import BenchmarkError


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_every_start_is_drawn_over_its_control_with_its_interval(tmp_path: Path) -> None:
    recorded = load_recorded("paths")
    figure = plots.control_ratios(recorded)
    said = texts(figure)
    assert {"over the native /bin/true", "over runc"} <= set(said)
    assert any(line.startswith("ratios of medians") and "recorded 2026" in line for line in said)
    for one in ratios.against_controls(recorded.frame):
        if one.above.workload == "hello":
            digits = 0 if one.interval.value >= 100 else 1 if one.interval.value >= 10 else 2
            assert f"{one.interval:.{digits}f}".replace(" [", "  [") in said
    top, bottom = figure.axes
    assert top.get_xscale() == "log" and bottom.get_xscale() == "linear"
    assert plots.save(figure, tmp_path / "c.png").stat().st_size > 10_000


def test_engines_are_drawn_over_wasmtime() -> None:
    figure = plots.engine_ratios(synthetic.results())
    said = texts(figure)
    assert "sandbox, warm, sha256" in said and "Pod on a WASM node, cold, hello" in said
    assert any(line.startswith("wasmer beside wasmtime") for line in said)
    assert not any("open dots" in line for line in said)


def test_a_range_of_a_few_values_does_not_look_like_an_interval() -> None:
    (axis,) = plots.engine_ratios(synthetic.results(blocks=4)).axes
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert dots and all(line.get_markerfacecolor() == "white" for line in dots)
    assert any("open dots" in line for line in texts(axis.figure))


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(BenchmarkError, match="no two arms to compare"):
        plots.control_ratios(synthetic.results(paths=("local",)))
    with pytest.raises(BenchmarkError, match="no two arms to compare"):
        plots.engine_ratios(Results([], synthetic.results().environment))
