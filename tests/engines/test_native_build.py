"""Building the binding: the key, the wheel, what goes wrong. With a cargo that is a script, except where it says so."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wasmlab.engines import native_binding, native_build
from wasmlab.errors import PrerequisiteError, ProcessError

CARGO = """#!/bin/sh
if [ "$1" = --version ]; then echo "cargo {version} (0123456 2026-01-01)"; exit 0; fi
echo "$@" >> {log}
echo "   Compiling wasmer v7.4.2" >&2
{body}
"""
BUILDS = """
while [ $# -gt 0 ]; do [ "$1" = --target-dir ] && target=$2; shift; done
mkdir -p "$target/release" && printf library > "$target/release/libwasmer_native.so"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wasmlab" / "native"


@pytest.fixture
def cargo(tmp_path, monkeypatch, cache):
    """cargo(body, version=...) puts a cargo on PATH; returns the file that its calls are logged in."""

    def make(body: str = BUILDS, version: str = "1.99.0") -> Path:
        folder, log = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir()
        (folder / "cargo").write_text(CARGO.format(version=version, log=log, body=body))
        (folder / "cargo").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return log

    return make


def test_builds_once(cargo, cache):
    log = cargo()
    directory = native_build.ensure(progress=False)
    assert directory == cache / native_binding.key()
    assert (directory / native_binding.LIBRARY).read_bytes() == b"library"
    assert native_build.ensure(progress=False) == directory
    assert log.read_text().count("\n") == 1
    assert "--locked" in log.read_text()
    assert native_binding.find() == directory / native_binding.LIBRARY
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []
    assert directory.stat().st_mode & 0o077 == 0


def test_failing_compiler_leaves_nothing_and_tells_its_last_words(cargo, cache):
    cargo("echo 'error: linker `cc` not found' >&2; exit 101")
    with pytest.raises(ProcessError, match="linker `cc` not found") as caught:
        native_build.ensure(progress=False)
    assert "gcc" in caught.value.remedy
    assert not list(cache.glob(f"{native_binding.key()}*"))


def test_no_rust_is_a_prerequisite(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError) as caught:
        native_build.ensure(progress=False)
    assert "wasmer-sdk" in caught.value.remedy


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--if-possible"], 0)])
def test_command_without_rust(cache, tmp_path, options, code):
    argv = [sys.executable, "-m", "wasmlab.engines.native_build", *options]
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert "rustup" in done.stderr


def test_old_rust_is_a_prerequisite(cargo):
    log = cargo(version="1.63.0")
    with pytest.raises(PrerequisiteError, match=r"1\.63\.0"):
        native_build.ensure(progress=False)
    assert not log.exists()


def test_command_prints_the_directory(cargo, cache):
    cargo()
    argv = [sys.executable, "-m", "wasmlab.engines.native_build"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(cache / native_binding.key())


def test_two_at_once_build_once(cargo, cache):
    log = cargo("sleep 0.5" + BUILDS)
    argv = [sys.executable, "-m", "wasmlab.engines.native_build"]
    both = [subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(2)]
    assert [one.communicate(timeout=60)[0] for one in both] == [
        f"{cache / native_binding.key()}\n".encode()
    ] * 2
    assert log.read_text().count("\n") == 1


def test_wheel_is_what_pip_takes(tmp_path):
    one = native_build.write_wheel(b"library", tmp_path)
    first = hashlib.sha256(one.read_bytes()).hexdigest()
    assert hashlib.sha256(native_build.write_wheel(b"library", tmp_path).read_bytes()).hexdigest() == first
    target = tmp_path / "site"
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(one),
    ]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    assert (target / native_binding.MODULE / native_binding.LIBRARY).read_bytes() == b"library"
    with zipfile.ZipFile(one) as archive:
        assert archive.testzip() is None


def test_key_follows_the_sources(tmp_path, monkeypatch):
    import shutil

    copy = tmp_path / "native"
    shutil.copytree(native_binding.SOURCES, copy, ignore=shutil.ignore_patterns("target"))
    monkeypatch.setattr(native_binding, "SOURCES", copy)
    original = native_binding.key()
    uncached = native_binding.key.__wrapped__
    assert uncached() == original
    (copy / "README.md").write_text("other words")
    assert uncached() == original
    (copy / "src" / "lib.rs").write_text("// other code")
    assert uncached() != original


def test_dependencies_come_from_the_public_registry_alone():
    lock = (native_binding.SOURCES / "Cargo.lock").read_text()
    sources = {line for line in lock.splitlines() if line.startswith("source = ")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}
    assert lock.count("checksum = ") == lock.count("source = ")


def test_readme_tells_the_versions():
    readme = (native_binding.SOURCES / "README.md").read_text()
    assert f"Version {native_binding.version()} holds Wasmer {native_binding.wasmer_version()}" in readme


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("sdk", None),
        ("", (Path("library"), "cranelift")),
        ("native", (Path("library"), "cranelift")),
        ("native-singlepass", (Path("library"), "singlepass")),
    ],
)
def test_choice(monkeypatch, wish, expected):
    monkeypatch.setenv(native_binding.OVERRIDE, wish)
    monkeypatch.setattr(native_binding, "find", lambda: Path("library"))
    assert native_binding.chosen() == expected


def test_choice_of_what_is_not_there(monkeypatch):
    monkeypatch.setattr(native_binding, "find", lambda: None)
    monkeypatch.setenv(native_binding.OVERRIDE, "native")
    with pytest.raises(PrerequisiteError) as caught:
        native_binding.chosen()
    assert "make native" in caught.value.remedy
    monkeypatch.setenv(native_binding.OVERRIDE, "other")
    with pytest.raises(PrerequisiteError, match="other"):
        native_binding.chosen()
    monkeypatch.delenv(native_binding.OVERRIDE)
    assert native_binding.chosen() is None


@pytest.mark.timeout(300)
def test_the_stubs_say_what_the_binding_has(tmp_path):
    library = native_binding.find()
    if library is None:
        pytest.skip("the native wasmer binding is not built: make native")
    wheel = native_build.write_wheel(library.read_bytes(), tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "MYPYPATH": str(tmp_path / "site")}
    # The package's own module has no stub: it is the package's business.
    allowed = tmp_path / "allowed"
    allowed.write_text("wasmer_native\\.wasmer_native\n")
    argv = [sys.executable, "-m", "mypy.stubtest", "wasmer_native", "--allowlist", str(allowed)]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
