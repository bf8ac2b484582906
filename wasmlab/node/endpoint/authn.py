"""Who asks, from what came with the request: pure.

A client certificate (the TLS handshake has verified it), a bearer token in ``Authorization``, or, from browsers that
cannot set headers on a WebSocket, one among the subprotocols. No credentials are nobody: there is no anonymous user.

References
----------
``k8s.io/apiserver/pkg/authentication/request``: ``x509``, ``bearertoken``, ``websocket``.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping
from typing import Any

from wasmlab.node.endpoint.authz import User

Json = dict[str, Any]

AUTHENTICATED = "system:authenticated"
_PROTOCOL_PREFIX = "base64url.bearer.authorization.k8s.io."


def of_certificate(peer: Mapping[str, Any] | None, now: float) -> User | None:
    """The user that a verified client certificate names: common name, and organizations as groups.

    Parameters
    ----------
    peer : mapping or None
        What `ssl.SSLSocket.getpeercert` gives.
    now : float
        Unix seconds; a connection may outlive the certificate it was opened with.
    """
    if not peer:
        return None
    name, groups = "", []
    for part in peer.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    if not name or now >= ssl.cert_time_to_seconds(str(peer["notAfter"])):
        return None
    return _authenticated(User(name, groups=tuple(groups)))


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The token that a request carries, if it carries one."""
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
        encoded = protocol.strip()
        if encoded.startswith(_PROTOCOL_PREFIX):
            encoded = encoded.removeprefix(_PROTOCOL_PREFIX)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode() or None
            except (binascii.Error, ValueError):
                return None
    return None


def token_review(token: str) -> Json:
    """The v1.TokenReview that asks the API server."""
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}


def of_token_review(answer: Json) -> User | None:
    """The user of an answered TokenReview; None if the token is not good."""
    status = answer.get("status") or {}
    user = status.get("user") or {}
    if not status.get("authenticated") or not user.get("username"):
        return None
    return _authenticated(
        User(
            user["username"], user.get("uid") or "", tuple(user.get("groups") or ()), user.get("extra") or {}
        )
    )


def _authenticated(user: User) -> User:
    groups = dict.fromkeys((*user.groups, AUTHENTICATED))
    return User(user.name, user.uid, tuple(groups), user.extra)
