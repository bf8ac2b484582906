"""Authentication with a registry, as pure decisions: read the challenge, ask for a token, read the answer.

References
----------
RFC 9110, section 11.6.1 (WWW-Authenticate); distribution, docs/spec/auth/token.md and oauth.md; Krustlet issue 624
(Harbor answers with a ``token`` and an empty ``access_token``).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from wasmlab.errors import OCIError

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*,*\s*({_TOKEN})(?:\s+|(?=,)|$)")
_PARAM = re.compile(rf'\s*,*\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}[^\s,]*))')

#: Token services that do not say mean a minute (token.md, ``expires_in``).
DEFAULT_LIFETIME_S = 60.0
CLIENT_ID = "wasmlab"


@dataclass(frozen=True)
class Challenge:
    """One challenge of a WWW-Authenticate header: the scheme in lower case, its parameters by lower-case name."""

    scheme: str
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Secret:
    """What a registry wants to know. Its repr hides the secrets.

    Parameters
    ----------
    username, password : str
        For Basic, and for a token service.
    identity_token : str
        An OAuth2 refresh token, from ``docker login`` at some cloud registries.
    registry_token : str
        A bearer token to be sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)


@dataclass(frozen=True)
class TokenRequest:
    """A request to a token service, still without transport."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Token:
    """A bearer token and for how many seconds it may be used."""

    value: str = field(repr=False)
    lifetime_s: float = DEFAULT_LIFETIME_S


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read WWW-Authenticate header values; several challenges may share one value. Never fails: junk gives less."""
    found: list[Challenge] = []
    for value in values:
        position = 0
        while match := _SCHEME.match(value, position):
            position = match.end()
            params: dict[str, str] = {}
            while param := _PARAM.match(value, position):
                quoted, plain = param.group(2), param.group(3)
                params[param.group(1).lower()] = (
                    re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                )
                position = param.end()
            found.append(Challenge(match.group(1).lower(), params))
    return found


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the challenge to answer: Bearer (with a realm) before Basic, None if there is neither."""
    by_scheme: dict[str, Challenge] = {}
    for challenge in challenges:
        if challenge.scheme == "basic" or (challenge.scheme == "bearer" and challenge.params.get("realm")):
            by_scheme.setdefault(challenge.scheme, challenge)
    return by_scheme.get("bearer") or by_scheme.get("basic")


def scope(repository: str, *, push: bool) -> str:
    """Return the scope that the work on `repository` needs."""
    return f"repository:{repository}:{'pull,push' if push else 'pull'}"


def scopes_for(challenge: Challenge, wanted: str) -> tuple[str, ...]:
    """Return what to ask the token service for: what the work needs, and whatever else the challenge named."""
    named = challenge.params.get("scope", "").split()
    # A challenge to HEAD names "pull" only; asking for "pull,push" at once saves a second token when pushing.
    covered = [item for item in named if item.rpartition(":")[0] != wanted.rpartition(":")[0]]
    return tuple(dict.fromkeys([wanted, *covered]))


def basic(secret: Secret) -> str:
    """Return the Basic Authorization value."""
    return "Basic " + base64.b64encode(f"{secret.username}:{secret.password}".encode()).decode()


def token_request(challenge: Challenge, scopes: Iterable[str], secret: Secret | None) -> TokenRequest:
    """Return the request that turns the challenge into a token.

    An identity token is exchanged by the OAuth2 POST, everything else by the GET that all registries know.

    Raises
    ------
    OCIError
        If the challenge's realm is not an http(s) URL.
    """
    realm = challenge.params["realm"]
    try:
        parts = urlsplit(realm)
        _ = parts.port  # is checked only when looked at
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.username is not None:
        raise OCIError(
            f"the registry names {realm!r} as its token service, which is not an http or https URL",
            remedy="tell whoever runs the registry to correct the realm in its configuration",
        )
    service = challenge.params.get("service")
    if secret and secret.identity_token:
        form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "scope": " ".join(scopes)}
        form |= {"service": service} if service else {}
        form["refresh_token"] = secret.identity_token
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return TokenRequest("POST", realm, headers, urlencode(form).encode())
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [("service", service)] if service else []
    query += [("scope", item) for item in scopes]
    headers = {"Accept": "application/json"}
    if secret and (secret.username or secret.password):
        headers["Authorization"] = basic(secret)
        query.append(("account", secret.username))
    url = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode(query), ""))
    return TokenRequest("GET", url, headers)


def read_token(body: bytes, service: str) -> Token:
    """Read a token service's answer: ``token``, ``access_token``, both, or both with one of them empty.

    Raises
    ------
    OCIError
        If the answer is not JSON or has no token that is not empty.
    """
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise OCIError(
            f"the token service {service} did not answer with a JSON object",
            remedy="check the registry's configured realm: it should point at its token service",
        )
    for key in ("token", "access_token"):
        value = answer.get(key)
        if isinstance(value, str) and value.strip():
            return Token(value.strip(), _lifetime_s(answer.get("expires_in")))
    raise OCIError(
        f"the token service {service} answered without a token (neither token nor access_token has a value)",
        remedy="log in again (docker login), or check the credentials' rights",
    )


def _lifetime_s(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return DEFAULT_LIFETIME_S
    return float(min(value, 86400))
