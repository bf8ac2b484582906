"""The installer touches a machine only if it may, and says why if it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wasmlab.containerd import install, programs
from wasmlab.errors import ProcessError


@pytest.mark.parametrize(
    ("text", "is_debian"),
    [
        ('ID=debian\nVERSION_ID="12"\n', True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ("ID='ubuntu'\n", True),
        ("ID=fedora\n", False),
        ('NAME="debian"\nID=arch\n', False),
        ("", False),
    ],
)
def test_debian_and_its_relatives_are_recognised(text: str, is_debian: bool) -> None:
    assert install.debian_like(text) is is_debian


def test_reasons_not_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=fedora\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "WASMLAB_NO_INSTALL" in install.why_not({"WASMLAB_NO_INSTALL": "1"}, release)
    assert "not Debian" in install.why_not({}, release)
    assert "not Debian" in install.why_not({}, tmp_path / "missing")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in install.why_not({}, release)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that may install, and has nothing yet."""
    monkeypatch.setattr(programs, "missing", lambda: "not installed: containerd")
    monkeypatch.setattr(install, "why_not", lambda: "")


def test_nothing_is_run_where_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "missing", lambda: "")
    ran: list[list[str]] = []
    assert install.ensure(ran.append)
    assert ran == []


def test_nothing_is_run_where_it_must_not(
    bare: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "why_not", lambda: "only root can install packages")
    ran: list[list[str]] = []
    assert not install.ensure(ran.append)
    assert ran == []
    assert "only root" in capsys.readouterr().err


def test_an_old_list_of_packages_is_renewed(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(argv: list[str]) -> None:
        ran.append(argv)
        if len(ran) == 1:
            raise ProcessError("failed", argv=argv)
        if len(ran) == 3:
            monkeypatch.setattr(programs, "missing", lambda: "")

    assert install.ensure(run)
    assert [("update" in argv, "containerd" in argv) for argv in ran] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_a_failure_is_told_and_the_lab_goes_on(
    bare: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "_run", lambda argv: install_fails(argv))
    assert install.main() == 0
    assert "no route" in capsys.readouterr().err


def install_fails(argv: list[str]) -> None:
    raise ProcessError("failed", argv=argv, returncode=100, log_tail="no route")
