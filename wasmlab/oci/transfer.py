"""Between registry and disk: describe a file for pushing, land a download in a file, complete or not at all.

Guarantees: until every byte is checked and on disk, an existing file of that name stays as it was; afterwards it is the
new one; a failed download leaves nothing behind but, after a kill -9, a hidden ``*.part`` file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from wasmlab.errors import OCIError, UnsupportedArtifact, WasmError
from wasmlab.oci import artifact
from wasmlab.oci.artifact import Layout, Packed
from wasmlab.oci.component import component_names, kind_of
from wasmlab.oci.digest import Verifier

PART_SUFFIX = ".part"


class Landing:
    """A file under way; a context manager that cleans up unless `commit` was reached.

    Parameters
    ----------
    out : Path
        The final name. A symbolic link is followed; anything but a regular file is refused.
    verifier : Verifier
        What the content must be.
    mode : int
        Permissions, before the umask.
    """

    def __init__(self, out: Path, verifier: Verifier, *, mode: int = 0o666) -> None:
        self._out = Path(os.path.realpath(out))
        self._verifier = verifier
        self._mode = mode
        self._fd = -1
        self._head = b""
        self._part = self._out.parent / f".{self._out.name[:200]}.{secrets.token_hex(4)}{PART_SUFFIX}"

    def __enter__(self) -> Landing:
        try:
            if not stat.S_ISREG(self._out.stat().st_mode):
                raise OCIError(
                    f"cannot write to {self._out}: it is not a regular file",
                    remedy="give a file name to --out",
                )
        except FileNotFoundError:
            pass
        except OSError as error:
            self._fail(error)
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
            self._reserve()
        except OSError as error:
            self._discard()
            self._fail(error)
        return self

    def _reserve(self) -> None:
        # A disk that is too small is better found before the download than at its end.
        size = self._verifier.size_bytes
        if not size:
            return
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise

    def write(self, chunk: bytes) -> None:
        """Take the next piece.

        Raises
        ------
        OCIError
            If the disk is full or fails; SizeMismatch if there is more than announced.
        """
        self._verifier.update(chunk)
        if len(self._head) < 8:
            self._head += chunk[: 8 - len(self._head)]
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._fail(error)

    def commit(self) -> str:
        """Check, make durable, and put in place. Blocks on the disk.

        Returns
        -------
        str
            "core" or "component".

        Raises
        ------
        DigestMismatch, SizeMismatch
            If the content is not the announced one.
        UnsupportedArtifact
            If it is, but is not WASM.
        OCIError
            If the disk fails.
        """
        self._verifier.finish()
        try:
            kind = kind_of(self._head, self._verifier.what)
        except WasmError as error:
            raise UnsupportedArtifact(
                error.message, remedy="the artifact claims to hold WASM but does not: push the right file"
            ) from error
        try:
            os.fsync(self._fd)
            os.replace(self._part, self._out)
        except OSError as error:
            self._fail(error)
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):  # not every file system can sync a directory; the content is safe
            directory = os.open(self._out.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        return kind

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._part)

    def _fail(self, error: OSError) -> NoReturn:
        where = self._out
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OCIError(
                f"no space for {self._verifier.size_bytes} bytes at {where.parent}: {error.strerror}",
                remedy="free space, or pull to another disk; an existing file was left as it was",
                errno=error.errno,
            ) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise OCIError(
                f"cannot write {where}: there is no directory {where.parent}",
                remedy="create it first",
                errno=error.errno,
            ) from error
        raise OCIError(
            f"cannot write {where}: {error.strerror}", remedy="check its permissions", errno=error.errno
        ) from error


def pack_file(path: Path, layout: Layout, title: str | None) -> Packed:
    """Pack the module in the file `path`, reading it once and keeping none of it. See `artifact.pack`.

    Raises
    ------
    InvalidModule
        If it is not WASM.
    OCIError
        If it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
            kind = kind_of(head, str(path))
            stream.seek(0)
            names = None
            if kind == "component" and layout == "cncf":
                names = component_names(stream.read())
                stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise OCIError(
            f"cannot read {path}: {error.strerror}", remedy="check the file's name and permissions"
        ) from error
    return artifact.pack_layer(f"sha256:{digest}", size, layout, component=names, title=title)
