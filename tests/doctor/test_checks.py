from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlab.doctor import checks


def test_a_check_that_fails_unexpectedly_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken_check() -> Iterator[checks.Finding]:
        raise OSError("the file system is on fire")
        yield

    monkeypatch.setattr(checks, "_CHECKS", (_broken_check,))
    (finding,) = checks.check()
    assert finding.state == "missing"
    assert "on fire" in finding.detail


def test_memory_is_plausible() -> None:
    total, available = checks.memory_bytes()
    assert 0 < available <= total


def test_path_2_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    (finding,) = checks._containerd_path()
    assert finding.state == "limited"
    assert "root" in finding.detail and "containerd" in finding.detail
    assert finding.remedy


def test_the_control_plane_is_looked_for_where_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "kube"
    program.write_bytes(b"\0" * 1_000_000)
    program.chmod(0o755)
    monkeypatch.setenv("WASMLAB_KUBE", str(program))
    (found,) = checks._control_plane()
    assert (found.state, found.detail[:11]) == ("ok", "built, 1 MB")


def test_every_check_of_this_machine_ends_without_a_surprise() -> None:
    assert [one.detail for one in checks.check() if "the check failed" in one.detail] == []
