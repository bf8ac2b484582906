"""What a registry's answer means: where to go on, when to try again, which error it is. Pure.

References
----------
OCI distribution specification 1.1, "Error codes". RFC 9110: 10.2.3 (Retry-After), 15.4 (redirects).
"""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from wasmlab.errors import NotFound, OCIError, RegistryError, RegistryUnavailable, Unauthorized
from wasmlab.oci.protocol import Request, Response

MAX_REDIRECTS = 5
MAX_ATTEMPTS = 4
#: A registry may ask for a longer pause than anybody wants to wait for within one call.
MAX_RETRY_AFTER_S = 10.0
_BACKOFF_S = (0.2, 0.6, 1.8)
_PASSING = frozenset({429, 502, 503, 504})
_MAX_DETAIL = 300


def origin(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) of `url`, with the scheme's default port filled in."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def upload_location(response: Response, what: str) -> str:
    """Return where an upload goes on, as an absolute URL.

    A registry behind a TLS proxy that does not know about the proxy answers with ``http://`` and its own host: the
    scheme is then corrected, so that neither content nor credentials travel in the clear.

    Raises
    ------
    OCIError
        If there is no usable Location.
    """
    location = response.header("location")
    if not location:
        raise OCIError(
            f"the registry accepted to {what} but did not say where (no Location header)",
            remedy="this is a fault of the registry or of a proxy before it",
        )
    url, parts = _join(response.url, location)
    before = urlsplit(response.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OCIError(f"the registry sent the upload to the address {_public(url)!r}, which is not http(s)")
    if before.scheme == "https" and parts.scheme == "http" and parts.hostname == before.hostname:
        url = urlunsplit(("https", before.netloc, parts.path, parts.query, ""))
    return url


def redirect(request: Request, response: Response, *, allow_downgrade: bool) -> Request | None:
    """Return the request that follows a redirect, or None if `response` is none.

    Credentials stay at the origin they were meant for.

    Raises
    ------
    OCIError
        If the redirect leads from https to http (and `allow_downgrade` is false) or nowhere.
    """
    if response.status not in (301, 302, 303, 307, 308):
        return None
    if request.method not in ("GET", "HEAD") and response.status not in (307, 308):
        raise OCIError(
            f"cannot {request.what}: the registry redirects a {request.method} with status {response.status}"
        )
    location = response.header("location")
    url, parts = _join(response.url, location)
    if not location or parts.scheme not in ("http", "https") or not parts.hostname:
        raise OCIError(f"cannot {request.what}: the registry redirects to {_public(url)!r}")
    if urlsplit(response.url).scheme == "https" and parts.scheme == "http" and not allow_downgrade:
        raise OCIError(
            f"cannot {request.what}: the registry redirects from https to {_public(url)}",
            remedy="allow it with --insecure if you trust the network",
        )
    headers = dict(request.headers)
    if origin(url) != origin(request.url):
        headers.pop("Authorization", None)
    return replace(request, url=url, headers=headers)


def retry_delay_s(request: Request, response: Response, attempt: int) -> float | None:
    """Return how long to wait before sending `request` again, in seconds; None if it must not be.

    `attempt` counts from 0. 429 is always safe to repeat, because the registry says it did nothing.
    """
    if response.status not in _PASSING or attempt + 1 >= MAX_ATTEMPTS:
        return None
    if not request.idempotent and response.status != 429:
        return None
    asked = _retry_after_s(response.header("retry-after"))
    if asked is not None:
        return asked if asked <= MAX_RETRY_AFTER_S else None
    return backoff_s(attempt)


def backoff_s(attempt: int) -> float:
    """Return the pause after failed attempt number `attempt` (from 0), in seconds."""
    return _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]


def _retry_after_s(value: str) -> float | None:
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def expect(request: Request, response: Response, *statuses: int, registry: str) -> Response:
    """Return `response` if its status is one of `statuses`, else raise what it means.

    Raises
    ------
    Unauthorized, NotFound, RegistryError
        With the registry's own code and words, and what to do.
    """
    if response.status not in statuses:
        fail(request, response, registry)
    return response


