"""List, then watch, then watch again: the pods bound to this node, as they change.

Guarantees: after every (re-)list the consumer is told what exists (so that a deletion that happened unseen is
noticed); events keep the server's order; closed watches, expired versions, an API server that restarts or comes back
with an older history all end in a new watch or a new list, with jittered, bounded waits in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json, KubeApi

_WATCH_S = (300, 600)  # the server ends a watch after this long, as client-go asks for
_SILENCE_S = 150.0
_MIN_WAIT_S, _MAX_WAIT_S = 0.05, 3.0


@dataclass
class Reflector:
    """Follow one resource.

    Parameters
    ----------
    api : KubeApi
        The API server.
    path : str
        The collection, for example ``/api/v1/pods``.
    field_selector : str
        Which of its objects.
    on_list : callable
        Called with all objects after each list.
    on_event : callable
        Called with (ADDED | MODIFIED | DELETED, object).
    """

    api: KubeApi
    path: str
    field_selector: str
    on_list: Callable[[list[Json]], None]
    on_event: Callable[[str, Json], None]
    version: str | None = None
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    lists: int = 0
    watches: int = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        wait_s = _MIN_WAIT_S
        complained = False
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if self.version is None:
                    await self._list()
                    if complained:
                        log.info("the API server answers again")
                        complained = False
                await self._watch()
                # The server ended it in good order; go on from where it was.
            except ApiError as error:
                # 410 Expired, and whatever else is wrong with our place in history: only a list mends it.
                self.version = None
                if error.context["status"] != 410:
                    log.warning("watch refused; listing again", error=error.message)
            except ApiUnavailable as error:
                if self.api.follow():
                    log.info("the API server is elsewhere now", server=self.api.server)
                if not complained and loop.time() - began < 1.0:
                    log.warning("no connection to the API server; trying on", error=error.message)
                    complained = True
            except Exception as error:  # a bug in a consumer must not end the node's hearing
                log.error("cannot follow pods; listing again", exc_info=error)
                self.version = None
            if loop.time() - began > 10.0:
                wait_s, complained = _MIN_WAIT_S, False
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(_MAX_WAIT_S, wait_s * 2)

    async def _list(self) -> None:
        # resourceVersion 0 (any version the server's cache has) could be older than what we have seen: ask for the
        # latest.
        answer = await self.api.get(self.path, fieldSelector=self.field_selector)
        self.version = answer["metadata"]["resourceVersion"]
        self.lists += 1
        self.on_list(answer.get("items") or [])
        self.synced.set()

    async def _watch(self) -> None:
        self.watches += 1
        params = {
            "fieldSelector": self.field_selector,
            "resourceVersion": self.version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*_WATCH_S)),
        }
        async for kind, item in self.api.watch(self.path, params, silence_s=_SILENCE_S):
            self.version = item["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self.on_event(kind, item)
