"""The shim as a directory that needs nothing of the machine but a C library: nodes of real clusters have no Python.

It holds this very interpreter with its standard library, the shared libraries that they need, wasmlab, and the
packages that the shim imports. Nothing is frozen: the shim starts on a node exactly as it does
here, and a traceback names real files.

::

    PREFIX/bin/containerd-shim-wasm-v1 ...   what containerd starts (a static program that asks the zygote)
    PREFIX/bin/wasmlab-shim                  what that starts when there is no zygote
    PREFIX/python/                           interpreter, standard library, shared libraries
    PREFIX/site/                             wasmlab and what it imports

The node's C library must be at least as new as this machine's.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from wasmlab.containerd import native
from wasmlab.errors import PrerequisiteError, ProcessError
from wasmlab.shim.install import FALLBACK, LAUNCHER_SOURCE, PROGRAMS

PREFIX = "/opt/wasmlab-shim"
INTERPRETER = Path(__file__).with_name("interpreter.c")
#: What a node's PATH needs: the three programs, and the one that they hand over to when there is no zygote yet.
EXECUTABLES = (*PROGRAMS, FALLBACK)
_TIMEOUT_S = 120.0
# Of the standard library: what the shim cannot use on a node.
_UNUSED = (
    "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip",
    "lib2to3", "pydoc_data", "distutils", "__pycache__", "config-*", "*.a",
    "_tkinter*.so", "_curses*.so", "readline*.so", "_sqlite3*.so", "_dbm*.so", "_gdbm*.so", "nis*.so", "_test*.so",
    "_xxtestfuzz*.so", "_crypt*.so", "xxlimited*.so", "_uuid*.so",
)  # fmt: skip
# Engines are imported when a pod asks for them, not by what starts.
_DISTRIBUTIONS = ("wasmtime", "wasmer-sdk", "wasmer-native")
# Part of every C library; a copy that does not match the node's loader would crash.
_C_LIBRARY = re.compile(r"lib(c|m|dl|pthread|rt|util|resolv|nsl|anl)\.so|ld-linux|linux-vdso")
_START = """\
#!{prefix}/python/bin/python -IS
import os
import sys

# The cache holds native code: it belongs to root, and is none of a home directory's business.
os.environ.setdefault("WASMLAB_SHIM_CACHE", "/var/lib/wasmlab-shim/compiled")
sys.path.insert(0, "{prefix}/site/wasmlab/shim")
import entry

program = os.environ.pop("WASMLAB_SHIM_PROGRAM", "") or os.path.basename(sys.argv[0])
os._exit(entry.main(sys.argv[1:], "{prefix}/python/bin/python", program, "{prefix}/site"))
"""
# What a pod's life can need, so that everything is in the bundle.
_PROBE = """
import json, os, sys
from wasmlab import engines
import wasmlab.shim.zygote, wasmlab.shim.info, wasmlab.shim.service, wasmlab.engines.compiler
# The smallest program there is: an empty _start.
wasm = bytes.fromhex("0061736d01000000" "010401600000" "03020100" "070a01065f73746172740000" "0a040102000b")
for name in engines.names():
    engine = engines.get(name)
    engine.version
    engine.validate(wasm)
print(json.dumps([m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]), flush=True)
# At once: threads of wasmer-sdk may abort an interpreter that takes itself apart.
os._exit(0)
"""


def make(out: Path, *, prefix: str = PREFIX) -> Path:
    """Write the bundle.

    Parameters
    ----------
    out : Path
        The directory to write; it must not exist, or be empty.
    prefix : str
        Where it will be on the node. The executables name it.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    PrerequisiteError
        If `out` is in use.
    ProcessError
        If the shim cannot be imported here.
    """
    if out.exists() and any(out.iterdir()):
        raise PrerequisiteError(f"{out} is not empty", remedy="choose another directory, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        _python(work / "python")
        _site(work / "site")
        _libraries(work)
        _programs(work / "bin", prefix)
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def _python(target: Path) -> None:
    base = Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (target / "bin").mkdir(parents=True)
    shutil.copy2(base, target / "bin" / "python.real")
    shutil.copy2(native.program(INTERPRETER), target / "bin" / "python")
    standard = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        standard, target / "lib" / version, ignore=shutil.ignore_patterns(*_UNUSED), symlinks=False
    )
    platform_libraries = Path(sysconfig.get_config_var("DESTSHARED") or standard / "lib-dynload")
    if not (target / "lib" / version / "lib-dynload").exists():
        shutil.copytree(
            platform_libraries,
            target / "lib" / version / "lib-dynload",
            ignore=shutil.ignore_patterns(*_UNUSED),
        )


def _site(target: Path) -> None:
    """Copy wasmlab, and the packages that the shim imports, whole."""
    import wasmlab

    target.mkdir()
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise ProcessError(
            "the shim cannot be imported, so there is nothing to bundle",
            argv=[sys.executable, "-c", "import wasmlab.shim.zygote"],
            returncode=done.returncode,
            log_tail=done.stderr[-2000:],
        )
    package = Path(wasmlab.__file__).parent
    skip = shutil.ignore_patterns("__pycache__", "*.ipynb", "node_modules", "target")
    shutil.copytree(package, target / "wasmlab", ignore=skip)
    for distribution in _DISTRIBUTIONS:
        _copy_distribution(distribution, target)
    for name in sorted(_top_levels(json.loads(done.stdout.splitlines()[-1]), package)):
        if name.is_dir():
            shutil.copytree(name, target / name.name, ignore=skip, dirs_exist_ok=True)
        else:
            shutil.copy2(name, target / name.name)


def _copy_distribution(name: str, target: Path) -> None:
    """Copy an installed distribution with its metadata: engines ask for their own version there."""
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        # Not the scripts, which the record names relative to the packages.
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(str(file.locate())), target / file)


def _top_levels(files: list[str], package: Path) -> set[Path]:
    found = set()
    roots = {Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    for file in files:
        for root in roots:
            if Path(file).is_relative_to(root) and not Path(file).is_relative_to(package):
                found.add(root / Path(file).relative_to(root).parts[0])
    # What an editable installation brings along.
    return {
        path for path in found if not path.name.startswith(("__editable__", "_distutils_hack", "_virtualenv"))
    }


def _libraries(work: Path) -> None:
    """Copy the shared libraries that the interpreter and the extension modules need, but for the C library's."""
    target = work / "python" / "lib"
    binaries = [work / "python/bin/python.real", *work.rglob("*.so"), *work.rglob("*.so.*")]
    for binary in binaries:
        done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, timeout=_TIMEOUT_S)
        for name, path in re.findall(r"(\S+) => (/\S+)", done.stdout):
            if (
                not _C_LIBRARY.match(name)
                and not Path(path).is_relative_to(work)
                and not (target / name).exists()
            ):
                shutil.copy2(os.path.realpath(path), target / name)


def _programs(target: Path, prefix: str) -> None:
    target.mkdir()
    (target / FALLBACK).write_text(_START.format(prefix=prefix))
    (target / FALLBACK).chmod(0o755)
    launcher = native.program(LAUNCHER_SOURCE)
    for name in PROGRAMS:  # not links: a single one may be mounted into a node
        shutil.copy2(launcher, target / name)
