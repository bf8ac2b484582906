"""The connection to the API server when the node's client certificate is replaced under it."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from tests.node.fakeapi import ok
from wasmlab.node.api.kubeapi import KubeApi
from wasmlab.node.membership import csr


class Authority:
    """Signs certificates."""

    def __init__(self) -> None:
        self._pem = csr.new_key()
        self._key: Any = serialization.load_pem_private_key(self._pem, None)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.name, self._key.public_key(), 1, constraints)

    def _sign(self, name: x509.Name, public: Any, serial: int, *extensions: x509.ExtensionType) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, serial: int) -> tuple[bytes, bytes]:
        """A certificate for 127.0.0.1, and its key."""
        pem = csr.new_key()
        key: Any = serialization.load_pem_private_key(pem, None)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return self._sign(subject, key.public_key(), serial, address), pem


def load(context: ssl.SSLContext, directory: Path, certificate: bytes, key: bytes) -> None:
    path = directory / "both.pem"
    path.write_bytes(certificate + key)
    context.load_cert_chain(path)
    path.unlink()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[KubeApi, Authority, asyncio.Event]]:
    """An API server that says by which client certificate it was asked; a watch of it lasts until the event."""
    authority = Authority()
    go_on = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        serial = int(request.get_extra_info("peercert")["serialNumber"], 16)
        event = b'{"type":"ADDED","object":{"serial":%d}}\n' % serial
        if "watch" not in request.query:
            return ok({"serial": serial})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(event)
        await go_on.wait()
        await response.write(event)
        return response

    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    load(server, tmp_path, *authority.issue("server", 2))
    app = web.Application()
    app.router.add_get("/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    client.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    load(client, tmp_path, *authority.issue("first", 10))
    api = KubeApi(f"https://127.0.0.1:{runner.addresses[0][1]}", client)
    try:
        yield api, authority, go_on
    finally:
        go_on.set()
        await api.aclose()
        await runner.cleanup()


async def test_new_requests_show_the_new_certificate_and_a_watch_under_way_goes_on(
    lab: tuple[KubeApi, Authority, asyncio.Event], tmp_path: Path
) -> None:
    api, authority, go_on = lab
    assert (await api.get("/a"))["serial"] == 10
    watch = api.watch("/pods", {}, silence_s=30)
    assert (await anext(watch))[1] == {"serial": 10}

    await api.use_certificate(*authority.issue("second", 11), temporary=tmp_path)
    answers = await asyncio.gather(*(api.get(f"/{n}") for n in range(30)))
    assert {one["serial"] for one in answers} == {11}
    assert list(tmp_path.iterdir()) == []  # no key is left behind

    go_on.set()
    assert (await anext(watch))[1] == {"serial": 10}
    async for _, found in api.watch("/pods", {}, silence_s=30):
        assert found == {"serial": 11}
