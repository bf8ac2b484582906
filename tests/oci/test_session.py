"""Authentication against a token service, a Basic registry, and ones that misbehave."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, Face
from tests.oci.fake_registry import FakeRegistry, TokenService
from wasmlab.errors import CredentialError, OCIError, Unauthorized
from wasmlab.oci import AsyncClient, Client, Credentials, Reference
from wasmlab.oci.protocol import Request, Response
from wasmlab.oci.session import Session, TokenCache

SHAPES = {
    "token": lambda token: {"token": token},
    "access_token": lambda token: {"access_token": token},
    "both": lambda token: {"token": token, "access_token": token},
    "harbor": lambda token: {
        "token": token,
        "access_token": "",
        "expires_in": 1800,
        "issued_at": "2021-06-01T00:00:00Z",
    },
    "empty token": lambda token: {"token": "", "access_token": token},
}


@pytest.fixture
def service(registry: FakeRegistry) -> TokenService:
    registry.before = TokenService(registry)
    return registry.before


@pytest.mark.parametrize("shape", SHAPES)
def test_push_and_pull_with_every_shape_of_token_answer(
    face: Face, registry: FakeRegistry, service: TokenService, module: Path, tmp_path: Path, shape: str
) -> None:
    service.shape = SHAPES[shape]
    ref = f"{registry.host}/proj/hello:v1"
    credentials = Credentials.of(registry.host, service.user, service.password)
    face("push", module, ref, credentials=credentials)
    asked = len(service.asked)
    assert asked == 1  # one token, with both rights, serves the whole push
    assert service.asked[0][1]["scope"] == ["repository:proj/hello:pull,push"]
    assert service.asked[0][1]["service"] == ["harbor-registry"]
    face("pull", ref, tmp_path / "out.wasm", credentials=credentials)
    assert (tmp_path / "out.wasm").read_bytes() == MODULE
    assert service.asked[-1][1]["scope"] == ["repository:proj/hello:pull"]


def test_anonymous_tokens(
    face: Face, registry: FakeRegistry, service: TokenService, module: Path, tmp_path: Path
) -> None:
    service.anonymous = True
    face("push", module, f"{registry.host}/hello:v1")
    assert all(header == "" for _, _, header in service.asked)


def test_no_or_wrong_credentials(
    face: Face, registry: FakeRegistry, service: TokenService, tmp_path: Path
) -> None:
    for credentials in (None, Credentials.of(registry.host, "ada", "wrong-secret")):
        with pytest.raises(Unauthorized, match="401 UNAUTHORIZED") as caught:
            face("pull", f"{registry.host}/hello:v1", tmp_path / "o.wasm", credentials=credentials)
        assert caught.value.status == 401
        assert "docker login" in str(caught.value)
        assert "wrong-secret" not in repr(caught.value) + str(caught.value)


def test_a_registry_that_never_accepts_its_own_tokens(
    face: Face, registry: FakeRegistry, service: TokenService
) -> None:
    service.always_refuse = True
    credentials = Credentials.of(registry.host, service.user, service.password)
    with pytest.raises(Unauthorized):
        face("resolve", f"{registry.host}/hello:v1", credentials=credentials)
    assert len(registry.seen) <= 6


def test_several_candidates_are_tried_in_turn(
    face: Face, registry: FakeRegistry, service: TokenService, module: Path
) -> None:
    wrong = Credentials.of(registry.host, "ada", "stale")
    right = Credentials.of(registry.host, service.user, service.password)
    face("push", module, f"{registry.host}/hello:v1", credentials=wrong | right)


def test_identity_tokens(face: Face, registry: FakeRegistry, service: TokenService, module: Path) -> None:
    secret = {"auths": {registry.host: {"identitytoken": service.password}}}
    face("push", module, f"{registry.host}/hello:v1", credentials=Credentials.from_pull_secret(secret))
    assert service.asked[0][0] == "POST"


def test_tokens_are_kept_between_calls_and_renewed_when_refused(
    registry: FakeRegistry, service: TokenService, module: Path
) -> None:
    client = Client(credentials=Credentials.of(registry.host, service.user, service.password))
    ref = f"{registry.host}/hello:v1"
    client.push(module, ref)
    client.resolve(ref)
    client.resolve(ref)
    assert len(service.asked) == 2
    service.issued.clear()  # the registry restarted with another key
    client.resolve(ref)
    assert len(service.asked) == 3


def test_a_token_is_not_shared_between_credentials(
    registry: FakeRegistry, service: TokenService, module: Path
) -> None:
    """One pod's secret must not open the door for another pod on the same node."""
    right = Credentials.of(registry.host, service.user, service.password)
    ref = f"{registry.host}/hello:v1"

    async def main() -> None:
        async with AsyncClient() as client:
            await client.push(module, ref, credentials=right)
            await client.resolve(ref, credentials=right)
            with pytest.raises(Unauthorized):
                await client.resolve(ref)
            with pytest.raises(Unauthorized):
                await client.resolve(ref, credentials=Credentials.of(registry.host, "eve", "x"))

    asyncio.run(main())


def basic_only(handler: Any) -> bool:
    right = "Basic " + base64.b64encode(b"ada:pw").decode()
    if handler.headers.get("authorization") == right:
        return False
    handler.error(401, "UNAUTHORIZED", "login", {"WWW-Authenticate": 'Basic realm="registry"'})
    return True


