from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE
from tests.oci.fake_registry import FakeRegistry, TokenService, digest_of
from wasmlab.errors import DigestMismatch, NotFound, OCIError, RegistryUnavailable, Unauthorized
from wasmlab.oci import AsyncClient, Client, Credentials, ModuleStore
from wasmlab.oci.store import NotPresent

OTHER = b"\0asm\x01\0\0\0" + b"other" * 999


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient() as one:
        yield one


@pytest.fixture
def ref(registry: FakeRegistry, module: Path) -> str:
    name = f"{registry.host}/hello:v1"
    Client().push(module, name)
    registry.seen.clear()
    return name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def push(ref: str, data: bytes, tmp_path: Path) -> str:
    path = tmp_path / "pushed.wasm"
    path.write_bytes(data)
    return Client().push(path, ref).digest


def downloads(registry: FakeRegistry) -> int:
    return registry.count("GET", "/blobs/")


async def test_if_not_present_pulls_once_and_then_asks_nobody(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    store = ModuleStore(root)
    first = await store.ensure(ref, "IfNotPresent", client)
    assert first.pulled and first.path.read_bytes() == MODULE
    assert (first.digest, first.reference, first.size_bytes, first.kind) == (
        digest_of(MODULE),
        ref,
        len(MODULE),
        "core",
    )
    asked = len(registry.seen)
    again = await store.ensure(ref, "IfNotPresent", client)
    assert not again.pulled and again.path == first.path and again.manifest_digest == first.manifest_digest
    fresh = await ModuleStore(root).ensure(ref, "IfNotPresent", client)  # another process, so to say
    assert not fresh.pulled
    assert len(registry.seen) == asked
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


async def test_always_asks_what_the_tag_is_and_downloads_what_is_new(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient, tmp_path: Path
) -> None:
    store = ModuleStore(root)
    await store.ensure(ref, "Always", client)
    registry.seen.clear()
    same = await store.ensure(ref, "Always", client)
    assert not same.pulled
    assert [item.method for item in registry.seen] == ["HEAD"]
    await asyncio.to_thread(push, ref, OTHER, tmp_path)
    moved = await store.ensure(ref, "Always", client)
    assert moved.pulled and moved.path.read_bytes() == OTHER
    old = await store.ensure(ref, "IfNotPresent", client)
    assert old.digest == digest_of(OTHER)


async def test_always_needs_the_registry(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    store = ModuleStore(root)
    await store.ensure(ref, "Always", client)
    registry.before = lambda handler: handler.drop()
    with pytest.raises(RegistryUnavailable):
        await store.ensure(ref, "Always", client)
    assert not (await store.ensure(ref, "IfNotPresent", client)).pulled


async def test_never(registry: FakeRegistry, ref: str, root: Path, client: AsyncClient) -> None:
    store = ModuleStore(root)
    with pytest.raises(NotPresent, match="Never"):
        await store.ensure(ref, "Never", client)
    assert registry.seen == []
    await store.ensure(ref, "Always", client)
    assert (await store.ensure(ref, "Never", client)).digest == digest_of(MODULE)
    with pytest.raises(OCIError, match="policy"):
        await store.ensure(ref, "Sometimes", client)  # type: ignore[arg-type]


async def test_many_at_once_download_once(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient, module: Path
) -> None:
    twin = f"{registry.host}/hello:twin"  # the same module under another name
    await asyncio.to_thread(Client().push, module, twin, "cncf")
    registry.seen.clear()
    store = ModuleStore(root)
    wanted = [ref, twin] * 20
    results = await asyncio.gather(
        *(store.ensure(one, policy, client) for one in wanted for policy in ("Always", "IfNotPresent"))
    )
    assert {result.digest for result in results} == {digest_of(MODULE)}
    assert downloads(registry) == 1
    assert registry.count("GET", "/manifests/") <= 4


@pytest.mark.parametrize("content", [MODULE[:-1] + b"!", MODULE[:100], b""])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_damaged_entry_is_pulled_again(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient, content: bytes, restart: bool
) -> None:
    store = ModuleStore(root)
    first = await store.ensure(ref, "Always", client)
    first.path.write_bytes(content)
    # Even with the old modification time: ctime cannot be set.
    if restart:
        store = ModuleStore(root)
    for policy in ("IfNotPresent", "Always"):
        again = await store.ensure(ref, policy, client)  # type: ignore[arg-type]
        assert again.path.read_bytes() == MODULE
        assert again.pulled == (policy == "IfNotPresent")


async def test_a_damaged_entry_with_its_old_time_is_noticed(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    store = ModuleStore(root)
    first = await store.ensure(ref, "Always", client)
    before = first.path.stat()
    with first.path.open("r+b") as stream:
        stream.seek(50)
        stream.write(b"XX")
    os.utime(first.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await store.ensure(ref, "IfNotPresent", client)).pulled


async def test_damaged_bookkeeping_is_as_good_as_none(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    await ModuleStore(root).ensure(ref, "Always", client)
    for path in (root / "refs").iterdir():
        path.write_text('{"reference": ')
    store = ModuleStore(root)
    again = await store.ensure(ref, "IfNotPresent", client)
    assert not again.pulled  # the module itself was still good
    for path in (root / "refs").iterdir():
        assert json.loads(path.read_text())["reference"] == ref


async def test_a_failed_pull_leaves_the_store_as_it_was(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    store = ModuleStore(root)
    registry.blobs[digest_of(MODULE)] = MODULE[::-1]
    results = await asyncio.gather(
        *(store.ensure(ref, "Always", client) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, DigestMismatch) for result in results)
    assert list((root / "blobs" / "sha256").iterdir()) == [] and store.entries() == []
    with pytest.raises(NotFound):
        await store.ensure(f"{registry.host}/hello:none", "Always", client)
    registry.blobs[digest_of(MODULE)] = MODULE
    assert (await store.ensure(ref, "Always", client)).pulled  # and it recovers


async def test_one_waiter_may_leave(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    hold = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(handler: Any) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path:
            asyncio.run_coroutine_threadsafe(hold.wait(), loop).result(20)
        return False

    registry.before = slow
    store = ModuleStore(root)
    leaving = asyncio.create_task(store.ensure(ref, "Always", client))
    staying = asyncio.create_task(store.ensure(ref, "Always", client))
    await asyncio.sleep(0.2)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    hold.set()
    assert (await staying).pulled
    assert downloads(registry) == 1


async def test_when_all_leave_the_download_ends(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    registry.before = lambda handler: "/blobs/" in handler.path and handler.hang(5)
    store = ModuleStore(root)
    for _ in range(2):
        task = asyncio.create_task(store.ensure(ref, "Always", client))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(20):
        while list((root / "blobs" / "sha256").iterdir()):  # noqa: ASYNC110 (a directory has no event)
            await asyncio.sleep(0.01)
    registry.before = None
    assert (await store.ensure(ref, "Always", client)).pulled


async def test_a_pod_without_the_secret_does_not_ride_on_one_with_it(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    service = TokenService(registry)
    registry.before = service
    right = Credentials.of(registry.host, service.user, service.password)
    store = ModuleStore(root)
    good, bad = await asyncio.gather(
        store.ensure(ref, "Always", client, credentials=right),
        store.ensure(ref, "Always", client),
        return_exceptions=True,
    )
    assert good.pulled  # type: ignore[union-attr]
    assert isinstance(bad, Unauthorized)
    with pytest.raises(Unauthorized):
        await store.ensure(ref, "Always", client)  # the module is here, but Always asks the registry


async def test_entries_and_remove(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient, tmp_path: Path
) -> None:
    store = ModuleStore(root)
    second = f"{registry.host}/other:v1"
    await asyncio.to_thread(push, second, OTHER, tmp_path)
    await store.ensure(ref, "Always", client)
    await asyncio.sleep(0.02)
    await store.ensure(second, "Always", client)
    assert [(entry.digest, entry.references) for entry in store.entries()] == [
        (digest_of(MODULE), (ref,)),
        (digest_of(OTHER), (second,)),
    ]
    await asyncio.sleep(0.02)
    await store.ensure(ref, "IfNotPresent", client)  # used: now the other is the older one
    assert store.entries()[0].digest == digest_of(OTHER)
    assert store.remove(digest_of(OTHER)) and not store.remove(digest_of(OTHER))
    assert await store.get(second) is None
    assert (await store.ensure(second, "IfNotPresent", client)).pulled
    assert await store.get(ref) is not None


async def test_a_reference_by_digest(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient
) -> None:
    digest = await client.resolve(ref)
    store = ModuleStore(root)
    pinned = await store.ensure(f"{registry.host}/hello@{digest}", "IfNotPresent", client)
    assert pinned.manifest_digest == digest
    assert not (await store.ensure(f"{registry.host}/hello@{digest}", "Always", client)).pulled


def test_leftovers_of_a_crash_are_removed(root: Path) -> None:
    ModuleStore(root)
    folder = root / "blobs" / "sha256"
    old, young = folder / ".x.wasm.1234.part", folder / ".y.wasm.1234.part"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    ModuleStore(root)
    assert not old.exists() and young.exists()  # the young one may belong to a process that still runs


async def test_a_present_module_costs_no_thread(
    registry: FakeRegistry, ref: str, root: Path, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot path of a node that starts hundreds of pods: one stat."""
    store = ModuleStore(root)
    await store.ensure(ref, "Always", client)

    async def forbidden(*_: Any) -> Any:
        raise AssertionError("the whole module was digested again")

    monkeypatch.setattr(asyncio, "to_thread", forbidden)
    for _ in range(100):
        await store.ensure(ref, "IfNotPresent", client)
