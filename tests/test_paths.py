from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wasmlab import paths
from wasmlab.errors import PrerequisiteError, WasmlabError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_cache_dir_is_private_at_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    leaf = paths.cache_dir("a", "b")
    assert leaf == tmp_path / "wasmlab" / "a" / "b"
    assert {mode(one) for one in (leaf, leaf.parent, leaf.parent.parent)} == {0o700}


def test_a_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    assert mode(paths.private_dir(loose)) == 0o700


def test_a_directory_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrerequisiteError, match="XDG_CACHE_HOME"):
        paths.private_dir(tmp_path / "file" / "below")


def test_atomic_write_replaces_with_the_given_mode(tmp_path: Path) -> None:
    target = tmp_path / "key"
    target.write_text("old")
    target.chmod(0o644)
    paths.atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert mode(target) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_write_keeps_the_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "state"
    target.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        paths.atomic_write(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


HOLDER = """
import sys, time
from pathlib import Path
from wasmlab.paths import file_lock
with file_lock(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(30)
"""


def test_a_lock_excludes_and_is_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(WasmlabError, match="the state directory is in use"),
            paths.file_lock(lock, 0.1, what="the state directory"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with paths.file_lock(lock, 0):
        pass


def test_a_directory_that_everybody_uses_is_not_made_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "somebody's").touch()
    with pytest.raises(PrerequisiteError, match="lock the others out"):
        paths.private_dir(shared)
    assert shared.stat().st_mode & 0o7777 == 0o1777
