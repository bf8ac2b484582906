"""Every notebook can be shown from recorded data where no cluster can be had, and every plot of it says so."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlab.cluster import binary
from wasmlab.errors import NotebookError, PrerequisiteError
from wasmlab.notebooks import conventions, execute, measure
from wasmlab.notebooks.transcript import RECORDINGS

NOTEBOOKS = execute.select(execute.find_directory())
# They measure nothing and need no cluster: what they show is made on the spot in any case.
WITHOUT_SOURCE = {"00", "01"}


def _execute(path: str, out: str) -> execute.Result:
    # Whoever asks for a control plane is refused, whether one was built on this machine or not.
    os.environ |= {"WASMLAB_KUBE": "/nonexistent/wasmlab-kube", "KUBECONFIG": "/nonexistent/kubeconfig"}
    given = {} if Path(path).stem[:2] in WITHOUT_SOURCE else {"source": "recorded"}
    (result,) = execute.run(execute.plan([Path(path)], given), Path(out), cell_timeout_s=240)
    return result


@pytest.fixture(scope="module")
def pool() -> Iterator[concurrent.futures.Executor]:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context) as executor:
        yield executor


@pytest.fixture(scope="module")
def executed(pool: concurrent.futures.Executor, tmp_path_factory: pytest.TempPathFactory) -> dict:
    base = tmp_path_factory.mktemp("recorded")
    # Each into a directory of its own: none of them may live on what another one measured.
    return {
        path.stem[:2]: (base / path.stem, pool.submit(_execute, str(path), str(base / path.stem)))
        for path in NOTEBOOKS
    }


def test_no_control_plane_can_be_had_in_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMLAB_KUBE", "/nonexistent/wasmlab-kube")
    with pytest.raises(PrerequisiteError):
        binary.ensure()


@pytest.mark.timeout(600)  # the first one waits for its turn behind others
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_shown_without_a_cluster(path: Path, executed: dict) -> None:
    from PIL import Image

    out, future = executed[path.stem[:2]]
    result = future.result(timeout=580)
    assert result.status == "ok", result.error
    assert not list((out / "results").glob("*")), "what was not measured here must not be kept as if it was"
    if path.stem[:2] in WITHOUT_SOURCE:
        return
    page = (out / f"{path.stem}.html").read_text()
    assert "recorded 20" in page
    for plot in (out / "plots").glob("*.png"):
        with Image.open(plot) as picture:
            told = picture.text.get("Comment", "")
        assert told.startswith("recorded 20") and " on " in told, (
            f"{plot.name} does not say that it is recorded"
        )


def test_whoever_measures_or_needs_a_cluster_has_the_parameter() -> None:
    for path in NOTEBOOKS:
        declared = conventions.parameters(json.loads(path.read_text()))
        if path.stem[:2] in WITHOUT_SOURCE:
            assert "source" not in declared and "kubeconfig" not in declared
        else:
            assert declared["source"].default == "live"


def test_the_whole_lab_can_be_asked_for_recorded_data() -> None:
    jobs = execute.plan(NOTEBOOKS, {"source": "recorded"})
    assert {job.name[:2] for job in jobs if job.parameters.get("source") != "recorded"} == WITHOUT_SOURCE


def test_every_recorded_transcript_is_there_and_names_no_machine(repository: Path) -> None:
    import platform

    for name in RECORDINGS.values():
        text = (repository / "data/recorded" / f"{name}.json").read_text()
        about = json.loads(text)["about"]
        assert about["date"] and "cores" in about["machine"]
        # A machine that is called "runner" or "localhost" proves nothing by a word that anybody may use.
        host = platform.node() if re.search(r"\d", platform.node()) and len(platform.node()) > 5 else "/root"
        for private in (host, platform.release(), "/root", "/tmp", "/work"):
            assert private not in text, f"{name}.json tells {private}"


def test_live_is_live_and_anything_else_is_refused() -> None:
    assert measure.live("live") and not measure.live("recorded")
    with pytest.raises(NotebookError, match="no source 'guessed'"):
        measure.live("guessed")
