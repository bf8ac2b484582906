"""What notebook 10 says follows from the data, also where there is nothing to say."""

from __future__ import annotations

import pytest

from tests.bench import synthetic, synthetic_scale
from wasmlab.bench.scale import Sizes
from wasmlab.errors import NotebookError
from wasmlab.notebooks import measure, scaling


@pytest.fixture(scope="module")
def results():
    return synthetic_scale.results(engines=("wasmtime",))


def test_a_knee_is_said_with_its_interval(results) -> None:
    (said,) = scaling.about_bursts(results)
    assert said.startswith("On **wasmtime** each more Pod of a burst costs ")
    assert "There is a **knee at " in said and "] Pods at once**: for each more beyond" in said
    assert "500 at once make 5" in said


def test_density_tells_memory_and_start(results) -> None:
    (said,) = scaling.about_density(results)
    assert "each live Pod takes 4" in said or "each live Pod takes 3.9" in said
    assert "The control plane: " in said and "live Pods**" in said


def test_concurrency_tells_every_arm(results) -> None:
    said = scaling.about_concurrency(results)
    assert len(said) == 3
    assert any(one.startswith("**native**, native processes, the control: at most ") for one in said)
    assert all("knee at 2" in one for one in said)


def test_no_knee_is_said_up_to_where(results) -> None:
    few = synthetic_scale.results(engines=("wasmtime",))
    few.rows = [row for row in few.rows if row["experiment"] == "density" and row["load"] < 60]
    (said,) = scaling.about_density(few)
    assert "4 sizes are too few to tell a knee" in said.lower()


def test_nothing_measured_nothing_said() -> None:
    nothing = synthetic.results(blocks=1)
    assert scaling.about_bursts(nothing) == []
    assert scaling.about_density(nothing) == scaling.about_concurrency(nothing) == []


def test_the_recorded_run_is_shown_whatever_the_sizes() -> None:
    shown = measure.scale("10_how_far", "recorded", Sizes.quick())
    assert shown.is_recorded and not shown.failures
    assert {row["experiment"] for row in shown.rows} == {"burst", "density", "concurrency"}
    assert {row["engine"] for row in shown.rows} == {"wasmtime", "wasmer", "native"}
    with pytest.raises(NotebookError, match="no source 'guessed'"):
        measure.scale("10_how_far", "guessed", Sizes.quick())
