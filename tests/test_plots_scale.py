"""The figures of the scale experiments: what was measured is drawn, the knee is named, where there is one."""

from __future__ import annotations

import dataclasses

import pytest
from matplotlib.text import Text

from tests.bench import synthetic, synthetic_scale
from wasmlab import plots
from wasmlab.errors import BenchmarkError

FIGURES = (plots.scale_burst, plots.scale_density, plots.scale_concurrency)


@pytest.fixture(scope="module")
def results():
    return synthetic_scale.results()


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_knee_is_named_and_what_one_more_costs(results) -> None:
    said = texts(plots.scale_burst(results))
    assert "knee: " in said and "up to a knee at" in said and "wasmer: " in said
    said = texts(plots.scale_density(results))
    assert "wasmtime: node, private: " in said.replace("\n", " ") and "no knee" in said
    said = texts(plots.scale_concurrency(results))
    assert "native /bin/true: " in said and "as Pods" in said


def test_without_a_knee_it_says_so() -> None:
    results = synthetic_scale.results(blocks=3, engines=("wasmtime",))
    results.rows = [row for row in results.rows if row["load"] <= 50]
    said = texts(plots.scale_burst(results))
    assert "knee: " not in said and "3 sizes are too few to tell a knee" in said


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_recorded_is_marked(results, draw, tmp_path) -> None:
    figure = draw(dataclasses.replace(results, is_recorded=True))
    assert "recorded 2026-11-24 on 2 cores" in texts(figure)
    assert plots.save(figure, tmp_path / "x.png").stat().st_size > 20_000


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_what_was_not_measured_is_not_drawn(draw) -> None:
    with pytest.raises(BenchmarkError, match="bench scale"):
        draw(synthetic.results(blocks=1))


def test_one_path_alone_is_drawn(results) -> None:
    rows = [row for row in results.rows if row["path"] == "node"]
    assert "as Pods" in texts(plots.scale_concurrency(dataclasses.replace(results, rows=rows)))
