"""Make what a release consists of: wheels that need no compiler, and the source distribution.

``make wheels`` (``python -m wasmlab.release --out dist``) writes

- ``wasmlab``: the package, with the notebooks and the data that they need, as a wheel and as sources;
- ``wasmlab-kube``: the control plane, `wasmlab.cluster.prebuilt`;
- ``wasmer-native``: the native binding of wasmer, `wasmlab.engines.native_build`.

``pip install wasmlab[all]`` takes all three. The two programs come out of the cache; what is not there is built first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from wasmlab import __version__
from wasmlab.errors import PrerequisiteError, ProcessError, WasmlabError
from wasmlab.modules.files import MATERIAL

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("wasmlab", "kube", "native")
_BUILD_TIMEOUT_S = 300.0
# Beside the package itself. The tests stay in the repository.
_TOP = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
_JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints", "target")
# One process each: setuptools leaves its marks on the interpreter and the working directory.
_BACKEND = "import sys; from setuptools import build_meta as it; getattr(it, sys.argv[1])(sys.argv[2])"


def lay_out(tree: Path, source: Path = ROOT) -> Path:
    """Copy into `tree` what a distribution is made from, and return `tree`.

    The notebooks and the data go into the package: an installed lab has no checkout to find them in.
    """
    for name in _TOP:
        shutil.copy2(source / name, tree)
    shutil.copytree(source / "wasmlab", tree / "wasmlab", ignore=_JUNK)
    for name in ("data", "notebooks"):
        shutil.copytree(source / name, tree / "wasmlab" / MATERIAL / name, ignore=_JUNK)
    return tree


def package(out: Path) -> list[Path]:
    """Write wheel and source distribution of wasmlab itself."""
    with tempfile.TemporaryDirectory(prefix="wasmlab-release-") as scratch:
        tree, made = Path(scratch, "tree"), Path(scratch, "made")
        tree.mkdir()
        made.mkdir()
        lay_out(tree)
        for hook in ("build_sdist", "build_wheel"):
            argv = [sys.executable, "-c", _BACKEND, hook, str(made)]
            done = subprocess.run(
                argv, cwd=tree, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S,
                # Times of files go into archives: the same sources, the same archive.
                env={"SOURCE_DATE_EPOCH": "315532800", **os.environ},
            )  # fmt: skip
            if done.returncode:
                raise ProcessError(
                    f"setuptools' {hook} failed",
                    argv=argv,
                    returncode=done.returncode,
                    log_tail="\n".join((done.stdout + done.stderr).splitlines()[-20:]),
                    remedy="make setup installs the setuptools that the lock names",
                )
        return [Path(shutil.copy(one, out)) for one in sorted(made.iterdir())]


def kube(out: Path) -> list[Path]:
    """Write the wheel of the control plane, building it first if need be."""
    from wasmlab.cluster import binary, prebuilt

    if os.environ.get(binary.OVERRIDE):
        raise PrerequisiteError(
            f"{binary.OVERRIDE} names a program that may be of other sources",
            remedy=f"unset {binary.OVERRIDE}",
        )
    return [prebuilt.write_wheel(binary.ensure(), out, __version__)]


def native(out: Path) -> list[Path]:
    """Write the wheel of the native wasmer binding, building it first if need be."""
    from wasmlab.engines import native_binding, native_build

    library = native_build.ensure() / native_binding.LIBRARY
    return [native_build.write_wheel(library.read_bytes(), out)]


def make(out: Path, parts: Sequence[str] = PARTS) -> list[Path]:
    """Write distributions into `out`, removing older ones of the same names.

    Parameters
    ----------
    out : Path
        The directory; it is created.
    parts : sequence of str
        Which of `PARTS`.

    Raises
    ------
    PrerequisiteError
        If a compiler is missing for what is not in the cache.
    ProcessError
        If a build fails; with its last lines.
    """
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, tuple[str, Callable[[Path], list[Path]]]] = {
        "wasmlab": ("wasmlab-", package),
        "kube": ("wasmlab_kube-", kube),
        "native": ("wasmer_native-", native),
    }
    made: list[Path] = []
    for part in parts:
        prefix, maker = makers[part]
        written = maker(out)
        made += written
        for old in set(out.glob(f"{prefix}*")) - set(written):
            with contextlib.suppress(OSError):
                old.unlink()
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the distributions and print their names and sizes."""
    parser = argparse.ArgumentParser(prog="python -m wasmlab.release", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where to (default: dist)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    options = parser.parse_args(arguments)
    try:
        for path in make(options.out, options.only or PARTS):
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    except WasmlabError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
