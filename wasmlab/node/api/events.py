"""Kubernetes Events: fire and forget, but bounded.

A pod that runs for ten milliseconds has four events, so a burst of pods is a burst of writes that would cost the API
server more than the pods themselves. The rules are the kubelet's: a token bucket (50 a second, bursts of 100), equal
events folded into one with a count, and a bounded queue that gives way from its normal events first. Beyond the kubelet
warnings go first, and normal events wait while the node is busy starting pods, for 15 s at most. Nothing waits for an
event; one that is lost is counted in the log.

References
----------
``k8s.io/client-go/tools/record/events_cache.go``; KubeletConfiguration ``eventRecordQPS`` (50) and ``eventBurst``
(100).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json, KubeApi
from wasmlab.node.api.times import rfc3339

NORMAL, WARNING = "Normal", "Warning"
_SOURCE = "wasmlab-node"
_QUEUE = 4000
_PATIENCE_S = 15.0
_REMEMBERED = 4096
_MESSAGE_BYTES = 1024  # core/v1 events may not carry more


@dataclass
class TokenBucket:
    """So many at once, so many a second. Pure but for the clock that is handed in."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> float:
        """Take one, and return how many seconds to wait before using it."""
        if self.at is not None:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        self.tokens -= 1
        return 0.0 if self.tokens >= 0 else -self.tokens / self.rate


@dataclass
class Pending:
    """An event that waits to be written."""

    about: Json
    kind: str
    reason: str
    message: str
    first: float
    last: float
    count: int = 1
    queued_at: float = field(default_factory=time.monotonic)


Key = tuple[str, str, str, str]


class Recorder:
    """Writes events of one node.

    Parameters
    ----------
    api : KubeApi
        The API server.
    node : str
        Name of the node, which is where the events come from.
    delay_s : float
        How long an event may rest in the queue, so that it does not compete with the status write of the same moment.
    loaded : callable
        Whether the node is busy starting pods; then events wait, for a while.
    """

    def __init__(
        self,
        api: KubeApi,
        node: str,
        *,
        rate: float = 50.0,
        burst: float = 100.0,
        delay_s: float = 0.05,
        loaded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._api = api
        self._node = node
        self._bucket = TokenBucket(rate, burst)
        self._delay_s = delay_s
        self._loaded = loaded
        # Warnings are what somebody waits for: they go first, also under load.
        self._warnings: OrderedDict[Key, Pending] = OrderedDict()
        self._normals: OrderedDict[Key, Pending] = OrderedDict()
        self._written: OrderedDict[Key, tuple[str, int]] = OrderedDict()
        self._wake = asyncio.Event()
        self.dropped = 0

    def pod(
        self, pod: Json, kind: str, reason: str, message: str, container: str = "", init: bool = False
    ) -> None:
        """Record something about a pod, or about one of its containers."""
        meta = pod["metadata"]
        about: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        if container:
            about["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        self._add(about, kind, reason, message)

    def node(self, kind: str, reason: str, message: str) -> None:
        """Record something about the node."""
        self._add({"kind": "Node", "name": self._node, "uid": self._node}, kind, reason, message)

    def _add(self, about: Json, kind: str, reason: str, message: str) -> None:
        raw = message.encode()
        if len(raw) > _MESSAGE_BYTES:
            message = raw[: _MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
        now = time.time()
        key = (about.get("uid", ""), about.get("fieldPath", ""), reason, message)
        queue = self._queue_of(kind)
        pending = queue.get(key)
        if pending is not None:
            pending.count += 1
            pending.last = now
            return
        if self._waiting >= _QUEUE:
            (self._normals or self._warnings).popitem(last=False)
            self.dropped += 1
        queue[key] = Pending(about, kind, reason, message, now, now)
        self._wake.set()

    def _queue_of(self, kind: str) -> OrderedDict[Key, Pending]:
        return self._warnings if kind == WARNING else self._normals

    @property
    def _waiting(self) -> int:
        return len(self._warnings) + len(self._normals)

    async def run(self) -> None:
        """Write until cancelled."""
        told = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._delay_s)
            await self._flush()
            if self.dropped != told and not self._waiting:
                log.info("events were dropped under load", count=self.dropped - told)
                told = self.dropped

    async def _flush(self) -> None:
        while self._waiting:
            wait_s = self._bucket.take(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            while self._may_wait():  # noqa: ASYNC110 (load has no event)
                await asyncio.sleep(0.1)
            if not self._waiting:
                break
            key, pending = (self._warnings or self._normals).popitem(last=False)
            try:
                await self._write(key, pending)
            except ApiUnavailable:
                if self._waiting < _QUEUE:
                    queue = self._queue_of(pending.kind)
                    queue[key] = pending
                    queue.move_to_end(key, last=False)
                await asyncio.sleep(1.0)
            except ApiError as error:
                # Not worth a second try.
                log.debug("event refused", error=error.message)
                if error.context["status"] in (403, 404):
                    self._forget_namespace(pending.about.get("namespace"))
        self._wake.clear()

    def _forget_namespace(self, namespace: str | None) -> None:
        """A namespace takes no more events (it is being deleted): those that wait would be refused one by one."""
        for queue in (self._warnings, self._normals):
            for key in [key for key, one in queue.items() if one.about.get("namespace") == namespace]:
                del queue[key]

    def _may_wait(self) -> bool:
        if self._warnings or not self._normals or len(self._normals) > _QUEUE * 3 // 4 or not self._loaded():
            return False
        return time.monotonic() - next(iter(self._normals.values())).queued_at < _PATIENCE_S

    async def drain(self, timeout_s: float) -> None:
        """Write what is queued, for at most so long (at the end of the agent)."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._flush()
        except TimeoutError:
            log.debug("events left unwritten", count=self._waiting)

    async def _write(self, key: Key, pending: Pending) -> None:
        namespace = pending.about.get("namespace", "default")
        path = f"/api/v1/namespaces/{namespace}/events"
        earlier = self._written.get(key)
        if earlier is not None:
            name, count = earlier
            count += pending.count
            try:
                await self._api.patch(
                    f"{path}/{name}", {"count": count, "lastTimestamp": rfc3339(pending.last)}
                )
                self._remember(key, name, count)
                return
            except ApiError as error:
                if error.context["status"] != 404:  # it expired (events live an hour): write a new one
                    raise
        name = f"{pending.about['name']}.{time.time_ns():x}{secrets.token_hex(2)}"
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": pending.about,
            "reason": pending.reason,
            "message": pending.message,
            "type": pending.kind,
            "source": {"component": _SOURCE, "host": self._node},
            "firstTimestamp": rfc3339(pending.first),
            "lastTimestamp": rfc3339(pending.last),
            "count": pending.count,
            "reportingComponent": _SOURCE,
            "reportingInstance": self._node,
        }
        await self._api.create(path, body)
        self._remember(key, name, pending.count)

    def _remember(self, key: Key, name: str, count: int) -> None:
        self._written[key] = (name, count)
        self._written.move_to_end(key)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)
