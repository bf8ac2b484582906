"""The workspace as a file. That JupyterLab understands it is tried in tests/ui."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wasmlab.notebooks import jupyter, workspace

ROOT = Path(__file__).resolve().parents[2]


def test_every_tab_is_of_something_that_is_there() -> None:
    document = workspace.document("any")
    tabs = document["data"]["layout-restorer:data"]["main"]["dock"]["widgets"]
    assert document["metadata"]["id"] == "any"
    assert len(tabs) == 4
    for tab in tabs:
        known = document["data"][tab]["data"]
        assert "path" not in known or (ROOT / known["path"]).is_file()
    assert all("README" not in tab for tab in workspace.document("any", readme=False)["data"])


def test_what_somebody_arranged_stays_until_it_is_reset(tmp_path: Path) -> None:
    path = workspace.save(tmp_path, "lab")
    ours = path.read_text()
    path.write_text("{}")
    assert workspace.save(tmp_path, "lab").read_text() == "{}"
    assert workspace.save(tmp_path, "lab", reset=True).read_text() == ours
    config = workspace.without_news(tmp_path)
    page = config / "labconfig" / "page_config.json"
    page.write_text("{}")
    workspace.without_news(tmp_path)
    assert page.read_text() == "{}"


def test_binder_starts_with_it(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    env |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    subprocess.run([ROOT / "binder" / "start", "true"], cwd=ROOT, env=env, check=True, timeout=60)
    (path,) = (tmp_path / ".jupyter" / "lab" / "workspaces").glob("*.jupyterlab-workspace")
    assert json.loads(path.read_text())["metadata"]["id"] == "default"


@pytest.mark.parametrize("checkout", [True, False])
def test_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: bool) -> None:
    base = tmp_path / ("base" if checkout else "_material")
    here = tmp_path / "here"
    here.mkdir()
    (base / "notebooks").mkdir(parents=True)
    (base / workspace.FIRST).write_text("{}")
    monkeypatch.setattr(jupyter, "root", lambda: base)
    served = jupyter.directory(here)
    assert served == (base if checkout else here)
    assert (served / workspace.FIRST).read_text() == "{}"
    # What is there is served and not copied over.
    (served / workspace.FIRST).write_text("mine")
    assert jupyter.directory(served) == served
    assert (served / workspace.FIRST).read_text() == "mine"
