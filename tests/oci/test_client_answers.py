"""What a registry may answer: wrong names, wrong bytes, wrong sizes, things that are no module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, Face, untouched
from tests.oci.fake_registry import FakeRegistry, digest_of
from wasmlab.errors import (
    DigestMismatch,
    NotFound,
    OCIError,
    RegistryError,
    SizeMismatch,
    UnsupportedArtifact,
)
from wasmlab.oci import artifact
from wasmlab.oci import media_types as mt


def test_names_the_code_of_a_404(face: Face, registry: FakeRegistry, out: Path) -> None:
    for method, args in (("pull", (out,)), ("inspect", ()), ("resolve", ())):
        with pytest.raises(NotFound, match="404 MANIFEST_UNKNOWN") as caught:
            face(method, f"{registry.host}/hello:nope", *args)
        assert (caught.value.status, caught.value.code, caught.value.registry) == (
            404,
            "MANIFEST_UNKNOWN",
            registry.host,
        )
    assert untouched(out)


def test_a_missing_blob(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    del registry.blobs[digest_of(MODULE)]
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


@pytest.mark.parametrize("tampered", [MODULE[:-1] + b"!", MODULE[::-1]])
def test_a_lying_blob(face: Face, registry: FakeRegistry, module: Path, out: Path, tampered: bytes) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    registry.blobs[digest_of(MODULE)] = tampered
    with pytest.raises(DigestMismatch) as caught:
        face("pull", f"{registry.host}/hello:v1", out)
    assert (caught.value.expected, caught.value.actual) == (digest_of(MODULE), digest_of(tampered))
    assert untouched(out)


@pytest.mark.parametrize("wrong", [MODULE[:-100], MODULE + b"more", b""])
def test_a_blob_of_another_size(
    face: Face, registry: FakeRegistry, module: Path, out: Path, wrong: bytes
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    registry.blobs[digest_of(MODULE)] = wrong
    with pytest.raises(SizeMismatch) as caught:
        face("pull", f"{registry.host}/hello:v1", out)
    assert caught.value.expected == len(MODULE)
    assert untouched(out)


def test_a_transfer_that_is_cut(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    face("push", module, f"{registry.host}/hello:v1")

    def cut(handler: Any) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(MODULE)))
        handler.end_headers()
        handler.wfile.write(MODULE[:5000])
        handler.wfile.flush()
        return handler.drop()

    registry.before = cut
    with pytest.raises(SizeMismatch, match="cut"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def test_an_endless_blob_is_cut_off(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    face("push", module, f"{registry.host}/hello:v1")

    def endless(handler: Any) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        while not handler.owner.stopping.is_set():
            handler.wfile.write(b"\0" * 65536)
        return True

    registry.before = endless
    with pytest.raises(SizeMismatch):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def test_a_lying_manifest(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    pushed = face("push", module, f"{registry.host}/hello:v1")
    kind, raw = registry.manifests["hello", pushed.digest]
    registry.manifests["hello", pushed.digest] = (
        kind,
        raw.replace(b'"schemaVersion":2', b'"schemaVersion": 2'),
    )
    with pytest.raises(DigestMismatch):
        face("pull", f"{registry.host}/hello@{pushed.digest}", out)
    with pytest.raises(DigestMismatch):
        face("resolve", f"{registry.host}/hello@{pushed.digest}")
    # By tag only the registry's own header tells.
    registry.before = lambda handler: _manifest(handler, raw, {"Docker-Content-Digest": digest_of(b"other")})
    with pytest.raises(DigestMismatch):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def _manifest(handler: Any, raw: bytes, headers: dict[str, str]) -> bool:
    if "/manifests/" not in handler.path or handler.command == "PUT":
        return False
    handler.answer(200, raw, {"Content-Type": mt.OCI_MANIFEST, **headers})
    return True


def test_resolve_without_head_or_header(face: Face, registry: FakeRegistry, module: Path) -> None:
    pushed = face("push", module, f"{registry.host}/hello:v1")
    raw = registry.manifests["hello", "v1"][1]
    registry.before = lambda handler: _manifest(handler, raw, {})
    assert face("resolve", f"{registry.host}/hello:v1") == pushed.digest

    def no_head(handler: Any) -> bool:
        if handler.command == "HEAD":
            handler.answer(405)
        return handler.command == "HEAD"

    registry.before = no_head
    assert face("resolve", f"{registry.host}/hello:v1") == pushed.digest


def test_a_container_image_is_refused_by_name(face: Face, registry: FakeRegistry, out: Path) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": mt.DOCKER_MANIFEST,
        "config": {"mediaType": mt.DOCKER_IMAGE_CONFIG, "digest": digest_of(b"c"), "size": 1},
        "layers": [
            {"mediaType": mt.DOCKER_LAYER_PREFIX + "diff.tar.gzip", "digest": digest_of(b"l"), "size": 1}
        ],
    }
    registry.put("nginx", "1", json.dumps(manifest).encode(), mt.DOCKER_MANIFEST)
    ref = f"{registry.host}/nginx:1"
    with pytest.raises(UnsupportedArtifact, match=f"{ref}: this is a container image, not a WASM artifact"):
        face("pull", ref, out)
    found = face("inspect", ref)
    assert (found.layout, found.layer) == ("container image", None)
    assert "container image" in found.problem
    assert untouched(out)


def test_an_index_is_resolved(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    pushed = face("push", module, f"{registry.host}/hello:v1", "cncf")
    entry = {"mediaType": mt.OCI_MANIFEST, "digest": pushed.digest, "size": 10}
    entry["platform"] = {"os": "wasip1", "architecture": "wasm"}
    index = json.dumps({"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": [entry]}).encode()
    digest = registry.put("hello", "multi", index, mt.OCI_INDEX)
    pulled = face("pull", f"{registry.host}/hello:multi", out)
    assert (pulled.manifest_digest, pulled.layer_digest) == (digest, digest_of(MODULE))
    assert out.read_bytes() == MODULE


def test_a_layer_that_is_not_wasm(face: Face, registry: FakeRegistry, out: Path) -> None:
    data = b"#!/bin/sh\necho gotcha\n"
    packed = artifact.pack_layer(digest_of(data), len(data))
    registry.put("hello", "v1", packed.manifest, mt.OCI_MANIFEST, data)
    with pytest.raises(UnsupportedArtifact, match="not a WASM module"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def test_an_html_page_instead_of_a_registry(face: Face, registry: FakeRegistry, out: Path) -> None:
    status = 200

    def page(handler: Any) -> bool:
        handler.answer(status, b"<html>" + b"x" * 5000 + b"</html>", {"Content-Type": "text/html"})
        return True

    registry.before = page
    with pytest.raises(OCIError, match="HTML page"):
        face("pull", f"{registry.host}/hello:v1", out)
    status = 500
    with pytest.raises(RegistryError, match="500: an HTML page") as caught:
        face("pull", f"{registry.host}/hello:v1", out)
    assert len(str(caught.value)) < 400
    assert untouched(out)


def test_a_huge_manifest_is_not_read(face: Face, registry: FakeRegistry, out: Path) -> None:
    registry.before = lambda handler: _manifest(handler, b" " * (artifact.MAX_MANIFEST_BYTES + 10), {})
    with pytest.raises(OCIError, match="larger than"):
        face("pull", f"{registry.host}/hello:v1", out)


def test_error_text_is_one_printable_line(face: Face, registry: FakeRegistry) -> None:
    def rude(handler: Any) -> bool:
        handler.error(400, "DENIED", "line\none \x1b[31mred" + "x" * 1000)
        return True

    registry.before = rude
    with pytest.raises(RegistryError) as caught:
        face("resolve", f"{registry.host}/hello:v1")
    assert "\x1b" not in str(caught.value) and "\n" not in caught.value.message
    assert len(caught.value.message) < 500
