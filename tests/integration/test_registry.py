"""The client against the real distribution registry: both layouts, large modules, Basic authentication, restarts."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import Face
from wasmlab.cluster import binary
from wasmlab.errors import NotFound, RegistryError, RegistryUnavailable, Unauthorized
from wasmlab.oci import AsyncClient, Client, Credentials, ModuleStore, artifact
from wasmlab.oci.digest import of_bytes
from wasmlab.process import Child, free_ports

pytestmark = pytest.mark.integration

HELLO = b"\0asm\x01\0\0\0" + b"hello" * 400
# bcrypt of "s3cret-pass", cost 4: a test has no need of a slow one.
HTPASSWD = "ada:$2b$04$31AgKBg9Bda77FTZ.6KeJO1ze5NsKcrU2qK.MUt7EkUyPc7U8JVeS\n"


def start(folder: Path, address: str = "127.0.0.1:0", *options: str) -> tuple[Child, str]:
    out = folder / "stdout"
    # Append and read from where it begins: a restart must not read its predecessor's address.
    begin = out.stat().st_size if out.exists() else 0
    with out.open("ab") as stream:
        child = Child(
            [str(binary.ensure()), "registry", "--root", str(folder / "blobs"), "--addr", address, *options],
            log=folder / "log",
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            stdout=stream.fileno(),
        )
    child.wait_ready(lambda: b"\n" in out.read_bytes()[begin:], 30)
    return child, json.loads(out.read_bytes()[begin:])["registry"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    child, host = start(tmp_path_factory.mktemp("registry"))
    yield host
    child.stop()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wasm"
    path.write_bytes(HELLO)
    return path


def name(request: pytest.FixtureRequest, registry: str) -> str:
    """A repository of this test's own."""
    slug = "".join(ch if ch.isalnum() else "-" for ch in request.node.name.lower()).strip("-")
    while "--" in slug:
        slug = slug.replace("--", "-")
    return f"{registry}/tests/{slug}:v1"


@pytest.mark.parametrize("layout", artifact.LAYOUTS)
@pytest.mark.parametrize("chunk_bytes", [None, 700])
def test_push_pull_inspect(
    face: Face, registry: str, hello: Path, tmp_path: Path, layout: str, chunk_bytes: int | None, request: Any
) -> None:
    ref = name(request, registry)
    pushed = face("push", hello, ref, layout, chunk_bytes=chunk_bytes)
    assert pushed.digest == artifact.pack(HELLO, layout).manifest_digest  # type: ignore[arg-type]
    pulled = face("pull", ref, tmp_path / "out.wasm")
    assert (tmp_path / "out.wasm").read_bytes() == HELLO
    assert pulled.layer_digest == of_bytes(HELLO)
    found = face("inspect", ref)
    assert (found.layout, found.digest) == (layout, pushed.digest)
    assert found.raw == artifact.pack(HELLO, layout).manifest  # type: ignore[arg-type]  # byte for byte, through a real registry
    assert face("resolve", ref) == pushed.digest


def test_unknown_names_and_tags(face: Face, registry: str, hello: Path, tmp_path: Path, request: Any) -> None:
    ref = name(request, registry)
    with pytest.raises(NotFound) as caught:
        face("pull", ref, tmp_path / "o.wasm")
    assert caught.value.code in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN")
    face("push", hello, ref)
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        face("resolve", ref.replace(":v1", ":v2"))


@pytest.mark.parametrize("chunk_bytes", [None, 5 * 1024 * 1024])
def test_a_large_module(registry: str, tmp_path: Path, chunk_bytes: int | None, request: Any) -> None:
    data = b"\0asm\x01\0\0\0" + os.urandom(1024) * (26 * 1024)
    path = tmp_path / "large.wasm"
    path.write_bytes(data)
    ref = name(request, registry)
    Client().push(path, ref, chunk_bytes=chunk_bytes)
    Client().pull(ref, tmp_path / "out.wasm")
    assert (tmp_path / "out.wasm").read_bytes() == data


def test_the_registry_really_checks_what_is_pushed(
    registry: str, hello: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """A file that changes while it is pushed must not become an artifact."""
    ref = name(request, registry)
    real = artifact.pack_layer

    def other(digest: str, *args: Any, **options: Any) -> Any:
        return real(of_bytes(b"something else"), *args, **options)

    monkeypatch.setattr("wasmlab.oci.transfer.artifact.pack_layer", other)
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        Client().push(hello, ref)


def test_basic_authentication(face: Face, hello: Path, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    child, host = start(tmp_path, "127.0.0.1:0", "--htpasswd", str(tmp_path / "htpasswd"))
    try:
        good = Credentials.of(host, "ada", "s3cret-pass")
        face("push", hello, f"{host}/hello:v1", credentials=good)
        face("pull", f"{host}/hello:v1", tmp_path / "out.wasm", credentials=good)
        for credentials in (None, Credentials.of(host, "ada", "wrong")):
            with pytest.raises(Unauthorized, match="UNAUTHORIZED"):
                face("pull", f"{host}/hello:v1", tmp_path / "out2.wasm", credentials=credentials)
        assert not (tmp_path / "out2.wasm").exists()
    finally:
        child.stop()


async def test_a_store_lives_through_a_restart_of_the_registry(hello: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    child, host = await asyncio.to_thread(start, tmp_path, address)
    try:
        async with AsyncClient() as client:
            ref = f"{host}/hello:v1"
            await client.push(hello, ref)
            store = ModuleStore(tmp_path / "store")
            assert (await store.ensure(ref, "Always", client)).pulled
            await asyncio.to_thread(child.kill)
            with pytest.raises(RegistryUnavailable):
                await store.ensure(ref, "Always", client)
            assert not (await store.ensure(ref, "IfNotPresent", client)).pulled
            child, _ = await asyncio.to_thread(start, tmp_path, address)
            # The same client, whose kept connections died with the old process.
            again = await store.ensure(ref, "Always", client)
            assert not again.pulled and again.path.read_bytes() == HELLO
    finally:
        await asyncio.to_thread(child.stop)


def test_nothing_else_is_needed_to_read_it_back(registry: str, hello: Path, request: Any) -> None:
    """Any HTTP client finds the artifact as the specification says."""
    ref = name(request, registry)
    pushed = Client().push(hello, ref, "cncf")
    path = ref.partition("/")[2].rpartition(":")[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    manifest = urllib.request.Request(
        f"http://{registry}/v2/{path}/manifests/v1",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with opener.open(manifest, timeout=10) as answer:
        assert answer.headers["Docker-Content-Digest"] == pushed.digest
        assert answer.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
        layer = json.load(answer)["layers"][0]
    with opener.open(f"http://{registry}/v2/{path}/blobs/{layer['digest']}", timeout=10) as answer:
        assert answer.read() == HELLO
