from __future__ import annotations

import base64
from typing import Any

from wasmlab.node.endpoint import authn
from wasmlab.node.endpoint.authz import User

NOW = 1_800_000_000.0


def peer(*subject: tuple[str, str], until: str = "Jan 16 08:00:00 2030 GMT") -> dict[str, Any]:
    """As ssl.SSLSocket.getpeercert has it."""
    return {"subject": tuple((part,) for part in subject), "notAfter": until}


def test_a_certificate_names_a_user_and_groups() -> None:
    certificate = peer(("organizationName", "dev"), ("organizationName", "ops"), ("commonName", "jane"))
    assert authn.of_certificate(certificate, NOW) == User(
        "jane", groups=("dev", "ops", "system:authenticated")
    )


def test_who_is_nobody() -> None:
    assert authn.of_certificate(None, NOW) is None
    assert authn.of_certificate({}, NOW) is None
    assert authn.of_certificate(peer(("organizationName", "system:masters")), NOW) is None
    expired = peer(("commonName", "jane"), until="Jan 15 07:59:59 2027 GMT")
    assert authn.of_certificate(expired, NOW) is None  # a connection may outlive its certificate


def test_where_tokens_come_from() -> None:
    assert authn.bearer_token({"Authorization": "Bearer abc"}) == "abc"
    assert authn.bearer_token({"Authorization": "bearer  abc "}) == "abc"
    assert authn.bearer_token({"Authorization": "Basic abc"}) is None
    assert authn.bearer_token({"Authorization": "Bearer "}) is None
    assert authn.bearer_token({}) is None
    encoded = base64.urlsafe_b64encode(b"abcd").decode().rstrip("=")
    protocols = f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"
    assert authn.bearer_token({"Sec-WebSocket-Protocol": protocols}) == "abcd"
    assert (
        authn.bearer_token({"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.\xff"}) is None
    )


def test_the_review_decides() -> None:
    good = {
        "status": {
            "authenticated": True,
            "user": {
                "username": "sa",
                "uid": "1",
                "groups": ["g", "system:authenticated"],
                "extra": {"k": ["v"]},
            },
        }
    }
    assert authn.of_token_review(good) == User("sa", "1", ("g", "system:authenticated"), {"k": ["v"]})
    assert authn.of_token_review({"status": {"error": "invalid"}}) is None
    assert authn.of_token_review({"status": {"authenticated": True, "user": {}}}) is None
    assert authn.of_token_review({}) is None
