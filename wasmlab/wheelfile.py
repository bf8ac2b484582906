"""Write wheels around programs that other compilers than Python's made: reproducible, byte for byte.

References
----------
Binary distribution format, and platform compatibility tags (``manylinux``): packaging.python.org, specifications;
PEP 600.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

# PEP 600: nobody's pip knows an older one by this name.
_OLDEST_GLIBC = (2, 17)


def platform_tag(program: bytes) -> str:
    """Return the tag of the platforms that can load an ELF file, by the newest glibc symbol that it asks for.

    Parameters
    ----------
    program : bytes
        An executable or a library for this machine's architecture. A static one asks for none.
    """
    asked = {(int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", program)}
    major, minor = max(asked | {_OLDEST_GLIBC})
    return f"manylinux_{major}_{minor}_{os.uname().machine}"


def write(
    folder: Path,
    *,
    name: str,
    version: str,
    tag: str,
    metadata: str,
    files: Mapping[str, bytes],
    executable: Collection[str] = (),
) -> Path:
    """Write a wheel and return its path.

    Parameters
    ----------
    folder : Path
        Where to; the file's name follows from the rest. A wheel of that name is replaced.
    name, version, tag : str
        Of the distribution, e.g. ``wasmlab-kube``, ``0.1.0``, ``py3-none-any``.
    metadata : str
        What follows name and version in METADATA: header lines, an empty line, the description.
    files : mapping
        Path in the wheel -> content.
    executable : collection of str
        Those of `files` that are to be executable once they are installed.
    """
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    info = f"{stem}.dist-info"
    all_files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: wasmlab\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in all_files.items())
    all_files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{stem}-{tag}.whl"
    partial = wheel.with_name(f".{wheel.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in all_files.items():
                entry = zipfile.ZipInfo(path)  # no time of its own: 1980
                entry.external_attr = (0o100755 if path in executable else 0o100644) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, data)
        partial.replace(wheel)
    finally:
        partial.unlink(missing_ok=True)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