def fail(request: Request, response: Response, registry: str) -> NoReturn:
    """Raise the error that `response` means. See `expect`."""
    code, detail, spoken = _error_of(response)
    who = "the registry"
    if origin(response.url) != origin(request.url):
        # Not quoted: a hostile registry could redirect to an address that only this machine can read.
        code, detail, spoken = None, None, ""
        who = f"{urlsplit(response.url).netloc}, to where the registry redirected,"
    said = f"{response.status}" + (f" {code}" if code else "") + (f": {spoken}" if spoken else "")
    message = f"cannot {request.what}: {who} answered {said}"
    context: dict[str, Any] = {
        "registry": registry,
        "status": response.status,
        "code": code,
        "detail": detail,
    }
    status = response.status
    if status == 401:
        raise Unauthorized(
            message,
            remedy=f"log in (docker login {registry}) or check the pull secret for this registry",
            **context,
        )
    if status == 403:
        raise Unauthorized(
            message,
            remedy="the credentials are known but lack the right: ask the repository's owner",
            **context,
        )
    if status == 404:
        raise NotFound(message, remedy="check the name and the tag, or push the artifact first", **context)
    if status == 429:
        raise RegistryError(
            message, remedy="wait and try again, or log in for a higher rate limit", **context
        )
    if status >= 500:
        raise RegistryError(
            message, remedy="the registry has a problem: try again later, or see its log", **context
        )
    if status == 400 and "HTTP request" in (spoken or "") and "HTTPS" in (spoken or ""):
        raise RegistryUnavailable(
            f"cannot {request.what}: the registry speaks https, but was asked by plain http",
            remedy="leave --use-http off (or pass --no-use-http for a registry on this machine)",
            registry=registry,
        )
    raise RegistryError(message, remedy=_REMEDIES.get(code or ""), **context)


_REMEDIES = {
    "DIGEST_INVALID": "the file changed while it was pushed, or a proxy altered it: push again",
    "MANIFEST_INVALID": "this registry refuses the layout: try the other one (--layout cncf)",
    "UNSUPPORTED": "this registry does not allow the operation (a read-only mirror?)",
    "NAME_INVALID": "use another repository name",
}


def _error_of(response: Response) -> tuple[str | None, Any, str]:
    """Return (code, detail, words for people) of an error answer, whatever its form."""
    try:
        first = json.loads(response.body)["errors"][0]
        code = first.get("code")
        message = first.get("message") or ""
        return (
            str(code)[:64] if code else None,
            first.get("detail"),
            _clean(message if isinstance(message, str) else ""),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        pass
    text = response.body[:2000].decode(errors="replace").strip()
    if text.startswith("<"):
        return None, None, "an HTML page (is there a proxy or another web server at this address?)"
    return None, None, _clean(text)


def _clean(text: str) -> str:
    # One line of printable text: what a registry says goes to terminals and into Kubernetes Events.
    flat = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    return flat if len(flat) <= _MAX_DETAIL else flat[:_MAX_DETAIL] + "..."


def _join(base: str, location: str) -> tuple[str, SplitResult]:
    """Join like urljoin, and take the result apart; an impossible address gives empty parts instead of an exception."""
    try:
        url = urljoin(base, location)
        parts = urlsplit(url)
        _ = parts.port  # is checked only when looked at
    except ValueError:
        return location, SplitResult("", "", "", "", "")
    return url, parts


def _public(url: str) -> str:
    """Return `url` without its query, where pre-signed URLs carry secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def says_nothing(error: RegistryError) -> bool:
    """Whether a HEAD failed in a way that another request can explain: its answer has no body, so no code."""
    return error.context.get("code") is None and error.status in (400, 401, 403, 404, 405, 501)
