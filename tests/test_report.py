"""A results directory becomes tables and pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import synthetic, synthetic_scale
from wasmlab import report
from wasmlab.bench.figures import Headline, headline, headlines
from wasmlab.errors import BenchmarkError


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    results = synthetic.results()
    results.rows[0] |= {"ok": False, "error": "Trap: un|reachable\nsecond line"}
    results.extra = {"burst": synthetic.burst(), "samples": {}}
    results.extra["headlines"] = [
        asdict(one) | {"met": one.met} for one in headlines(results, {"pod Running": [3.0] * 25})
    ]
    out = tmp_path_factory.mktemp("results")
    results.save(out / "figures.parquet")
    report.write(out)
    return out


def test_everything_is_written(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} >= {
        "figures.parquet", "figures.json", "report.md", "report.html", "cold_start.png", "execution.png",
        "start_phases.png", "pod_waterfall.png", "burst.png", "control_ratios.png", "engine_ratios.png",
    }  # fmt: skip


def test_markdown_has_tables_that_hold(directory: Path) -> None:
    text = (directory / "report.md").read_text()
    assert "## Headline figures" in text and "## Every arm" in text and "## Ratios" in text
    assert "local wasmer warm python" in text
    assert "CPU 80% busy, 1.0% stolen by the host" in text
    assert "1 × local wasmtime cold hello: Trap: un|reachable" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1


def test_html_is_complete_and_escaped(directory: Path) -> None:
    text = (directory / "report.html").read_text()
    assert text.startswith("<!doctype html>") and text.count("<table>") == text.count("</table>") >= 4
    assert 'alt="' in text and "cold_start.png" in text
    assert "<script" not in text


def test_html_escapes_what_it_is_given() -> None:
    assert "&lt;b&gt;" in report.as_html((("x",), [("<b>",)]))


def test_only_what_was_measured_is_reported(tmp_path: Path) -> None:
    synthetic.results(blocks=3, paths=("local",)).save(tmp_path / "local.parquet")
    names = {path.name for path in report.write(tmp_path)}
    assert "pod_waterfall.png" not in names and "burst.png" not in names
    assert "cold_start.png" in names
    assert "Headline figures" not in (tmp_path / "report.md").read_text()


def test_an_arm_whose_every_run_failed_is_in_the_table(tmp_path: Path) -> None:
    results = synthetic.results(blocks=3, paths=("local",))
    for row in results.rows:
        if row["engine"] == "wasmer":
            row |= {
                "ok": False,
                "error": "LinkError: no such import",
                "total_ns": None,
                "first_byte_ns": None,
            }
    head, rows = report.arm_table(results)
    failed = [row for row in rows if "wasmer" in row[0]]
    assert failed and all(row[1] == "–" and row[-1] == "3" for row in failed)
    assert all(len(row) == len(head) for row in rows)
    report.write(tmp_path, results)


def test_engines_side_by_side_are_the_same_start() -> None:
    results = synthetic.results(blocks=8, paths=("local",))
    head, rows = report.engine_table(results, ["hello"])
    assert rows and all(len(row) == len(head) for row in rows)
    for start, base, other, ratio, _n in rows:
        assert start.startswith("hello, ") and start.endswith(", sandbox")
        above, below = float(other.split()[1]), float(base.split()[0])
        assert float(ratio.split()[0]) == pytest.approx(above / below, rel=0.05)
    assert report.engine_table(results, ["no such"])[1] == []


def test_scale_experiments_have_curves_and_no_arms(tmp_path: Path) -> None:
    results = synthetic.results(blocks=2, paths=("local",))
    results.rows += synthetic_scale.results(blocks=2, engines=("wasmtime",)).rows
    names = {path.name for path in report.write(tmp_path, results)}
    assert names >= {"scale_burst.png", "scale_density.png", "scale_concurrency.png", "cold_start.png"}
    text = (tmp_path / "report.md").read_text()
    assert "| duration of a burst, per Pod, wasmtime | " in text and "| knee at " in text
    # Thousands of Pods under load are not in the medians of single ones.
    assert "burst-" not in text.split("## Cost curves")[0]
    assert all(len(row) == 5 for row in report.scale_table(results)[1])


def test_scale_experiments_alone_are_a_report(tmp_path: Path) -> None:
    results = synthetic_scale.results(blocks=2, engines=("wasmtime",))
    results.rows = [row for row in results.rows if row["experiment"] == "density"]
    names = {path.name for path in report.write(tmp_path, results)}
    assert names == {"scale_density.png", "report.md", "report.html"}
    assert "Every arm" not in (tmp_path / "report.md").read_text()


def test_no_results_no_report(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no results"):
        report.write(tmp_path)


def test_headlines_know_their_targets() -> None:
    fast = headline("x", "ms", [10.0] * 30, target=25.0, p95_target=60.0)
    assert fast.met is True and fast.p95 == 10.0
    tail = headline("x", "ms", [10.0] * 20 + [100.0] * 10, target=25.0, p95_target=60.0)
    assert tail.median == 10.0 and tail.met is False
    assert headline("x", "ms", [1.0]).met is None
    assert Headline("x", "1/s", 150, 150, 150, None, 1, 100.0, True).met is True
    assert Headline("x", "1/s", 50, 50, 50, None, 1, 100.0, True).met is False


def test_plain_table_is_aligned() -> None:
    lines = report.plain((("name", "ms"), [("a", "1.0"), ("longer", "100")])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1] == "longer  100"


def test_headline_table_for_people(directory: Path) -> None:
    from wasmlab.bench.store import Results

    _, rows = report.headline_table(Results.load(directory / "figures.parquet"))
    by_name = {row[0]: row for row in rows}
    pods = by_name["pod written to Succeeded seen, wasmtime"]
    assert pods[1].endswith(" ms") and pods[-1] == "≤ 25, p95 ≤ 60 ✓"
    burst = by_name["burst of 200 pods, 200 Succeeded, wasmtime"]
    assert burst[2] == "" and "≥ 100" in burst[-1]
