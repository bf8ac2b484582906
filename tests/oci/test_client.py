"""Both faces against a registry that behaves, and one that does not."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, Face
from tests.oci.fake_registry import FakeRegistry, digest_of
from wasmlab.errors import (
    DigestMismatch,
    InvalidModule,
    InvalidReference,
    NotFound,
    OCIError,
    RegistryError,
    RegistryTimeout,
    RegistryUnavailable,
    SizeMismatch,
    Unauthorized,
    UnsupportedArtifact,
)
from wasmlab.oci import artifact
from wasmlab.oci import media_types as mt
from wasmlab.oci.protocol import Timeouts

OLD = b"\0asm\x01\0\0\0 the old one"
QUICK = Timeouts(connect_s=0.5, read_s=0.5, total_s=10.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "target" / "out.wasm"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def untouched(out: Path) -> bool:
    """The old file is as it was, and nothing lies beside it."""
    return out.read_bytes() == OLD and os.listdir(out.parent) == [out.name]


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


# What a registry may answer ----------------------------------------------------------------------------------------


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


# Trying again --------------------------------------------------------------------------------------------------


def failing(times: int, answer: Any) -> Any:
    left = [times]

    def before(handler: Any) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        answer(handler)
        return True

    return before


def test_429_is_waited_out(face: Face, registry: FakeRegistry, module: Path) -> None:
    pushed = face("push", module, f"{registry.host}/hello:v1")
    registry.before = failing(2, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "0"}))
    assert face("resolve", f"{registry.host}/hello:v1") == pushed.digest


def test_429_without_end_fails_and_says_so(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(
        1000, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "0"})
    )
    with pytest.raises(RegistryError, match="429 TOOMANYREQUESTS"):
        face("inspect", f"{registry.host}/hello:v1")
    assert len(registry.seen) <= 5


def test_a_long_retry_after_is_not_slept_through(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(
        1000, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "3600"})
    )
    start = time.monotonic()
    with pytest.raises(RegistryError, match="429"):
        face("inspect", f"{registry.host}/hello:v1")
    assert time.monotonic() - start < 15


def test_503_and_a_broken_connection_are_tried_again(
    face: Face, registry: FakeRegistry, module: Path, out: Path
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    registry.before = failing(1, lambda handler: handler.answer(503))
    face("inspect", f"{registry.host}/hello:v1")
    registry.before = failing(1, lambda handler: handler.drop())
    face("inspect", f"{registry.host}/hello:v1")
    registry.before = failing(1000, lambda handler: handler.drop())
    with pytest.raises(RegistryUnavailable, match="broke"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def test_500_is_not_tried_again(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(1000, lambda handler: handler.error(500, "UNKNOWN", "boom"))
    with pytest.raises(RegistryError, match="500 UNKNOWN: boom"):
        face("inspect", f"{registry.host}/hello:v1")
    assert len(registry.seen) == 1


def test_an_upload_is_not_repeated_blindly(face: Face, registry: FakeRegistry, module: Path) -> None:
    registry.before = lambda handler: handler.command == "PUT" and handler.drop()
    with pytest.raises(RegistryUnavailable):
        face("push", module, f"{registry.host}/hello:v1")
    assert registry.count("PUT", "/uploads/") == 1


# Redirects -----------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Any:
    fake = FakeRegistry().start()
    yield fake
    fake.stop()


def test_blobs_may_be_elsewhere(
    face: Face, registry: FakeRegistry, other: FakeRegistry, module: Path, out: Path
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    signature = "X-Sig=a%2Fb%2B%3D&x=%7e"

    def elsewhere(handler: Any) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path:
            return False
        handler.answer(307, b"", {"Location": f"http://{other.host}/store/abc?{signature}"})
        return True

    def serve(handler: Any) -> bool:
        handler.answer(200, MODULE)
        return True

    registry.before, other.before = elsewhere, serve
    face("pull", f"{registry.host}/hello:v1", out)
    assert out.read_bytes() == MODULE
    assert other.seen[0].path == f"/store/abc?{signature}"  # a signature survives only untouched


def test_a_circle_of_redirects_ends(face: Face, registry: FakeRegistry, out: Path) -> None:
    def around(handler: Any) -> bool:
        handler.answer(302, b"", {"Location": handler.path})
        return True

    registry.before = around
    with pytest.raises(OCIError, match="redirects"):
        face("pull", f"{registry.host}/hello:v1", out)
    registry.before = lambda handler: handler.answer(302, b"", {"Location": "file:///etc/passwd"}) is None
    with pytest.raises(OCIError, match="redirects to"):
        face("pull", f"{registry.host}/hello:v1", out)


# Dead, hanging, or of another protocol --------------------------------------------------------------------------


def test_a_dead_registry(face: Face, out: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        with pytest.raises(RegistryUnavailable, match="connection refused") as caught:
            face("pull", f"127.0.0.1:{held.getsockname()[1]}/hello:v1", out)
    assert isinstance(caught.value, ConnectionError)
    assert not isinstance(caught.value, RegistryTimeout)
    assert untouched(out)


def test_an_unknown_host(face: Face) -> None:
    with pytest.raises(RegistryUnavailable, match="cannot be resolved"):
        face("inspect", "no-such-host.invalid/hello:v1")


def test_a_name_server_that_hangs(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and the thread that still asks does not hold up the end of the call."""
    released = threading.Event()
    monkeypatch.setattr("wasmlab.oci.resolver.socket.getaddrinfo", lambda *_: released.wait(20) and [])
    start = time.monotonic()
    try:
        with pytest.raises(RegistryTimeout, match="no connection"):
            face("inspect", "reg.example.org/hello:v1", timeout=QUICK)
        assert time.monotonic() - start < 15
    finally:
        released.set()


