"""Write one pod's status: coalesced, in order, until it is written.

A status that a later one may overtake within milliseconds (ContainerCreating, Running) is held back for a moment; a
final one goes at once. There is one writer per pod and one request in flight, so the API server never sees an older
status after a newer one. The patch names the pod's UID: a pod of the same name that was made meanwhile refuses it
(Conflict).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum

from wasmlab.node import log
from wasmlab.node.api.kubeapi import STRATEGIC, ApiError, ApiUnavailable, Json, KubeApi

_MAX_WAIT_S = 3.0
_MAX_REFUSED_S = 60.0


class Urgency(Enum):
    """How long a status may wait for a better one."""

    LAZY = 10.0  # ContainerCreating: only worth writing if it lasts
    HELD = 1.0  # Running
    NOW = 0.0  # final, or something a person is to read


class Gone(Exception):
    """The pod does not exist any more, or is another one: nothing to write to."""


class StatusWriter:
    """Writes the status of one pod.

    Parameters
    ----------
    api : KubeApi
        The API server.
    pod : dict
        The pod (name, namespace and uid are read).
    build : callable
        Makes the status of this moment. Called when it is about to be written, so that it is never stale.
    hold_s : callable
        The length of a HELD wait now, in seconds (longer under load).
    gate : asyncio.Semaphore
        Bounds the requests of all writers.
    on_written : callable
        Called with each status after it was written.
    """

    def __init__(
        self,
        api: KubeApi,
        pod: Json,
        build: Callable[[], Json],
        *,
        hold_s: Callable[[], float],
        gate: asyncio.Semaphore,
        on_written: Callable[[Json], None],
    ) -> None:
        meta = pod["metadata"]
        self._api = api
        self._uid = meta["uid"]
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        self._name = f"{meta['namespace']}/{meta['name']}"
        self._build = build
        self._hold_s = hold_s
        self._gate = gate
        self._on_written = on_written
        self._dirty = False
        self._due: float | None = None
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._written: Json | None = None
        self.gone = False

    def want(self, urgency: Urgency) -> None:
        """Say that the status has changed."""
        due = asyncio.get_running_loop().time() + urgency.value * self._hold_s()
        if self._due is None or due < self._due:
            self._due = due
        self._dirty = True
        self._idle.clear()
        self._changed.set()

    async def flushed(self) -> None:
        """Wait until everything wanted so far is written.

        Raises
        ------
        Gone
            The pod is gone.
        """
        await self._idle.wait()
        if self.gone:
            raise Gone(self._name)

    async def run(self) -> None:
        """Write until cancelled or the pod is gone."""
        loop = asyncio.get_running_loop()
        wait_s = 0.1
        while not self.gone:
            if not self._dirty:
                self._idle.set()
                self._changed.clear()
                await self._changed.wait()
            assert self._due is not None
            remaining = self._due - loop.time()
            if remaining > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(remaining):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            try:
                async with self._gate:
                    self._dirty, self._due = False, None
                    status = self._build()  # only now: the gate may have taken its time
                    if status == self._written:
                        continue
                    await self._api.patch(
                        self._path, {"metadata": {"uid": self._uid}, "status": status}, STRATEGIC
                    )
                self._written = status
                wait_s = 0.1
                self._on_written(status)
            except (ApiError, ApiUnavailable) as error:
                if isinstance(error, ApiError) and not self._worth_retrying(error):
                    break
                if wait_s > 1:
                    log.warning("cannot write a status; trying on", pod=self._name, error=error.message)
                self._dirty = True
                self._due = loop.time() + wait_s * random.uniform(0.5, 1.5)
                # An API server that is away is back soon; one that refuses will go on refusing for a while.
                refused = isinstance(error, ApiError) and not error.transient
                wait_s = min(_MAX_REFUSED_S if refused else _MAX_WAIT_S, wait_s * 2)
        self._idle.set()

    def _worth_retrying(self, error: ApiError) -> bool:
        status = error.context["status"]
        if status in (404, 409):
            self.gone = True
            return False
        if error.transient:
            return True
        # 403: the authorizer's graph may be a moment behind the binding. 422: a bug here; do not hammer, do not stop.
        log.warning("status refused", pod=self._name, error=error.message)
        return True