def test_basic(face: Face, registry: FakeRegistry, module: Path) -> None:
    registry.before = basic_only
    face("push", module, f"{registry.host}/hello:v1", credentials=Credentials.of(registry.host, "ada", "pw"))
    with pytest.raises(Unauthorized):
        face("resolve", f"{registry.host}/hello:v1", credentials=Credentials.of(registry.host, "ada", "no"))
    with pytest.raises(Unauthorized):
        face("resolve", f"{registry.host}/hello:v1")


def test_403_says_which_right_is_missing(face: Face, registry: FakeRegistry, module: Path) -> None:
    registry.before = lambda handler: handler.error(403, "DENIED", "requested access is denied") is None
    with pytest.raises(Unauthorized, match="403 DENIED") as caught:
        face("push", module, f"{registry.host}/hello:v1")
    assert "lack the right" in str(caught.value)


def test_a_token_service_that_answers_nonsense(
    face: Face, registry: FakeRegistry, service: TokenService
) -> None:
    service.anonymous = True
    service.shape = lambda token: {"token": "", "access_token": ""}
    with pytest.raises(OCIError, match="without a token"):
        face("resolve", f"{registry.host}/hello:v1")


def test_credentials_do_not_follow_a_redirect_to_another_host(
    face: Face, registry: FakeRegistry, service: TokenService, module: Path, tmp_path: Path
) -> None:
    other = FakeRegistry().start()
    try:
        credentials = Credentials.of(registry.host, service.user, service.password)
        face("push", module, f"{registry.host}/hello:v1", credentials=credentials)

        def store(handler: Any) -> bool:
            handler.answer(200, MODULE)
            return True

        def elsewhere(handler: Any) -> bool:
            if service(handler):
                return True
            if handler.command == "GET" and "/blobs/" in handler.path:
                handler.answer(307, b"", {"Location": f"http://{other.host}/blob"})
                return True
            return False

        registry.before, other.before = elsewhere, store
        face("pull", f"{registry.host}/hello:v1", tmp_path / "o.wasm", credentials=credentials)
        assert other.seen and all("authorization" not in item.headers for item in other.seen)
    finally:
        other.stop()


# With a fake transport: what would need hosts that do not exist ------------------------------------------------


class Script:
    """A transport that answers from a list and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    async def exchange(self, request: Request, sink: Any = None, progress: Any = None) -> Response:
        self.asked.append(request)
        status, headers, body = self.answers.pop(0)
        return Response(status, headers, body, request.url)

    async def aclose(self) -> None:
        pass


def session(script: Script, credentials: Credentials | None = None, **options: Any) -> Session:
    ref = Reference.parse("reg.example.org/a:v1")
    return Session(script, ref, credentials, TokenCache(), plain_http=False, **options)


CREDENTIALS = Credentials.of("reg.example.org", "ada", "pw")


async def test_a_password_is_not_sent_to_a_token_service_in_the_clear() -> None:
    challenge = {"www-authenticate": 'Bearer realm="http://tokens.example.org/t",service="x"'}
    script = Script((401, challenge, b""))
    one = session(script, CREDENTIALS)
    with pytest.raises(CredentialError, match="plain http"):
        await one.send(Request("GET", one.base + "/manifests/v1", "try"), 200)
    assert len(script.asked) == 1
    script = Script((401, challenge, b""), (200, {}, b'{"token": "t"}'), (200, {}, b"ok"))
    one = session(script, CREDENTIALS, insecure=True)
    assert (await one.send(Request("GET", one.base + "/manifests/v1", "try"), 200)).body == b"ok"


async def test_https_does_not_fall_back_to_http_by_redirect() -> None:
    script = Script((302, {"location": "http://reg.example.org/x"}, b""))
    one = session(script)
    with pytest.raises(OCIError, match="from https to"):
        await one.send(Request("GET", one.base + "/blobs/x", "try"), 200)


async def test_a_401_of_the_blob_store_is_not_answered_with_our_password() -> None:
    challenge = {"www-authenticate": 'Basic realm="store"'}
    script = Script((307, {"location": "https://store.example.org/x?sig=SECRET"}, b""), (401, challenge, b""))
    one = session(script, CREDENTIALS)
    with pytest.raises(Unauthorized) as caught:
        await one.send(Request("GET", one.base + "/blobs/x", "try"), 200)
    assert len(script.asked) == 2
    assert "store.example.org, to where the registry redirected, answered 401" in str(caught.value)
    assert "SECRET" not in str(caught.value) + repr(caught.value)


async def test_docker_hub_is_asked_at_its_api_host() -> None:
    script = Script((200, {}, b""))
    one = Session(script, Reference.parse("hello"), None, TokenCache(), plain_http=False)
    await one.send(Request("GET", one.base + "/manifests/latest", "try"), 200)
    assert script.asked[0].url == "https://registry-1.docker.io/v2/library/hello/manifests/latest"


def test_cached_tokens_end_before_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, key = TokenCache(), ("r", "s", "c")
    cache.put(key, "Bearer x", 60)
    assert cache.get(key) == "Bearer x"
    now = time.monotonic()
    monkeypatch.setattr("wasmlab.oci.session.time.monotonic", lambda: now + 51)
    assert cache.get(key) is None