def test_a_registry_that_hangs(face: Face, registry: FakeRegistry, out: Path) -> None:
    registry.before = lambda handler: handler.hang()
    start = time.monotonic()
    with pytest.raises(RegistryTimeout, match="silent") as caught:
        face("pull", f"{registry.host}/hello:v1", out, timeout=QUICK)
    assert time.monotonic() - start < 15
    assert isinstance(caught.value, TimeoutError)
    assert untouched(out)


def test_a_registry_that_does_not_accept(face: Face) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # The backlog is filled, so further connections are neither accepted nor refused.
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            start = time.monotonic()
            with pytest.raises(RegistryTimeout):
                face("resolve", f"127.0.0.1:{listener.getsockname()[1]}/hello:v1", timeout=QUICK)
            assert time.monotonic() - start < 15
        finally:
            for filler in fillers:
                filler.close()


def test_a_registry_that_drips(face: Face, registry: FakeRegistry, module: Path, out: Path) -> None:
    """Never silent for long, and yet it ends: the whole has a deadline too."""
    face("push", module, f"{registry.host}/hello:v1")

    def drip(handler: Any) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(MODULE)))
        handler.end_headers()
        for byte in MODULE:
            if handler.owner.stopping.wait(0.1):
                break
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
        return True

    registry.before = drip
    start = time.monotonic()
    with pytest.raises(RegistryTimeout, match="not finished"):
        face(
            "pull", f"{registry.host}/hello:v1", out, timeout=Timeouts(connect_s=5.0, read_s=5.0, total_s=1.0)
        )
    assert time.monotonic() - start < 15
    assert untouched(out)


def test_a_large_module_gets_more_time() -> None:
    timeouts = Timeouts(total_s=10, min_rate_bytes_per_s=1000)
    assert timeouts.for_size(0) == 10
    assert timeouts.for_size(60_000) == 70


def test_something_that_is_not_http(face: Face) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def ssh() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    connection.recv(100)

        thread = threading.Thread(target=ssh, daemon=True)
        thread.start()
        with pytest.raises(RegistryUnavailable, match="not HTTP"):
            face("inspect", f"127.0.0.1:{listener.getsockname()[1]}/hello:v1", timeout=QUICK)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "registry.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def tls_registry(certificate: Path) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake = FakeRegistry().start(context)
    yield fake
    fake.stop()


def test_tls(face: Face, tls_registry: FakeRegistry, certificate: Path, module: Path, out: Path) -> None:
    ref = f"{tls_registry.host}/hello:v1"
    face("push", module, ref, plain_http=False, ca_file=certificate)
    face("pull", ref, out, plain_http=False, insecure=True)
    assert out.read_bytes() == MODULE
    with pytest.raises(RegistryUnavailable, match="not trusted") as caught:
        face("inspect", ref, plain_http=False)
    assert "--ca-file" in str(caught.value)


def test_http_and_https_confused(face: Face, registry: FakeRegistry, tls_registry: FakeRegistry) -> None:
    with pytest.raises(RegistryUnavailable, match="--use-http"):
        face("inspect", f"{registry.host}/hello:v1", plain_http=False)
    with pytest.raises(OCIError):
        face("inspect", f"{tls_registry.host}/hello:v1", timeout=QUICK)

    # Go's net/http, and so most registries, answers plain http on a TLS port with these words.
    def go(handler: Any) -> bool:
        handler.answer(400, b"Client sent an HTTP request to an HTTPS server.\n")
        return True

    registry.before = go
    with pytest.raises(RegistryUnavailable, match="speaks https"):
        face("inspect", f"{registry.host}/hello:v1")


def test_a_ca_file_that_is_none(face: Face, registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="CA file"):
        face("inspect", f"{registry.host}/hello:v1", plain_http=False, ca_file=tmp_path / "none.pem")


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
