"""Where the native wasmer binding is, and whether it is to be used. Light: each process that names wasmer asks.

The binding (the crate in ``native/``) is in the cache once `native_build` has built it, or it is installed as the
package ``wasmer-native``. For engine ``wasmer`` the environment variable ``WASMLAB_WASMER`` chooses: ``native`` insists
on it (and ``native-singlepass`` on its other compiler), ``sdk`` takes the package ``wasmer-sdk``; unset, the native
binding is taken if it is there. The engines ``wasmer-native``, ``wasmer-singlepass`` and ``wasmer-sdk`` are what they
are called, whatever the environment says.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from wasmlab.errors import PrerequisiteError
from wasmlab.paths import cache_dir

SOURCES = Path(__file__).with_name("native")
MODULE = "wasmer_native"
LIBRARY = f"{MODULE}.abi3.so"
KEY_FILE = "KEY"
OVERRIDE = "WASMLAB_WASMER"
_COMPILERS = {"": "cranelift", "native": "cranelift", "native-singlepass": "singlepass"}
_NAMED = {"wasmer-native": "native", "wasmer-singlepass": "native-singlepass", "wasmer-sdk": "sdk"}


@functools.cache
def key() -> str:
    """Return what a binding is known by: its sources, its dependencies, the architecture.

    Not the compiler's version: that makes no other binding, and finding it out would start a process.
    """
    digest = hashlib.sha256()
    for path in sorted([SOURCES / "Cargo.toml", SOURCES / "Cargo.lock", *(SOURCES / "src").glob("*.rs")]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return f"{digest.hexdigest()[:16]}-{os.uname().machine}"


def find() -> Path | None:
    """Return the library if it is in the cache or installed, without building anything."""
    if library := installed():
        return library
    library = cache_dir("native") / key() / LIBRARY
    return library if library.exists() else None


def installed() -> Path | None:
    """Return the library of the installed package, if it is the one that this wasmlab wants."""
    spec = importlib.util.find_spec(MODULE) if MODULE not in sys.modules else sys.modules[MODULE].__spec__
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    library = package / LIBRARY
    if not library.exists():
        return None
    try:
        return library if (package / KEY_FILE).read_text() == key() else None
    except OSError:
        # maturin's wheel says only its version. Of another version it may know other arguments.
        return library if (package.parent / f"{MODULE}-{version()}.dist-info").exists() else None


def chosen(name: str = "wasmer") -> tuple[Path, str] | None:
    """Return (library, compiler) if engine `name` is to be the native binding, None if it is to be ``wasmer-sdk``.

    Raises
    ------
    PrerequisiteError
        If `name` or ``WASMLAB_WASMER`` insists on a binding that is not there, or that names none.
    """
    wish = _NAMED.get(name) or os.environ.get(OVERRIDE, "")
    if wish == "sdk":
        return None
    if wish not in _COMPILERS:
        raise PrerequisiteError(
            f"{OVERRIDE} is {wish!r}, which is no binding of wasmer",
            remedy=f"unset it, or set {OVERRIDE}=native|native-singlepass|sdk",
        )
    library = find()
    if library is not None:
        return library, _COMPILERS[wish]
    if wish:
        raise PrerequisiteError(
            f"{name if name in _NAMED else OVERRIDE} asks for the native wasmer binding, which has not been built",
            remedy="make native (or: python -m wasmlab.engines.native_build), or ask for the binding sdk",
        )
    return None


def load(library: Path) -> ModuleType:
    """Import the binding from its file, wherever that is."""
    if MODULE in sys.modules:
        return sys.modules[MODULE]
    spec = importlib.util.spec_from_file_location(MODULE, library)
    if spec is None or spec.loader is None:
        raise PrerequisiteError(f"{library} is not an extension module of this Python", remedy="make native")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise PrerequisiteError(
            f"the native wasmer binding does not load: {error}",
            remedy=f"remove {library.parent} and build it again (make native), or set {OVERRIDE}=sdk",
        ) from error
    sys.modules[MODULE] = module
    return module


@functools.cache
def version() -> str:
    """Return the version of the crate."""
    return _field("Cargo.toml", r'^version = "([^"]+)"')


@functools.cache
def wasmer_version() -> str:
    """Return the version of Wasmer that the crate is pinned to."""
    return _field("Cargo.lock", r'^name = "wasmer"\nversion = "([^"]+)"')


def _field(file: str, pattern: str) -> str:
    match = re.search(pattern, (SOURCES / file).read_text(), re.MULTILINE)
    assert match, f"{file} holds {pattern}"
    return match[1]
