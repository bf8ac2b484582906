"""The workflows cannot run here, so all that they run is a make target, and that is tried by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import wasmlab
from wasmlab.engines import native_binding

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_steps_are_make_targets_and_pinned_actions(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+(\.\d+)*", step["uses"]), step
        else:
            made = re.fullmatch(r"make ([a-z0-9]+)", step["run"])
            assert made or step["run"].startswith("rustup "), step
            assert not made or made[1] in TARGETS, step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_may_only_read_unless_they_publish_and_end_some_time(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert name == "publish" or ("timeout-minutes" in job and "permissions" not in job)


def test_ci_runs_what_the_readme_promises_and_what_ci_run_does() -> None:
    ran = {step.get("run") for step in steps(ROOT / ".github" / "workflows" / "ci.yml")}
    promised = re.findall(r"^(make \w+) +#", (ROOT / "README.md").read_text(), re.MULTILINE)
    script = re.findall(r"^make \w+$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert promised and script
    assert {*promised, *script} <= ran


def test_the_release_builds_with_a_compiler_that_is_new_enough() -> None:
    from wasmlab.engines.native_build import MINIMUM

    (rust,) = [step["run"] for step in steps(ROOT / ".github" / "workflows" / "release.yml")
               if "rustup" in step.get("run", "")]  # fmt: skip
    found = re.search(r"install (\d+)\.(\d+)", rust)
    assert found and (int(found[1]), int(found[2])) >= MINIMUM


def test_the_extra_names_the_versions_that_are_made() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == wasmlab.__version__
    assert set(project["optional-dependencies"]["all"]) == {
        f"wasmlab-kube=={wasmlab.__version__}",
        f"wasmer-native=={native_binding.version()}",
    }
