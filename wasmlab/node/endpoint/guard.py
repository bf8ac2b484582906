"""The door of the node's endpoint: 401 for nobody, 403 for who may not, and the API server decides who is who.

Answers of the API server are kept: tokens for 2 minutes, permissions for 5 minutes, refusals for 30 seconds (the
kubelet's times). A failure to ask is no answer: it is not kept, and nobody comes in on it.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (``InstallAuthFilter``); KubeletConfiguration
``authentication.webhook.cacheTTL``, ``authorization.webhook.cacheAuthorizedTTL``, ``cacheUnauthorizedTTL``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aiohttp import web

from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json, KubeApi
from wasmlab.node.endpoint import authn, authz

TOKEN_TTL_S = 120.0
ALLOWED_TTL_S = 300.0
DENIED_TTL_S = 30.0
_CACHED = 4096
_RETRIES_S = (0.1, 0.5)
USER = "wasmlab.user"


def user_name(request: web.Request) -> str:
    """Who has been let in; nobody where there is no guard."""
    user = request.get(USER)
    return user.name if user is not None else ""


K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Answers with an age limit, at most so many; who asks while the same is being asked waits for that answer.

    Parameters
    ----------
    ask : callable
        Gets an answer; what it raises is not kept.
    ttl_s : callable
        How long an answer is good.
    now : callable
        The clock, in seconds.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[V]],
        ttl_s: Callable[[V], float],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._ttl_s = ttl_s
        self._now = now
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, kept_as: K | None = None) -> V:
        """Return the answer for `key`; `kept_as` is what is remembered of a key that is better not kept."""
        name = key if kept_as is None else kept_as
        found = self._kept.get(name)
        if found is not None and found[0] > self._now():
            self._kept.move_to_end(name)
            return found[1]
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.ensure_future(self._ask(key))
            task.add_done_callback(lambda done: self._answered(name, done))
        return await asyncio.shield(task)

    def _answered(self, name: K, done: asyncio.Task[V]) -> None:
        self._asking.pop(name, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[name] = (self._now() + self._ttl_s(done.result()), done.result())
        self._kept.move_to_end(name)
        while len(self._kept) > _CACHED:
            self._kept.popitem(last=False)


class Guard:
    """Lets in whom the API server knows and allows.

    Parameters
    ----------
    api : KubeApi
        With the node's own credentials: the node authorizer lets nodes create reviews.
    node : str
        Name of the Node.
    """

    def __init__(self, api: KubeApi, node: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._node = node
        self._salt = os.urandom(16)
        self._users: Remembered[str, authz.User | None] = Remembered(
            self._review_token, lambda _: TOKEN_TTL_S, now=now
        )
        self._permissions: Remembered[tuple[authz.User, str, str], bool] = Remembered(
            self._review_access, lambda allowed: ALLOWED_TTL_S if allowed else DENIED_TTL_S, now=now
        )

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask who it is and whether they may, then hand on."""
        try:
            user = await self._authenticate(request)
        except (ApiError, ApiUnavailable) as error:
            log.warning("cannot review a token", peer=request.remote, error=error.message)
            user = None
        if user is None:
            return web.Response(status=401, text="Unauthorized")
        asked = authz.request(request.method, request.rel_url.raw_path)
        for subresource in asked.subresources:
            try:
                allowed = await self._permissions.get((user, asked.verb, subresource))
            except (ApiError, ApiUnavailable) as error:
                log.warning("cannot review an access", user=user.name, error=error.message)
                return web.Response(status=500, text=authz.failed(user, asked.verb, subresource))
            if allowed:
                request[USER] = user
                return await handler(request)
        log.info("forbidden", user=user.name, verb=asked.verb, path=request.path, peer=request.remote)
        return web.Response(status=403, text=authz.forbidden(user, asked))

    async def _authenticate(self, request: web.Request) -> authz.User | None:
        user = authn.of_certificate(request.get_extra_info("peercert"), time.time())
        if user is not None:
            return user
        token = authn.bearer_token(request.headers)
        if token is None:
            return None
        # Not the token itself: this process' memory need not hold what others log in with for longer than a request.
        digest = hashlib.blake2b(token.encode(), key=self._salt).hexdigest()
        return await self._users.get(token, kept_as=digest)

    async def _review_token(self, token: str) -> authz.User | None:
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        return authn.of_token_review(await self._create(path, authn.token_review(token)))

    async def _review_access(self, asked: tuple[authz.User, str, str]) -> bool:
        user, verb, subresource = asked
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await self._create(path, authz.review(user, verb, subresource, self._node))
        return bool((answer.get("status") or {}).get("allowed"))

    async def _create(self, path: str, body: Json) -> Json:
        for wait_s in _RETRIES_S:
            try:
                return await self._api.create(path, body)
            except ApiUnavailable:
                pass
            except ApiError as error:
                if not error.transient:
                    raise
            await asyncio.sleep(wait_s)
        return await self._api.create(path, body)
