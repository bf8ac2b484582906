"""The compile cache: private, keyed, checked, compiled once.

Requirements
    Compiled code is native code that will be mapped and jumped into. So the cache belongs to one user (0700), holds
    only what this machine compiled itself, and an entry is used only if it is what was written.
Guarantees
    * The key covers the module, the engine, its version and settings, the CPU's features and the format of the entry.
    * An entry appears whole or not at all, also after a power cut (written aside, synced, renamed; the record last).
    * `artifact` notices a truncated or changed file and compiles again. Every process checks the SHA-256 of an entry
      when it first uses it, up to 4 MiB; of larger files, and afterwards, size, inode and modification time.
    * However many processes ask for the same module at once, one compiles and the others wait (flock).
    * Compiling happens in a child process with limits: a module that makes a compiler eat memory or time ends that
      child and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.engines.native_binding import OVERRIDE
from wasmlab.engines.spec import Span
from wasmlab.errors import (
    InvalidModule,
    PrerequisiteError,
    SandboxError,
    Unsupported,
    WasmError,
    WasmlabError,
)
from wasmlab.paths import cache_dir, file_lock, private_dir

if TYPE_CHECKING:
    from wasmlab.engines.base import Engine
    from wasmlab.engines.spec import RunSpec

_FORMAT = "1"
# CPython (26 MB) compiles in 12 s on an idle machine; a busy one may take many times that.
_COMPILE_TIMEOUT_S = 300.0
_COMPILE_MEMORY_BYTES = 4 << 30
_HASH_ALWAYS_BELOW_BYTES = 4 << 20
# Who compiles holds this lock; it lives beside the entries and is never removed.
_LOCKS = 64


class CompileCache:
    """Compiled modules on disk.

    Parameters
    ----------
    root : Path, optional
        The directory; ``cache_dir("compiled")`` if None. Created 0700.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_dir("compiled") if root is None else private_dir(Path(root).absolute())
        self._told = threading.local()
        self._seen: dict[str, tuple[Path, list[tuple[str, tuple[int, int, int]]]]] = {}
        # Taken now: a zygote clears its environment, and the compile child has to find what this process found.
        self._environment = child_environment()

    @property
    def compiled(self) -> tuple[Span, ...]:
        """Phases of what the last call of `artifact` in this thread compiled: ``child``, what it told, ``keep``.

        Empty if it had nothing to compile.
        """
        spans: tuple[Span, ...] = getattr(self._told, "spans", ())
        return spans

    def key(self, engine: Engine, digest: str, variant: str = "") -> str:
        """Return the name of the entry for a module (``sha256:...``) on `engine`.

        Parameters
        ----------
        digest : str
            Of the module.
        variant : str
            What `Engine.variant` says of the run's settings.
        engine : Engine
            Whose compiled code.
        """
        return _key(
            engine.name, engine.version, json.dumps(engine.settings(), sort_keys=True), digest, variant
        )

    def lock_of(self, key: str) -> Path:
        """Return the file that is locked while the entry `key` is compiled."""
        return private_dir(self.root / "locks") / f"{int(key[:4], 16) % _LOCKS}"

    def artifact(
        self,
        engine: Engine,
        module: Path | str | bytes,
        digest: str | None = None,
        *,
        spec: RunSpec | None = None,
        timeout_s: float = _COMPILE_TIMEOUT_S,
    ) -> Path:
        """Return the compiled form of `module`, compiling it if need be.

        Parameters
        ----------
        engine : Engine
            For which engine.
        module : Path, str or bytes
            The .wasm file or its content.
        digest : str, optional
            ``sha256:<hex>`` of the module if the caller has verified it; else it is computed.
        spec : RunSpec, optional
            What will be run: some engines compile limits in (`Engine.variant`).
        timeout_s : float
            How long compiling (or waiting for another process that compiles) may take, in seconds.

        Raises
        ------
        InvalidModule
            If the engine refuses the module.
        Unsupported
            If the engine does not do this kind of module.
        SandboxError
            If the compiler crashed or hit its limits.
        PrerequisiteError
            If the cache cannot be written (disk full, permissions).
        """
        self._told.spans = ()
        if digest is None:
            content = module if isinstance(module, bytes) else _read(module)
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
        variant = engine.variant(spec) if spec is not None else ""
        key = self.key(engine, digest, variant)
        found = self._lookup(key)
        if found is not None:
            return found
        lock = self.lock_of(key)
        # Threads exclude each other by it, too: every holder has a descriptor of its own.
        with file_lock(lock, timeout_s, what=f"the compile cache entry of {digest[:19]}"):
            found = self._lookup(key)  # another process may have made it while we waited
            if found is not None:
                return found
            self._compile(engine, module, key, variant, timeout_s)
            found = self._lookup(key)
        if found is None:
            raise SandboxError(
                f"the compiled form of {digest[:19]} vanished from {self.root} right after it was written",
                remedy="do not remove files from the cache while wasmlab runs; try again",
            )
        return found

    def peek(self, engine: Engine, spec: RunSpec) -> Path | None:
        """Return the artifact for `spec` if it is in the cache; never compiles. Fast enough for an event loop.

        Parameters
        ----------
        engine : Engine
            Whose compiled code.
        spec : RunSpec
            Names the module.
        """
        return self._lookup(self.key(engine, spec.digest, engine.variant(spec)))

    def preload(self, count: int = 16) -> None:
        """Check the `count` entries that were used last, so that processes forked now find them checked."""
        with os.scandir(self.root) as entries:
            records = [
                (entry.stat().st_mtime_ns, entry.name[:-5])
                for entry in entries
                if entry.name.endswith(".json")
            ]
        for _, key in sorted(records, reverse=True)[:count]:
            self._lookup(key, used=False)

    def size(self) -> int:
        """Return how many bytes the cache takes on disk."""
        return sum(path.lstat().st_size for path in self._files())

    def prune(self, max_bytes: int = 0) -> int:
        """Remove the entries that were used longest ago until at most `max_bytes` remain.

        Runs that have mapped an entry keep their mapping. Returns how many bytes were freed.
        """
        before = total = self.size()
        entries = sorted(self.root.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for record in entries:
            if total <= max_bytes:
                break
            with contextlib.suppress(OSError, ValueError, KeyError):
                for name in json.loads(record.read_bytes())["files"]:
                    path = self.root / name
                    total -= path.stat().st_size
                    path.unlink()
            total -= record.stat().st_size
            record.unlink()
        self._seen.clear()
        return before - total

    def _files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if path.is_file())

    def _lookup(self, key: str, *, used: bool = True) -> Path | None:
        """Return the artifact if the entry is whole. The path of every run: no more than a stat or two."""
        known = self._seen.get(key)
        if known is not None:
            try:
                if all(_stamp(path) == stamp for path, stamp in known[1]):
                    return known[0]
            except OSError:
                pass
            del self._seen[key]
        record = self.root / f"{key}.json"
        try:
            entry = json.loads(record.read_bytes())
            stamps = []
            for name, (size, checksum, stamp) in entry["files"].items():
                path = f"{self.root}/{name}"
                now = _stamp(path)
                if now[0] != size:
                    return None
                if (size <= _HASH_ALWAYS_BELOW_BYTES or list(now) != stamp) and _checksum(path) != checksum:
                    return None
                stamps.append((path, now))
            # Its age tells prune() what was used longest ago.
            if used:
                os.utime(record)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        artifact = self.root / entry["artifact"]
        self._seen[key] = (artifact, stamps)
        return artifact

    def _compile(
        self, engine: Engine, module: Path | str | bytes, key: str, variant: str, timeout_s: float
    ) -> None:
        scratch = self.root / f".new-{key[:16]}-{os.getpid()}-{threading.get_ident():x}"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(mode=0o700)
            source = (
                Path(os.path.abspath(module)) if not isinstance(module, bytes) else scratch / "module.wasm"
            )
            if isinstance(module, bytes):
                source.write_bytes(module)
            environment = dict(self._environment)
            if OVERRIDE in os.environ:
                environment[OVERRIDE] = os.environ[OVERRIDE]
            begun = time.monotonic_ns()
            entry = _in_child(engine, source, scratch, key, variant, timeout_s, environment)
            told = [Span(*one) for one in entry.pop("spans")]
            for name, one in entry["files"].items():
                target = self.root / name
                private_dir(target.parent)
                os.replace(scratch / "out" / name, target)
                one.append(list(_stamp(target)))
            temporary = scratch / "record"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as stream:
                json.dump(entry, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.root / f"{key}.json")
            child = Span("child", begun, told[0].start_ns)
            self._told.spans = (child, *told, Span("keep", told[-1].end_ns, time.monotonic_ns()))
        except OSError as error:
            raise PrerequisiteError(
                f"cannot write the compile cache {self.root}: {error.strerror}",
                remedy="free some disk space (CompileCache().prune()), or set XDG_CACHE_HOME to another disk",
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _in_child(
    engine: Engine,
    source: Path,
    scratch: Path,
    key: str,
    variant: str,
    timeout_s: float,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Compile in a child process; return the record of the files that it wrote to ``scratch/out``."""
    argv = [
        sys.executable,
        "-m",
        "wasmlab.engines.compiler",
        engine.name,
        engine.version,
        str(source),
        str(scratch / "out"),
        key,
        variant,
    ]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            start_new_session=True,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(
            f"compiling {source.name} on {engine.name} took longer than {timeout_s:g} s and was stopped",
            remedy="try again on a less busy machine, or allow more time",
        ) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        reason = (
            f"died of signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        )
        raise SandboxError(
            f"the compiler child for {source.name} on {engine.name} {reason}: {' | '.join(tail) or 'it said nothing'}",
            remedy=f"the module may need more than {_COMPILE_MEMORY_BYTES >> 30} GiB to compile; try the other engine",
        ) from None
    if "error" in answer:
        kinds: dict[str, type[WasmlabError]] = {
            "InvalidModule": InvalidModule,
            "Unsupported": Unsupported,
            "PrerequisiteError": PrerequisiteError,
        }
        cls = kinds.get(answer["error"], WasmError)
        raise cls(f"{source.name}: {answer['message']}", remedy=answer["remedy"], **answer.get("context", {}))
    return answer


def child_environment() -> dict[str, str]:
    """Return the environment for our own child processes: what Python needs to start, and nothing secret."""
    kept = (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "XDG_CACHE_HOME",
        "TMPDIR",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        OVERRIDE,
    )
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # Works from a source tree that is not installed, too.
    here = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), here)))
    return env


def _key(engine: str, version: str, settings: str, digest: str, variant: str) -> str:
    text = "\n".join((_FORMAT, engine, version, settings, digest, variant, _cpu()))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _cpu() -> str:
    """Return what of the CPU matters for native code: the machine type and its feature flags."""
    flags = b""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as stream:
        # The first CPU speaks for all; reading the whole file takes long on a machine with many.
        for line in stream.read(8192).splitlines():
            if line.startswith((b"flags", b"Features")):
                flags = line
                break
    return f"{platform.machine()} {hashlib.sha256(flags).hexdigest()}"


def _stamp(path: str | Path) -> tuple[int, int, int]:
    info = os.stat(path)
    return info.st_size, info.st_mtime_ns, info.st_ino


def _checksum(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the digest (``sha256:<hex>``) of a module file.

    Raises
    ------
    InvalidModule
        If it cannot be read.
    """
    try:
        return "sha256:" + _checksum(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> InvalidModule:
    return InvalidModule(
        f"cannot read the module {path}: {error.strerror}", remedy="check the path and its permissions"
    )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
