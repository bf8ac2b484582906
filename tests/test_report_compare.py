"""`wasmlab report compare`: a verdict for people, for programs, and for CI."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.bench import synthetic
from wasmlab.bench.compare import verdict
from wasmlab.bench.store import Results
from wasmlab.cli import build_app
from wasmlab.errors import BenchmarkError
from wasmlab.reference.documents import DOCUMENTS
from wasmlab.report import compare


def shaken(results: Results, session: str, factor: float = 1.0, engine: str = "wasmer") -> Results:
    """Return the same measurement made again: other noise, one engine `factor` times as slow."""
    again = copy.deepcopy(results)
    dice = random.Random(session)
    for number, row in enumerate(again.rows):
        row |= {"session": session, "run_id": f"{session}-{number}"}
        times = dice.lognormvariate(0, 0.05) * (factor if row["engine"] == engine else 1.0)
        row["total_ns"] = int(row["total_ns"] * times)
    return again


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    base = synthetic.results(blocks=40, paths=("local", "control"))
    keep = ("warm", "exec")
    base.rows = [row for row in base.rows if row["mode"] in keep and row["workload"] in ("hello", "true")]
    elsewhere = shaken(base, "d")
    elsewhere.environment = elsewhere.environment | {"cpu_model": "another CPU"}
    other = copy.deepcopy(base)
    for number, row in enumerate(other.rows):
        row |= {"run_id": f"o-{number}", "session": "o", "mode": "other"}
    out = tmp_path_factory.mktemp("sets")
    made = {
        "before": base, "same": shaken(base, "b"), "slower": shaken(base, "c", 1.5), "elsewhere": elsewhere,
        "other": other,
    }  # fmt: skip
    return {name: one.save(out / name / "local.parquet") for name, one in made.items()}


def run(*words: object):
    return CliRunner().invoke(build_app("report"), ["report", *map(str, words)])


def test_a_slower_arm_fails_only_where_it_is_asked_for(sets) -> None:
    done = run("compare", sets["before"], sets["slower"])
    assert done.exit_code == 0, done.output
    assert "verdict: slower (1 slower" in done.output
    first = next(line for line in done.output.splitlines() if line.startswith("local/"))
    assert first.split()[:2] == ["local/wasmer/warm/hello", "slower"]
    assert run("compare", sets["before"], sets["slower"], "--fail-on", "slower").exit_code == 1
    assert run("compare", sets["slower"], sets["before"], "--fail-on", "slower").exit_code == 0
    assert run("compare", sets["slower"], sets["before"], "--fail-on", "changed").exit_code == 1


def test_no_change_fails_nothing(sets) -> None:
    done = run("compare", sets["before"], sets["same"], "--fail-on", "changed")
    assert done.exit_code == 0, done.output
    assert "environment: same: " in done.output and " slower" not in done.output.split("verdict:")[1]


def test_json_is_complete(sets) -> None:
    done = run("compare", sets["before"], sets["slower"], "--json", "--fail-on", "slower")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert set(told) == set(DOCUMENTS["report compare"])
    assert told["verdict"] == "slower" and told["environment"]["verdict"] == "same"
    arm = next(one for one in told["arms"] if one["arm"] == "local/wasmer/warm/hello")
    assert arm["verdict"] == "slower" and 1.2 < arm["adjusted"]["low"] < 1.5 < arm["adjusted"]["high"] < 1.9
    assert told["before"]["runs"] == told["after"]["runs"] > 0 and not told["before"]["recorded"]


def test_another_machine_is_refused_unless_it_is_the_question(sets) -> None:
    done = run("compare", sets["before"], sets["elsewhere"], "--fail-on", "slower")
    assert done.exit_code == 3
    assert "cpu_model is 'AMD EPYC' here and 'another CPU' there" in done.output
    assert "--across host" in done.output
    done = run("compare", sets["before"], sets["elsewhere"], "--across", "host")
    assert done.exit_code == 0 and "They differ in:" in done.output


def test_what_has_no_arm_in_common_is_refused(sets) -> None:
    done = run("compare", sets["before"], sets["other"], "--json")
    assert done.exit_code == 3
    told = json.loads(done.stdout)
    assert told["verdict"] == "refused" and any("no arm" in why for why in told["refused"])
    # Nothing that --across could name helps here.
    assert "--across" not in run("compare", sets["before"], sets["other"]).output


def test_the_same_runs_twice_are_refused(sets) -> None:
    assert run("compare", sets["before"], sets["before"]).exit_code == 3


def test_what_is_not_there_is_no_slower_arm(sets, tmp_path: Path) -> None:
    # 3 and not 1: a missing file must not read as a verdict.
    for missing in (tmp_path / "nothing.parquet", tmp_path):
        done = run("compare", sets["before"], missing, "--fail-on", "slower")
        assert done.exit_code == 3, done.output


@pytest.mark.parametrize("words", [("--fail-on", "often"), ("--value", "ok"), ("--value", "nonsense")])
def test_wrong_usage_is_told(sets, words) -> None:
    assert run("compare", sets["before"], sets["same"], *words).exit_code == 2


def test_an_unknown_kind_is_refused_with_the_known_ones(sets) -> None:
    done = run("compare", sets["before"], sets["same"], "--across", "weather")
    assert done.exit_code == 3 and "host" in done.output + (done.stderr or "")


def test_a_directory_and_the_recorded_run_can_be_named(sets) -> None:
    assert len(compare.read(str(sets["before"].parent)).rows) == len(Results.load(sets["before"]).rows)
    assert compare.read("recorded").is_recorded and compare.read("recorded:figures").is_recorded
    with pytest.raises(BenchmarkError):
        compare.read("recorded:nothing")


def test_the_sentence_counts_what_was_found(sets) -> None:
    sides = Results.load(sets["before"]), Results.load(sets["slower"])
    comparison = verdict(*sides)
    said = compare.sentence(comparison)
    assert said.startswith("slower (1 slower") and f"of {len(comparison.arms)} arms" in said


def test_plain_report_writes_as_before(sets, tmp_path: Path) -> None:
    Results.load(sets["before"]).save(tmp_path / "local.parquet")
    done = run(tmp_path)
    assert done.exit_code == 0 and (tmp_path / "report.md").exists()
    assert str(tmp_path / "report.md") in done.output.splitlines()
