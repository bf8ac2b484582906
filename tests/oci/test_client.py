"""Both faces against a registry that behaves; what they do to the target file, and what they leave running."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, QUICK, Face, failing, untouched
from tests.oci.fake_registry import FakeRegistry, digest_of
from wasmlab.errors import (
    InvalidModule,
    InvalidReference,
    OCIError,
    RegistryTimeout,
    RegistryUnavailable,
    SizeMismatch,
    Unauthorized,
)
from wasmlab.oci import artifact
from wasmlab.oci import media_types as mt


@pytest.mark.parametrize("layout", artifact.LAYOUTS)
@pytest.mark.parametrize("chunk_bytes", [None, 1000])
@pytest.mark.parametrize("relative", [True, False])
def test_what_is_pushed_is_pulled(
    face: Face,
    registry: FakeRegistry,
    module: Path,
    out: Path,
    layout: str,
    chunk_bytes: int | None,
    relative: bool,
) -> None:
    registry.relative_location = relative
    ref = f"{registry.host}/team/hello:v1"
    steps: list[tuple[int, int]] = []
    pushed = face("push", module, ref, layout, lambda *step: steps.append(step), chunk_bytes=chunk_bytes)
    assert steps[-1] == (len(MODULE), len(MODULE))
    assert pushed.size_bytes == len(MODULE)
    assert pushed.digest == digest_of(registry.manifests["team/hello", "v1"][1])
    pulled = face("pull", ref, out)
    assert out.read_bytes() == MODULE
    assert (pulled.manifest_digest, pulled.layer_digest) == (pushed.digest, digest_of(MODULE))
    assert face("resolve", ref) == pushed.digest
    found = face("inspect", ref)
    assert (found.digest, found.layout, found.layer.digest) == (pushed.digest, layout, digest_of(MODULE))
    by_digest = face("pull", f"{registry.host}/team/hello@{pushed.digest}", out)
    assert by_digest.manifest_digest == pushed.digest
    assert registry.count("PATCH", "/uploads/") == (0 if chunk_bytes is None else -(-len(MODULE) // 1000))


def test_a_blob_that_is_there_is_not_sent_again(face: Face, registry: FakeRegistry, module: Path) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    face("push", module, f"{registry.host}/hello:v2")
    assert registry.count("POST", "/uploads/") == 2  # module and config, once


def test_only_wasm_is_pushed(face: Face, registry: FakeRegistry, tmp_path: Path) -> None:
    text = tmp_path / "a.c"
    text.write_text("int main() {}")
    with pytest.raises(InvalidModule):
        face("push", text, f"{registry.host}/hello:v1")
    with pytest.raises(OCIError, match=r"cannot read .*missing\.wasm"):
        face("push", tmp_path / "missing.wasm", f"{registry.host}/hello:v1")
    with pytest.raises(OCIError, match="layout"):
        face("push", _wasm(tmp_path), f"{registry.host}/hello:v1", "tar")
    with pytest.raises(InvalidReference, match="push to a tag"):
        face("push", _wasm(tmp_path), f"{registry.host}/hello@{digest_of(b'x')}")
    assert registry.seen == []


def _wasm(folder: Path) -> Path:
    path = folder / "w.wasm"
    path.write_bytes(MODULE)
    return path


# The target file -----------------------------------------------------------------------------------------------


def test_targets_that_cannot_be(face: Face, registry: FakeRegistry, module: Path, tmp_path: Path) -> None:
    ref = f"{registry.host}/hello:v1"
    face("push", module, ref)
    with pytest.raises(OCIError, match="no directory"):
        face("pull", ref, tmp_path / "missing" / "out.wasm")
    with pytest.raises(OCIError, match="not a regular file"):
        face("pull", ref, tmp_path)
    with pytest.raises(OCIError, match="not a regular file"):
        face("pull", ref, "/dev/null")
    link, real = tmp_path / "link.wasm", tmp_path / "real.wasm"
    link.symlink_to(real)
    face("pull", ref, link)
    assert link.is_symlink() and real.read_bytes() == MODULE


def test_a_full_disk(
    face: Face, registry: FakeRegistry, module: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    real = os.write

    def write(fd: int, data: Any) -> int:
        if len(data) > 1000 and bytes(data[:4]) == b"\0asm":
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("wasmlab.oci.transfer.os.write", write)
    with pytest.raises(OCIError, match="no space") as caught:
        face("pull", f"{registry.host}/hello:v1", out)
    assert caught.value.errno == 28
    assert untouched(out)


def test_a_module_larger_than_the_disk_fails_before_it_starts(
    face: Face, registry: FakeRegistry, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = artifact.pack_layer(digest_of(MODULE), 1 << 50)
    registry.put("hello", "v1", packed.manifest, mt.OCI_MANIFEST, MODULE)
    with pytest.raises(SizeMismatch, match="not pulled"):
        face("pull", f"{registry.host}/hello:v1", out)
    monkeypatch.setattr("wasmlab.oci.async_client.MAX_MODULE_BYTES", 1 << 60)
    with pytest.raises(OCIError, match="no space"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert registry.count("GET", "/blobs/") == 0
    assert untouched(out)


# The faces themselves ------------------------------------------------------------------------------------------


async def test_the_sync_face_works_inside_a_running_loop(registry: FakeRegistry, module: Path) -> None:
    """As in a notebook. The registry serves from threads, so blocking this loop is no deadlock."""
    from wasmlab.oci import Client

    pushed = Client().push(module, f"{registry.host}/hello:v1")
    assert Client().resolve(f"{registry.host}/hello:v1") == pushed.digest


def test_nothing_is_left_running(face: Face, registry: FakeRegistry, module: Path) -> None:
    before = set(threading.enumerate())  # a cluster or a board of other tests may live in this process
    face("push", module, f"{registry.host}/hello:v1")
    deadline = time.monotonic() + 30
    while any(one.name.startswith("wasmlab") and one not in before for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_plain_http_for_chosen_registries() -> None:
    from wasmlab.oci import AsyncClient, Reference

    client = AsyncClient(plain_http={"reg.example.org:5000"})
    expected = {"reg.example.org:5000": True, "reg.example.org": False, "localhost:1": True}
    assert {name: client._is_plain(Reference.parse(f"{name}/a")) for name in expected} == expected


def test_proxies_are_used_but_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from wasmlab.oci.transport import _proxy

    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert _proxy("https://reg.example.org/v2/") == "http://proxy.example:3128"
    assert _proxy("https://reg.inside.example/v2/") is None
    assert _proxy("http://127.0.0.1:5000/v2/") is None


def test_unauthorized_without_a_challenge(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(10, lambda handler: handler.error(401, "UNAUTHORIZED", "who are you"))
    with pytest.raises(Unauthorized, match="401 UNAUTHORIZED"):
        face("inspect", f"{registry.host}/hello:v1")
    assert len(registry.seen) == 1


def test_the_same_under_uvloop(registry: FakeRegistry, module: Path, out: Path) -> None:
    """The node agent runs on uvloop, whose errors and timeouts are made elsewhere."""
    import uvloop

    from wasmlab.oci import AsyncClient

    async def main() -> None:
        ref = f"{registry.host}/hello:v1"
        async with AsyncClient(timeout=QUICK) as client:
            await client.push(module, ref)
            await client.pull(ref, out)
            assert out.read_bytes() == MODULE
            with pytest.raises(RegistryUnavailable, match="connection refused"):
                await client.resolve("127.0.0.1:1/hello:v1")
            registry.before = lambda handler: handler.hang()
            with pytest.raises(RegistryTimeout):
                await client.resolve(ref)

    uvloop.run(main())
