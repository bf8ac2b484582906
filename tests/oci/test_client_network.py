"""Registries that are dead, that hang, that speak another protocol or TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, QUICK, Face, untouched
from tests.oci.fake_registry import FakeRegistry
from wasmlab.errors import (
    OCIError,
    RegistryTimeout,
    RegistryUnavailable,
)
from wasmlab.oci.protocol import Timeouts


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
    monkeypatch.setattr("wasmlab.oci.resolver.socket.getaddrinfo", lambda *_: released.wait(100) and [])
    start = time.monotonic()
    try:
        with pytest.raises(RegistryTimeout, match="no connection"):
            face("inspect", "reg.example.org/hello:v1", timeout=QUICK)
        assert time.monotonic() - start < 60
    finally:
        released.set()


def test_a_registry_that_hangs(face: Face, registry: FakeRegistry, out: Path) -> None:
    registry.before = lambda handler: handler.hang()
    with pytest.raises(RegistryTimeout, match="silent") as caught:
        face("pull", f"{registry.host}/hello:v1", out, timeout=QUICK)
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
            with pytest.raises(RegistryTimeout):
                face("resolve", f"127.0.0.1:{listener.getsockname()[1]}/hello:v1", timeout=QUICK)
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
    with pytest.raises(RegistryTimeout, match="not finished"):
        face(
            "pull", f"{registry.host}/hello:v1", out, timeout=Timeouts(connect_s=5.0, read_s=5.0, total_s=1.0)
        )
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
            face("inspect", f"127.0.0.1:{listener.getsockname()[1]}/hello:v1")
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
