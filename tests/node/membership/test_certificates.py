"""Renewal and issue, with a clock and an API server that a test moves."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.node.fakeapi import FakeApi, eventually, ok, status
from wasmlab.errors import BootstrapError
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import bootstrap, certificates, csr
from wasmlab.node.membership import issue as issuing
from wasmlab.node.membership.certificates import Renewal
from wasmlab.node.membership.issue import Wish, issue

T0 = datetime(2027, 1, 1, tzinfo=UTC)


def sign(request_pem: bytes, *, begin: datetime, life: timedelta) -> bytes:
    """What a signer makes of a request."""
    request = x509.load_pem_x509_csr(request_pem)
    key = serialization.load_pem_private_key(csr.new_key(), None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(request.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + life)
    )
    for extension in request.extensions:
        builder = builder.add_extension(extension.value, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def certificate(begin: datetime, life_s: float) -> bytes:
    return sign(csr.request(csr.new_key(), "n1"), begin=begin, life=timedelta(seconds=life_s))


def test_when_a_certificate_is_due() -> None:
    pem = certificate(T0, 1000)
    assert csr.rotation_due(pem, 0.7) == pytest.approx(T0.timestamp() + 700)
    assert csr.rotation_due(pem, 0.9) == pytest.approx(T0.timestamp() + 900)
    assert NodeConfig.__dataclass_fields__["intervals"].default_factory().rotate_at == (0.7, 0.9)  # type: ignore[misc]


def test_whose_certificate_it_is() -> None:
    pem = certificate(T0, 1000)
    assert csr.is_of_node(pem, "n1")
    assert not csr.is_of_node(pem, "n2")
    assert not csr.is_of_node(b"nonsense", "n1")


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = T0.timestamp()
        self.slept: list[float] = []
        sleep = asyncio.sleep

        async def pretend(seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds
            await sleep(0)

        monkeypatch.setattr(certificates.asyncio, "sleep", pretend)


async def ran(renewal: Renewal, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(renewal.run())
    while not until() and not task.done():
        await asyncio.wait({task}, timeout=0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


async def test_it_is_renewed_in_time_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    renewed: list[float] = []

    async def renew() -> bytes:
        renewed.append(clock.now)
        return certificate(datetime.fromtimestamp(clock.now, UTC), 1000)

    renewal = Renewal("server", certificate(T0, 1000), renew, (0.7, 0.9), now=lambda: clock.now)
    await ran(renewal, lambda: len(renewed) >= 3)
    first, second = renewed[0] - T0.timestamp(), renewed[1] - renewed[0]
    # Certificates have whole seconds.
    assert 699 <= first <= 901
    assert 699 <= second <= 901
    assert max(clock.slept) <= 60  # a clock that was set is noticed
    assert renewal.errors == 0


async def test_failures_are_tried_again_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    tries = []

    async def renew() -> bytes:
        tries.append(clock.now)
        if len(tries) < 8:
            raise BootstrapError("nobody there")
        return certificate(datetime.fromtimestamp(clock.now, UTC), 1000)

    renewal = Renewal("server", certificate(T0, 1000), renew, (0.7, 0.7), now=lambda: clock.now)
    await ran(renewal, lambda: len(tries) >= 8)
    assert [round(b - a) for a, b in itertools.pairwise(tries[:8])] == [2, 4, 8, 16, 32, 60, 60]
    assert renewal.errors == 7


async def test_without_its_client_certificate_a_node_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def renew() -> bytes:
        raise BootstrapError("nobody there")

    renewal = Renewal("client", certificate(T0, 1000), renew, (0.7, 0.7), fatal=True, now=lambda: clock.now)
    with pytest.raises(BootstrapError, match="expired"):
        await ran(renewal, lambda: False)
    assert clock.now >= T0.timestamp() + 1000


# ---- asking for one ----


class Signer:
    """An API server with CSRs that are decided as the test wants."""

    def __init__(self) -> None:
        self.csrs: dict[str, dict[str, Any]] = {}
        self.life = timedelta(hours=1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            made = await request.json()
            name = made["metadata"]["name"]
            if name in self.csrs:
                return status(409, "AlreadyExists")
            self.csrs[name] = made
            return ok(made)
        name = request.path.rsplit("/", 1)[-1]
        return ok(self.csrs[name]) if name in self.csrs else status(404, "NotFound")

    def approve(self, name: str) -> None:
        pem = base64.b64decode(self.csrs[name]["spec"]["request"])
        issued = sign(pem, begin=datetime.now(UTC) - timedelta(minutes=1), life=self.life)
        self.csrs[name]["status"] = {
            "conditions": [{"type": "Approved"}],
            "certificate": base64.b64encode(issued).decode(),
        }


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    made = NodeConfig(kubeconfig=tmp_path / "kubeconfig", dir=tmp_path, node_name="n1", certificate_s=600)
    made.pki.mkdir(mode=0o700)
    return made


def wish(config: NodeConfig, address: str = "192.0.2.1", **more: Any) -> Wish:
    key_file = config.pki / "serving-next.key"
    return Wish("serving", "n1-tls", csr.SERVING_SIGNER, key_file, [address], ["n1"], **more)


async def test_a_restart_goes_on_with_the_same_request(config: NodeConfig) -> None:
    signer = Signer()
    async with FakeApi(signer.handle) as api:
        asking = asyncio.create_task(issue(api, config, wish(config)))
        await eventually(lambda: bool(signer.csrs))
        asking.cancel()  # the agent is killed here
        await asyncio.gather(asking, return_exceptions=True)
        assert signer.csrs["n1-tls"]["spec"]["expirationSeconds"] == 600
        asking = asyncio.create_task(issue(api, config, wish(config)))
        await asyncio.sleep(0)
        signer.approve("n1-tls")
        issued, key = await asyncio.wait_for(asking, 10)
        assert list(signer.csrs) == ["n1-tls"]
        assert csr.usable(issued, key, addresses=["192.0.2.1"]) is None


async def test_a_request_for_another_address_is_not_taken_for_ours(config: NodeConfig) -> None:
    signer = Signer()
    async with FakeApi(signer.handle) as api:
        asking = asyncio.create_task(issue(api, config, wish(config)))
        await eventually(lambda: bool(signer.csrs))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        signer.approve("n1-tls")
        # The machine has another address now.
        asking = asyncio.create_task(issue(api, config, wish(config, "192.0.2.9")))
        await eventually(lambda: len(signer.csrs) == 2)
        (other,) = set(signer.csrs) - {"n1-tls"}
        assert other.startswith("n1-tls-")
        signer.approve(other)
        issued, key = await asyncio.wait_for(asking, 10)
        assert csr.usable(issued, key, addresses=["192.0.2.9"]) is None


async def test_a_signer_that_gives_dead_certificates_is_not_asked_for_ever(config: NodeConfig) -> None:
    signer = Signer()
    signer.life = timedelta(seconds=61)

    async def approve_all(request: web.Request) -> web.StreamResponse:
        answer = await signer.handle(request)
        for name in signer.csrs:
            if "status" not in signer.csrs[name]:
                signer.approve(name)
        return answer

    async with FakeApi(approve_all) as api:
        with pytest.raises(BootstrapError, match="cannot be used: it expired or is about to"):
            await asyncio.wait_for(issue(api, config, wish(config)), 20)
    assert len(signer.csrs) == 2


async def test_refused_deleted_and_not_approved(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "_CLIENT_PATIENCE_S", 0.0)
    signer = Signer()
    async with FakeApi(signer.handle) as api:
        with pytest.raises(
            BootstrapError, match=r"nobody approved the serving certificate request n1-tls within 0\.1"
        ):
            await issue(api, config, wish(config, timeout_s=0.1))
        signer.csrs["n1-tls"]["status"] = {"conditions": [{"type": "Denied", "message": "no"}]}
        asking = asyncio.create_task(issue(api, config, wish(config)))
        await eventually(lambda: len(signer.csrs) == 2)
        (other,) = set(signer.csrs) - {"n1-tls"}
        del signer.csrs[other]
        with pytest.raises(BootstrapError, match="was deleted before it was decided"):
            await asyncio.wait_for(asking, 10)


# ---- kubeconfigs ----


def test_only_the_certificate_changes_in_a_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    content = csr.kubeconfig("https://one", b"ca", b"old", b"key", "n1")
    content["users"].insert(0, {"name": "other", "user": {"token": "t"}})
    content["clusters"][0]["cluster"]["tls-server-name"] = "x"
    path.write_text(yaml.safe_dump(content))
    assert bootstrap.own_certificate(path) == b"old"
    bootstrap.replace_certificate(path, b"new", b"newkey")
    assert bootstrap.own_certificate(path) == b"new"
    after = yaml.safe_load(path.read_text())
    assert after["users"][0] == content["users"][0]
    assert after["clusters"] == content["clusters"]
    assert path.stat().st_mode & 0o077 == 0


def test_somebody_elses_credentials_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    for text in ("", "nonsense", yaml.safe_dump({"users": [{"name": "u", "user": {"token": "t"}}]})):
        path.write_text(text)
        assert bootstrap.own_certificate(path) is None
    assert bootstrap.own_certificate(tmp_path / "absent") is None
