"""Ending a lab: also one that crashed, was never there, or is none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from wasmlab.cluster import processes
from wasmlab.cluster.shutdown import shut_down
from wasmlab.errors import ClusterError, WasmlabError
from wasmlab.paths import file_lock


def lab(root: Path) -> Path:
    root.mkdir()
    (root / "version.json").write_text("{}")
    (root / "lock").touch()
    return root


def test_nothing_there(tmp_path: Path) -> None:
    assert shut_down(tmp_path / "nowhere")["ended"] == []
    assert not (tmp_path / "nowhere").exists()


def test_a_stale_record_ends_nobody(tmp_path: Path) -> None:
    root = lab(tmp_path / "lab")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        stale = json.dumps({"pid": bystander.pid, "start_ticks": 1})
        (root / "state.json").write_text(stale)
        (root / "nodes" / "n").mkdir(parents=True)
        (root / "nodes" / "n" / "agent.json").write_text(stale)
        assert shut_down(root)["ended"] == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_agent_whose_control_plane_crashed_is_ended(tmp_path: Path) -> None:
    root = lab(tmp_path / "lab")
    agent = subprocess.Popen(["sleep", "60"])
    identity = processes.identify(agent.pid)
    assert identity is not None
    (root / "nodes" / "n").mkdir(parents=True)
    record = {"pid": identity.pid, "start_ticks": identity.start_ticks}
    (root / "nodes" / "n" / "agent.json").write_text(json.dumps(record))
    assert shut_down(root)["ended"] == ["node n"]
    assert agent.wait(60) != 0


def test_purge_removes_a_lab_and_nothing_else(tmp_path: Path) -> None:
    precious = tmp_path / "documents"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    with pytest.raises(ClusterError, match="no"):
        shut_down(precious, purge=True)
    assert (precious / "thesis.tex").exists()
    root = lab(tmp_path / "lab")
    shut_down(root, purge=True)
    assert not root.exists()


def test_a_lab_that_is_still_held_is_not_purged(tmp_path: Path) -> None:
    root = lab(tmp_path / "lab")
    with file_lock(root / "lock", 0), pytest.raises(WasmlabError, match="in use"):
        shut_down(root, purge=True)
    assert root.exists()
