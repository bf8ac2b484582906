"""Write the files of a volume so that whoever reads them sees all of the old or all of the new.

The files are in a directory named by time, ``..data`` is a link to it, and the names that the module uses are links
through ``..data``. An update makes a new directory and swaps the one link by a rename.

References
----------
``k8s.io/kubernetes/pkg/volume/util/atomic_writer.go``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from wasmlab.node.spec.payload import File

_DATA = "..data"
_NEW = "..data_tmp"
_MAX_PATH, _MAX_NAME = 4096, 255


class UnsafePath(ValueError):
    """A path in the payload leads out of the volume, or into what this writer keeps for itself."""


def write(directory: Path, files: Mapping[str, File]) -> bool:
    """Make `directory` show exactly `files`. Whether anything had to be changed.

    Raises
    ------
    UnsafePath
        A path is absolute, has ``..`` in it, begins with two dots, or is too long. Nothing was changed.
    OSError
        The disk refused; what was there before is still whole.
    """
    for path in files:
        _check(path)
    directory.mkdir(mode=0o700, exist_ok=True)
    before = _target(directory)
    if before is not None and _shows(before, files):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    try:
        for path, file in files.items():
            _put(fresh / path, file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory / _NEW)  # of a writer that was killed
        os.symlink(fresh.name, directory / _NEW)
        os.rename(directory / _NEW, directory / _DATA)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _show(directory, {path.split("/", 1)[0] for path in files})
    for old in directory.iterdir():
        # Earlier directories, those of killed writers too.
        if old.name.startswith("..") and old.name not in (_DATA, fresh.name) and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    return True


def _check(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise UnsafePath(f"{path!r} is not a path inside a volume")
    if len(path) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in parts):
        raise UnsafePath(f"the path {path[:40]!r}... is too long")


def _put(path: Path, file: File) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        stream.write(file.data)
        os.fchmod(fd, file.mode & 0o777)


def _target(directory: Path) -> Path | None:
    try:
        return directory / os.readlink(directory / _DATA)
    except OSError:
        return None


def _shows(directory: Path, files: Mapping[str, File]) -> bool:
    """Whether a directory holds exactly these files."""
    found = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            found += 1
            path = Path(folder, name)
            wanted = files.get(path.relative_to(directory).as_posix())
            if wanted is None or stat.S_IMODE(path.stat().st_mode) != wanted.mode & 0o777:
                return False
            if path.read_bytes() != wanted.data:
                return False
    return found == len(files) and directory.is_dir()


def _show(directory: Path, names: set[str]) -> None:
    for name in names:
        with contextlib.suppress(FileExistsError):
            os.symlink(f"{_DATA}/{name}", directory / name)
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink(missing_ok=True)
