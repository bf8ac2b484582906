"""Which directories a lab may make its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmlab.cluster.statedir import StateDir
from wasmlab.errors import PrerequisiteError


def test_a_home_is_not_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").touch()
    home.chmod(0o755)
    with pytest.raises(PrerequisiteError, match="no lab's"):
        StateDir(home).prepare()
    assert home.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in home.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("content", [(), ("state.json", "notes.txt")])
def test_an_empty_directory_and_a_labs_own_become_private(tmp_path: Path, content: tuple[str, ...]) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    for name in content:
        (root / name).touch()
    root.chmod(0o755)
    StateDir(root).prepare()
    assert root.stat().st_mode & 0o777 == 0o700
