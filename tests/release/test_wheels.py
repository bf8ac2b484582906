"""Distributions, installed the way pip does it: what wasmlab then finds, without a compiler, a cache or a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from wasmlab import __version__, release, wheelfile
from wasmlab.cluster import prebuilt
from wasmlab.engines import native_binding, native_build

_LOOK = """
import json, sys
from wasmlab.cluster import binary
from wasmlab.engines import native_binding
from wasmlab.modules.files import data_dir
from wasmlab.notebooks.execute import find_directory
from wasmlab.notebooks.kit import reports
print(json.dumps({
    "kube": str(binary.find()), "native": str(native_binding.find()), "data": str(data_dir("wasm", "hello.wasm")),
    "notebooks": str(find_directory()), "reports": str(reports().resolve()),
}))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package itself for real; small stand-ins for the two programs that take long to compile."""
    folder = tmp_path_factory.mktemp("dist")
    release.make(folder, ["wasmlab"])
    program = folder / "program"
    program.write_text("#!/bin/sh\necho it runs\n")
    prebuilt.write_wheel(program, folder, __version__)
    native_build.write_wheel(b"library", folder)
    return folder


@pytest.fixture
def site(dist: Path, tmp_path: Path) -> Path:
    wheels = sorted(dist.glob("*.whl"))
    assert len(wheels) == 3
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
    ]
    subprocess.run([*argv, tmp_path / "site", *wheels], check=True, capture_output=True, timeout=120)
    return tmp_path / "site"


def look(site: Path, scratch: Path) -> dict[str, str]:
    """What the installed wasmlab finds, in a fresh process with an empty home and no compiler on the PATH."""
    env = {"HOME": str(scratch), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], cwd=scratch, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_what_is_installed_is_found(site: Path, tmp_path: Path) -> None:
    found = look(site, tmp_path)
    assert found == {
        "kube": str(site / "wasmlab_kube" / "wasmlab-kube"),
        "native": str(site / "wasmer_native" / native_binding.LIBRARY),
        "data": str(site / "wasmlab" / "_material" / "data" / "wasm" / "hello.wasm"),
        "notebooks": str(site / "wasmlab" / "_material" / "notebooks"),
        "reports": str(tmp_path / "reports"),
    }
    assert subprocess.run([found["kube"]], capture_output=True, text=True, timeout=30).stdout == "it runs\n"


def test_what_was_built_from_other_sources_is_not_taken(site: Path, tmp_path: Path) -> None:
    (site / "wasmlab_kube" / "built.json").write_text(
        json.dumps({"sources": "0" * 16, "machine": os.uname().machine})
    )
    (site / "wasmer_native" / native_binding.KEY_FILE).write_text("0" * 16)
    found = look(site, tmp_path)
    assert (found["kube"], found["native"]) == ("None", "None")


def test_the_source_distribution_makes_the_same_wheel(dist: Path) -> None:
    (sources,) = dist.glob("wasmlab-*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "wasmlab/cluster/kube/go.mod", "wasmlab/engines/native/Cargo.lock", "wasmlab/engines/native/src/lib.rs",
        "wasmlab/cluster/kube/go-toolchain.lock", "wasmlab/_material/notebooks/00_start_here.ipynb", "LICENSE",
    ):  # fmt: skip
        assert needed in names


def test_older_wheels_go(dist: Path, tmp_path: Path) -> None:
    old = tmp_path / "wasmer_native-0.0.1-cp311-abi3-any.whl"
    other = tmp_path / "notes.txt"
    for path in (old, other):
        path.touch()
    (made,) = release.make(tmp_path, ["native"]) if native_binding.find() else (None,)
    if made is None:
        pytest.skip("the native wasmer binding is not built: make native")
    assert made.exists() and other.exists() and not old.exists()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"\x7fELF static", "manylinux_2_17"),
        (b"\0GLIBC_2.2.5\0GLIBC_2.4\0", "manylinux_2_17"),
        (b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0", "manylinux_2_34"),
    ],
)
def test_the_platform_follows_from_the_symbols(program: bytes, expected: str) -> None:
    assert wheelfile.platform_tag(program) == f"{expected}_{os.uname().machine}"
