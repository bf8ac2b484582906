from __future__ import annotations

from collections.abc import Iterator

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


def test_path_2_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (finding,) = checks._containerd_path()
    assert finding.state == "limited"
    assert "root" in finding.detail
    assert finding.remedy
