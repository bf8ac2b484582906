"""Binder reads this repository as it is meant to be read: asked of repo2docker's own library."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.binder import meter

ROOT = Path(__file__).resolve().parents[2]
BINDER = ROOT / "binder"
# What needs root, or writes where an ordinary user may not.
_PRIVILEGED = (
    r"\b(sudo|su|apt|apt-get|dpkg|chown|mount|useradd|systemctl|setcap|modprobe)\b|/(usr|etc|opt|root)/"
)


@pytest.fixture(scope="module")
def buildpack() -> Any:
    """The build pack that repo2docker picks: the first of its own that detects the repository."""
    from repo2docker.app import Repo2Docker

    app = Repo2Docker()
    with contextlib.chdir(ROOT):
        packs = [pack(app.base_image) for pack in app.buildpacks]
        return next(pack for pack in packs if pack.detect())


@pytest.fixture(scope="module")
def dockerfile(buildpack: Any) -> str:
    buildpack.platform = "linux/amd64"
    with contextlib.chdir(ROOT):
        return str(buildpack.render({}))


def committed_mode(path: str) -> str:
    """The mode that a clone gives to a file; "" if it would not have it."""
    said = subprocess.run(
        ["git", "ls-files", "-s", path], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return said.stdout.split(" ")[0]


def test_conda_is_picked_with_the_python_of_the_lock(buildpack: Any) -> None:
    assert type(buildpack).__name__ == "CondaBuildPack"
    with contextlib.chdir(ROOT):
        assert buildpack.python_version == "3.11"
        assert buildpack.binder_dir == "binder"


def test_the_environment_is_the_lock(dockerfile: str) -> None:
    assert '--file "binder/environment.yml"' in dockerfile
    for name in ("environment.yml", "requirements.lock"):
        assert committed_mode(f"binder/{name}") == "120000"
        assert (BINDER / name).resolve() == ROOT / name
    # pip is run in the directory of the file, so that is where the lock must be.
    wanted = yaml.safe_load((BINDER / "environment.yml").read_text())
    (pip,) = [one["pip"] for one in wanted["dependencies"] if isinstance(one, dict)]
    assert pip == ["-r requirements.lock"]
    locked = (BINDER / "requirements.lock").read_text()
    for needed in (
        "jupyterlab==",
        "ipywidgets==",
        "wasmtime==",
        "wasmer-sdk==",
        "papermill==",
        "setuptools==",
    ):
        assert f"\n{needed}" in locked


def test_what_the_image_runs_is_there_and_is_run_as_the_user(dockerfile: str) -> None:
    user = ""
    run: list[tuple[str, str]] = []
    for line in dockerfile.splitlines():
        user = line.removeprefix("USER ") if line.startswith("USER ") else user
        if found := re.search(r"(?:^RUN \./|R2D_ENTRYPOINT=\"\$\{REPO_DIR\}/)(binder/\w+)", line):
            run.append((found[1], user))
    assert run == [("binder/postBuild", "${NB_USER}"), ("binder/start", "${NB_USER}")]
    for path, _ in run:
        assert committed_mode(path) == "100755"
        code = "\n".join(
            line for line in (ROOT / path).read_text().splitlines() if not line.lstrip().startswith("#")
        )
        assert not re.search(_PRIVILEGED, code), re.search(_PRIVILEGED, code)
        subprocess.run(["bash", "-n", path], cwd=ROOT, check=True, timeout=30)


def test_debian_packages_are_roots_step(dockerfile: str) -> None:
    packages = (BINDER / "apt.txt").read_text().split()
    assert packages
    assert f"--no-install-recommends {' '.join(packages)} " in dockerfile


def test_start_hands_over_to_the_command_of_the_session(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ["two words", "$HOME", "'"]
    done = subprocess.run(
        [BINDER / "start", "printf", "%s\n", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, words), done.stderr
    failing = subprocess.run([BINDER / "start", "sh", "-c", "exit 7"], cwd=ROOT, env=env, timeout=60)
    assert failing.returncode == 7


@pytest.mark.parametrize(
    ("usage", "stat"),
    [
        ("memory.usage_in_bytes", "cache 9\ntotal_rss 100\ntotal_shmem 20\ntotal_inactive_file 300\n"),
        ("memory.current", "anon 100\nfile 380\nshmem 20\ninactive_file 300\n"),
    ],
)
def test_memory_is_read_from_either_version_of_cgroups(tmp_path: Path, usage: str, stat: str) -> None:
    assert meter.now(str(tmp_path)) == meter.Peak(0, 0)
    (tmp_path / "memory.stat").write_text(stat)
    (tmp_path / usage).write_text("500\n")
    assert meter.now(str(tmp_path)) == meter.Peak(unreclaimable_bytes=120, working_set_bytes=200)
