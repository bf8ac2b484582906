"""The modules a node has pulled: content-addressed, found by reference, verified before they are used again.

Layout of the root: ``blobs/sha256/<hex>.wasm`` (the modules) and ``refs/<hash of the reference>.json`` (what a
reference resolved to when it was last pulled).

Guarantees: a path handed out holds exactly the content of its digest; concurrent requests for one reference, and for
one layer under several references, download once; a damaged entry is pulled again; a crash leaves at most a hidden
``*.part`` file, which a later start removes.

How reuse is verified: the whole content is digested at the first use in this process; from then on the file's inode,
size, mtime and ctime must be the same. A program cannot set ctime, so any write through the file system is noticed at
the price of one stat; silent damage of the disk is noticed at the next start of the process.

References
----------
Kubernetes, pkg/kubelet/images/image_manager.go (what the pull policies mean).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wasmlab.errors import OCIError
from wasmlab.oci import digest as digests
from wasmlab.oci.client import AsyncClient, ProgressCallback
from wasmlab.oci.component import kind_of
from wasmlab.oci.credentials import Credentials
from wasmlab.oci.reference import Reference
from wasmlab.oci.transfer import PART_SUFFIX
from wasmlab.paths import atomic_write, private_dir

Policy = Literal["Always", "IfNotPresent", "Never"]

_STALE_PART_S = 3600.0


class NotPresent(OCIError):
    """The policy is Never and the module is not in the store (the kubelet's ErrImageNeverPull)."""


@dataclass(frozen=True)
class StoredModule:
    """A module in the store.

    Parameters
    ----------
    path : Path
        The verified file. Do not write to it.
    digest : str
        Of the module (the layer).
    manifest_digest : str
        What the reference resolved to.
    pulled : bool
        Whether content was downloaded for this request.
    size_bytes : int
        Of the module.
    reference : str
        As asked for.
    kind : str
        "core" or "component".
    """

    path: Path
    digest: str
    manifest_digest: str
    pulled: bool
    size_bytes: int
    reference: str
    kind: str = "core"


@dataclass(frozen=True)
class Entry:
    """A stored module as garbage collection sees it.

    Parameters
    ----------
    digest : str
        Of the module.
    path : Path
        Its file.
    size_bytes : int
        Its size.
    last_used : float
        When a reference to it was last asked for, in seconds since the epoch.
    references : tuple of str
        The references that resolve to it.
    """

    digest: str
    path: Path
    size_bytes: int
    last_used: float
    references: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    reference: str
    manifest_digest: str
    layer_digest: str
    size_bytes: int
    kind: str


_Stamp = tuple[int, int, int, int]


class ModuleStore:
    """Use it in one event loop. Several processes may share a root: they at worst download twice.

    Parameters
    ----------
    root : path
        Created with mode 0700.
    max_downloads : int
        How many modules are downloaded at the same time.

    Raises
    ------
    PrerequisiteError
        If the root cannot be created.
    """

    def __init__(self, root: str | Path, *, max_downloads: int = 8) -> None:
        self._root = private_dir(Path(root))
        self._blobs = private_dir(self._root / "blobs" / "sha256")
        self._refs = private_dir(self._root / "refs")
        self._records: dict[str, _Record] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._running: dict[tuple[str, str, str], asyncio.Task[StoredModule]] = {}
        self._waiters: dict[asyncio.Task[StoredModule], int] = {}
        # Weak: a lock lives as long as somebody holds or awaits it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._slots = asyncio.Semaphore(max_downloads)
        self._sweep()

    async def ensure(
        self,
        ref: str | Reference,
        policy: Policy,
        client: AsyncClient,
        *,
        credentials: Credentials | None = None,
        progress: ProgressCallback | None = None,
    ) -> StoredModule:
        """Return the module that `ref` stands for, pulling it if the policy and the store say so.

        Parameters
        ----------
        ref : str or Reference
            What the pod names.
        policy : {"Always", "IfNotPresent", "Never"}
            Always: ask the registry what the reference is now, download only if that module is not here.
            IfNotPresent: use what is here without asking. Never: use what is here or fail.
        client : AsyncClient
            Does the pulling.
        credentials : Credentials, optional
            For this request, instead of the client's.
        progress : callable, optional
            Called with (bytes so far, bytes in all); only the first of several concurrent requests is called.

        Raises
        ------
        NotPresent
            Policy Never, and it is not here.
        OCIError
            What `AsyncClient.pull` raises. The store is then as before.
        """
        ref = ref if isinstance(ref, Reference) else Reference.parse(ref)
        if policy not in ("Always", "IfNotPresent", "Never"):
            raise OCIError(f"unknown pull policy {policy!r}", remedy="use Always, IfNotPresent or Never")
        if policy != "Always":
            found = await self._present(ref)
            if found is not None:
                return found
            if policy == "Never":
                raise NotPresent(
                    f"{ref} is not in the store and the pull policy is Never",
                    remedy="use imagePullPolicy: IfNotPresent, or pull it once with Always",
                )
        # Two pods with different secrets do not share a pull: one of them may have no right to it.
        key = (str(ref), policy, credentials.fingerprint() if credentials else "")
        return await self._joined(key, self._pull(ref, policy, client, credentials, progress))

    async def get(self, ref: str | Reference) -> StoredModule | None:
        """Return what the store holds for `ref`, None if nothing (usable)."""
        return await self._present(ref if isinstance(ref, Reference) else Reference.parse(ref))

    def entries(self) -> list[Entry]:
        """Return all stored modules, the least recently used first."""
        users: dict[str, list[tuple[float, str]]] = {}
        for path in self._refs.glob("*.json"):
            record = _read_record(path)
            if record is not None:
                with contextlib.suppress(FileNotFoundError):
                    users.setdefault(record.layer_digest, []).append((path.stat().st_mtime, record.reference))
        found = []
        for path in self._blobs.glob("*.wasm"):
            digest = f"sha256:{path.stem}"
            with contextlib.suppress(FileNotFoundError):
                info = path.stat()
                used = users.get(digest, [])
                last = max((when for when, _ in used), default=info.st_mtime)
                found.append(Entry(digest, path, info.st_size, last, tuple(sorted(name for _, name in used))))
        return sorted(found, key=lambda entry: entry.last_used)

    def remove(self, digest: str) -> bool:
        """Remove a module and the references to it; say whether it was there. Running modules keep their open file.

        Parameters
        ----------
        digest : str
            Of the module.
        """
        path = self._path(digest)
        for known in self._refs.glob("*.json"):
            record = _read_record(known)
            if record is None or record.layer_digest == digest:
                with contextlib.suppress(FileNotFoundError):
                    known.unlink()
        self._records = {key: value for key, value in self._records.items() if value.layer_digest != digest}
        self._stamps.pop(digest, None)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    # Inside ----------------------------------------------------------------------------------------------------

    async def _joined(
        self, key: tuple[str, str, str], work: Coroutine[Any, Any, StoredModule]
    ) -> StoredModule:
        """Await `work`, or the same work that is already under way. It ends when nobody waits for it any more."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work)
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
            self._waiters[task] = 0
        else:
            work.close()
        self._waiters[task] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiters[task] -= 1
            if self._waiters[task] == 0:
                del self._waiters[task]
                if not task.done():
                    # A newcomer must start afresh, not join a task that is being cancelled.
                    self._running.pop(key, None)
                    task.cancel()

    def _forget(self, key: tuple[str, str, str], done: asyncio.Task[StoredModule]) -> None:
        # A cancelled task ends after its successor may have taken its place.
        if self._running.get(key) is done:
            del self._running[key]

    async def _pull(
        self,
        ref: Reference,
        policy: Policy,
        client: AsyncClient,
        credentials: Credentials | None,
        progress: ProgressCallback | None,
    ) -> StoredModule:
        record = self._record(ref)
        if policy == "Always" and record is not None:
            now = await client.resolve(ref, credentials=credentials)
            if now == record.manifest_digest:
                found = await self._present(ref)
                if found is not None:
                    return found
        located = await client.locate(ref, credentials=credentials)
        layer = located.layer
        path = self._path(layer.digest)
        lock = self._locks.setdefault(layer.digest, asyncio.Lock())
        async with lock:
            pulled = not await self._intact(layer.digest, layer.size_bytes)
            if pulled:
                async with self._slots:
                    done = await client.fetch(located, path, progress, mode=0o600, credentials=credentials)
                kind = done.kind
                self._stamps[layer.digest] = _stamp(path)
            else:
                kind = _kind(path)
        new = _Record(str(ref), located.manifest_digest, layer.digest, layer.size_bytes, kind)
        await asyncio.to_thread(self._save, new)
        return _module(new, path, pulled)

    async def _present(self, ref: Reference) -> StoredModule | None:
        record = self._record(ref)
        if record is None or not await self._intact(record.layer_digest, record.size_bytes):
            return None
        with contextlib.suppress(OSError):  # the time of last use, for garbage collection
            os.utime(self._ref_path(record.reference))
        return _module(record, self._path(record.layer_digest), pulled=False)

    async def _intact(self, digest: str, size_bytes: int) -> bool:
        path = self._path(digest)
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return False
        if self._stamps.get(digest) == stamp:
            return True
        if stamp[1] == size_bytes and await asyncio.to_thread(_digest, path) == digest:
            self._stamps[digest] = stamp
            return True
        # Damaged: out of the way, so that the next pull replaces it and nobody else trips over it.
        self._stamps.pop(digest, None)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return False

    def _record(self, ref: Reference) -> _Record | None:
        name = str(ref)
        record = self._records.get(name) or _read_record(self._ref_path(name))
        if record is None or record.reference != name:
            return None
        if ref.digest and record.manifest_digest != ref.digest:
            return None
        self._records[name] = record
        return record

    def _save(self, record: _Record) -> None:
        atomic_write(self._ref_path(record.reference), json.dumps(record.__dict__))
        self._records[record.reference] = record

    def _ref_path(self, reference: str) -> Path:
        # References contain slashes and colons and may be longer than a file name; their hash is neither.
        return self._refs / f"{hashlib.sha256(reference.encode()).hexdigest()}.json"

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or not digests.is_digest(digest):
            raise OCIError(
                f"the module has the digest {digest!r}; the store keeps sha256 only",
                remedy="push the artifact again with `wasmlab oci push`",
            )
        return self._blobs / f"{value}.wasm"

    def _sweep(self) -> None:
        limit = time.time() - _STALE_PART_S
        for path in self._blobs.glob(f".*{PART_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()


def _module(record: _Record, path: Path, pulled: bool) -> StoredModule:
    return StoredModule(
        path,
        record.layer_digest,
        record.manifest_digest,
        pulled,
        record.size_bytes,
        record.reference,
        record.kind,
    )


def _read_record(path: Path) -> _Record | None:
    try:
        record = _Record(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # missing, or damaged: the same as never pulled
    return record if digests.is_digest(str(record.layer_digest)) else None


def _stamp(path: Path) -> _Stamp:
    info = path.stat()
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError:
        return ""


def _kind(path: Path) -> str:
    with path.open("rb") as stream:
        return kind_of(stream.read(8), str(path))
