"""Talk to one repository: authenticate when asked, follow redirects, repeat what may be repeated, name what failed.

The decisions are those of `auth` and `protocol`; this module only carries them out over a `Transport`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import NoReturn
from urllib.parse import urlsplit

from wasmlab.errors import CredentialError, OCIError, RegistryTimeout, RegistryUnavailable, Unauthorized
from wasmlab.oci import answers, auth, protocol
from wasmlab.oci.credentials import Credentials
from wasmlab.oci.protocol import Request, Response
from wasmlab.oci.reference import Reference, is_loopback
from wasmlab.oci.transport import Progress, Sink, Transport

_MARGIN_S = 10.0


@dataclass
class TokenCache:
    """Authorization headers by (registry, scope, credentials), each with the time until which it may be used."""

    _values: dict[tuple[str, str, str], tuple[str, float]] = field(default_factory=dict, repr=False)

    def get(self, key: tuple[str, str, str]) -> str | None:
        """Return a header that is still good."""
        value, until = self._values.get(key, ("", 0.0))
        return value if value and time.monotonic() < until else None

    def put(self, key: tuple[str, str, str], value: str, lifetime_s: float) -> None:
        """Keep a header for `lifetime_s`, less a margin for clocks and slow requests."""
        now = time.monotonic()
        if len(self._values) > 1000:
            self._values = {known: entry for known, entry in self._values.items() if entry[1] > now}
        self._values[key] = value, now + lifetime_s - min(_MARGIN_S, lifetime_s / 4)

    def drop(self, key: tuple[str, str, str]) -> None:
        """Forget a header that was refused."""
        self._values.pop(key, None)


class Session:
    """Requests to the repository of `ref`, with the rights that pulling or pushing needs.

    Parameters
    ----------
    transport : Transport
        Does the exchanges.
    ref : Reference
        Whose repository.
    credentials : Credentials or None
        Asked only if the registry demands authentication.
    tokens : TokenCache
        Shared between sessions.
    plain_http : bool
        Scheme of the registry.
    push : bool
        Whether write access is wanted.
    insecure : bool
        Allow what would otherwise send credentials or content in the clear.
    """

    def __init__(
        self,
        transport: Transport,
        ref: Reference,
        credentials: Credentials | None,
        tokens: TokenCache,
        *,
        plain_http: bool,
        push: bool = False,
        insecure: bool = False,
    ) -> None:
        self.ref = ref
        self.base = protocol.base_url(ref, plain_http=plain_http)
        self._transport = transport
        self._credentials = credentials
        self._tokens = tokens
        self._insecure = insecure
        self._scope = auth.scope(ref.repository, push=push)
        # A token got with one pod's secret must never serve another's.
        self._identity = credentials.fingerprint() if credentials else ""
        self._secrets: list[auth.Secret] | None = None

    async def send(
        self,
        request: Request,
        *statuses: int,
        sink: Sink | None = None,
        progress: Progress | None = None,
    ) -> Response:
        """Send `request` and return its answer if the status is one of `statuses`.

        Raises
        ------
        Unauthorized, NotFound, RegistryError
            As the registry answers.
        RegistryUnavailable, RegistryTimeout
            If it does not.
        """
        key = (self.ref.registry, self._scope, self._identity)
        local = answers.origin(request.url) == answers.origin(self.base)
        header = self._tokens.get(key) if local else None
        attempt = 0
        choices: list[auth.Secret | None] | None = None  # credentials still to be tried, once challenged
        challenged: Response
        while True:
            outgoing = request.with_headers(Authorization=header) if header else request
            try:
                response = await self._follow(outgoing, sink, progress)
            except RegistryUnavailable as error:
                # A connection that broke (not one that was never made) may be a registry that restarts.
                broken = error.context.get("broken") and not isinstance(error, RegistryTimeout)
                if (
                    not broken
                    or not request.idempotent
                    or sink is not None
                    or attempt + 1 >= answers.MAX_ATTEMPTS
                ):
                    raise
                await asyncio.sleep(answers.backoff_s(attempt))
                attempt += 1
                continue
            here = local and answers.origin(response.url) == answers.origin(request.url)
            if here and (response.status == 401 or (response.status == 403 and choices)):
                self._tokens.drop(key)
                if choices is None:
                    choices, challenged = await self._choices(response), response
                if choices:
                    header, lifetime_s = await self._authorize(request, challenged, choices)
                    self._tokens.put(key, header, lifetime_s)
                    continue
                self._refused(request, response)
            delay_s = answers.retry_delay_s(request, response, attempt)
            if delay_s is not None:
                await asyncio.sleep(delay_s)
                attempt += 1
                continue
            return answers.expect(request, response, *statuses, registry=self.ref.registry)

    async def _follow(self, request: Request, sink: Sink | None, progress: Progress | None) -> Response:
        current = request
        for _ in range(answers.MAX_REDIRECTS + 1):
            response = await self._transport.exchange(current, sink, progress)
            following = answers.redirect(current, response, allow_downgrade=self._insecure)
            if following is None:
                return response
            current = following
        raise OCIError(
            f"cannot {request.what}: more than {answers.MAX_REDIRECTS} redirects",
            remedy="the registry (or a proxy before it) redirects in a circle: tell whoever runs it",
        )

    async def _choices(self, response: Response) -> list[auth.Secret | None]:
        if self._secrets is None:
            credentials = self._credentials
            # Helpers are programs that may wait for a keyring: never in the event loop.
            found = await asyncio.to_thread(credentials.candidates, self.ref) if credentials else []
            self._secrets = found
        if self._secrets:
            return list(self._secrets)
        challenge = auth.choose(auth.parse_challenges(response.header_values("www-authenticate")))
        # A token service also serves those who are nobody; Basic needs somebody.
        return [None] if challenge and challenge.scheme == "bearer" else []

    async def _authorize(
        self, request: Request, response: Response, choices: list[auth.Secret | None]
    ) -> tuple[str, float]:
        """Return the next Authorization header to try and how long it is good for; takes from `choices`."""
        challenge = auth.choose(auth.parse_challenges(response.header_values("www-authenticate")))
        if challenge is None:
            self._refused(request, response)
        while True:
            secret = choices.pop(0)
            if challenge.scheme == "basic":
                if secret is None or not (secret.username or secret.password):
                    if choices:
                        continue
                    self._refused(request, response)
                self._guard(self.base)
                return auth.basic(secret), auth.DEFAULT_LIFETIME_S * 60
            if secret is not None and secret.registry_token:
                return f"Bearer {secret.registry_token}", auth.DEFAULT_LIFETIME_S * 60
            try:
                token = await self._token(challenge, secret)
            except Unauthorized:
                if choices:
                    continue
                raise
            return f"Bearer {token.value}", token.lifetime_s

    async def _token(self, challenge: auth.Challenge, secret: auth.Secret | None) -> auth.Token:
        wanted = auth.token_request(challenge, auth.scopes_for(challenge, self._scope), secret)
        service = urlsplit(wanted.url).netloc
        if secret is not None:
            self._guard(wanted.url)
        request = Request(
            wanted.method,
            wanted.url,
            f"get a token for {self.ref.name} from {service}",
            wanted.headers,
            body=wanted.body,
        )
        for attempt in range(answers.MAX_ATTEMPTS):
            response = await self._transport.exchange(request)
            delay_s = answers.retry_delay_s(request, response, attempt)
            if delay_s is None:
                break
            await asyncio.sleep(delay_s)
        if response.status in (404, 405) and secret and secret.identity_token and secret.username:
            # Not every token service knows the OAuth2 POST; the plain GET is older than it.
            return await self._token(challenge, replace(secret, identity_token=""))
        answers.expect(request, response, 200, registry=self.ref.registry)
        return auth.read_token(response.body, service)

    def _guard(self, url: str) -> None:
        parts = urlsplit(url)
        downgraded = parts.scheme == "http" and self.base.startswith("https:")
        if downgraded and not is_loopback(parts.netloc) and not self._insecure:
            raise CredentialError(
                f"{self.ref.registry} wants the password sent to {parts.netloc} by plain http: refused",
                remedy="tell whoever runs the registry, or pass --insecure if you trust the network",
            )

    def _refused(self, request: Request, response: Response) -> NoReturn:
        answers.fail(request, response, self.ref.registry)
