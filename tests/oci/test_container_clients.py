from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from wasmlab.errors import PrerequisiteError
from wasmlab.oci import container_clients
from wasmlab.oci.container_clients import Answer

REF = "127.0.0.1:5000/hello:v1"


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_recording_shows_a_refusal_by_each_client() -> None:
    answers = container_clients.recorded()
    assert {answer.client for answer in answers} >= {"skopeo", "podman", "ctr", "docker"}
    for answer in answers:
        assert answer.recorded and answer.refused and answer.date and answer.version[0].isdigit()
        assert "rootfs" in answer.reason or "application/vnd.wasm.config.v1+json" in answer.reason
        assert f"(recorded {answer.date})" in str(answer)


def test_without_a_client_the_recording_is_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert container_clients.available() == ()
    assert all(answer.recorded for answer in container_clients.demonstrate(REF))
    with pytest.raises(PrerequisiteError, match="skopeo"):
        container_clients.ask("skopeo", REF)


def test_a_client_is_asked_with_a_state_of_its_own(path: Path, tmp_path: Path) -> None:
    program(
        path,
        "podman",
        f'case "$1" in --version) echo podman version 9.9.9;; *) echo "$@" "HOME=$HOME" > {tmp_path}/asked; '
        r"""printf 'pulling\n\033[32mx\033[0m |++++|\nError: no rootfs\n' >&2; exit 125;; esac""",
    )
    answer = container_clients.ask("podman", REF)
    assert (answer.client, answer.version, answer.exit_code, answer.recorded) == (
        "podman",
        "9.9.9",
        125,
        False,
    )
    assert answer.argv == ("podman", "pull", "--tls-verify=false", REF)
    assert answer.output == "pulling\nError: no rootfs"
    assert answer.reason == "Error: no rootfs"
    asked = (tmp_path / "asked").read_text()
    assert "--root" in asked and f"HOME={os.environ['HOME']}" not in asked
    state = asked.split("HOME=")[1].strip()
    assert not Path(state).exists()


def test_a_client_that_hangs_is_ended(path: Path) -> None:
    program(path, "skopeo", 'case "$1" in --version) echo skopeo version 1;; *) exec /bin/sleep 30;; esac')
    answer = container_clients.ask("skopeo", REF, timeout_s=0.3)
    assert answer.exit_code == 124


def test_https_registries_are_asked_by_https(path: Path) -> None:
    program(path, "skopeo", 'echo "$@"; exit 1')
    assert "--tls-verify=false" not in container_clients.ask("skopeo", "reg.example.org/a:v1").argv


def test_nothing_is_installed_by_others_than_root(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(path, "apt-get", f"echo ran >> {tmp_path}/apt")
    monkeypatch.setattr("wasmlab.oci.container_clients.os.geteuid", lambda: 1000)
    assert not container_clients.install()
    assert not (tmp_path / "apt").exists()
    monkeypatch.setattr("wasmlab.oci.container_clients.os.geteuid", lambda: 0)
    assert not container_clients.install()  # apt ran, but brought nothing
    assert (tmp_path / "apt").exists()


def test_record_round_trips() -> None:
    answer = Answer("skopeo", "1.9.3", ("skopeo", "inspect"), 1, "no", recorded=False, date="2026-11-24")
    content = json.loads(container_clients.record([answer], "some machine"))
    assert content["answers"][0]["argv"] == ["skopeo", "inspect"]
    assert "recorded" not in content["answers"][0]


def test_the_process_that_a_rootless_podman_leaves_is_ended_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "libpod" / "tmp"
    folder.mkdir(parents=True)
    sleeper = ["sleep", "60"]
    own = subprocess.Popen(sleeper, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    other = subprocess.Popen(sleeper, env={**os.environ, "XDG_RUNTIME_DIR": f"{tmp_path}-2"})
    try:
        for process in (own, other):
            with container_clients._without_pause(tmp_path):
                (folder / "pause.pid").write_text(str(process.pid))
        assert own.wait(30) == -signal.SIGKILL
        assert other.poll() is None
        (folder / "pause.pid").unlink()
        with container_clients._without_pause(tmp_path):
            pass
    finally:
        for process in (own, other):
            process.kill()
            process.wait()
