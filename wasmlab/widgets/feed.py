"""Nodes and pods of a cluster as they change, in threads of their own: list, then watch, then watch again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wasmlab.cluster import Cluster
from wasmlab.cluster.rest import Rest
from wasmlab.errors import ClusterError
from wasmlab.widgets.model import State

_PATHS = {"nodes": "/api/v1/nodes", "pods": "/api/v1/pods"}
# A watch ends by itself after so long, so that a feed that was closed holds its thread no longer than that.
_WATCH_S = 5
# The first and the longest pause after an error.
_RETRY_S, _RETRY_MOST_S = 1.0, 10.0


class Feed:
    """Keeps a `State` true.

    Parameters
    ----------
    cluster : Cluster
        Whose nodes and pods.
    on_change : callable
        Called after each change, from one of the feed's threads; `trouble` says what is wrong, empty if nothing is.

    Attributes
    ----------
    state : State
        To be read under `lock`.
    trouble, remedy : str
        Why what is shown may be old, and what to do; empty if it is not.
    """

    def __init__(self, cluster: Cluster, on_change: Callable[[], None]) -> None:
        self.state = State()
        self.lock = threading.Lock()
        self.trouble, self.remedy = "", ""
        self._on_change = on_change
        self._unknown = set(_PATHS)
        self._told = threading.Event()
        self._closed = threading.Event()
        for kind in _PATHS:
            name = f"wasmlab-{kind}"
            threading.Thread(target=self._follow, args=(kind, cluster.rest), daemon=True, name=name).start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until nodes and pods have been listed, or something is wrong; return whether that came in time."""
        return self._told.wait(timeout_s)

    def close(self) -> None:
        """Stop following; the threads end with their watch, within a few seconds."""
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def _follow(self, kind: str, rest: Rest) -> None:
        pause_s = _RETRY_S
        while not self._closed.is_set():
            try:
                listing = rest.get(_PATHS[kind])
                with self.lock:
                    self.state.replace(kind, listing["items"])
                    self.trouble, self.remedy = "", ""
                    self._unknown.discard(kind)
                    if not self._unknown:
                        self._told.set()
                self._on_change()
                pause_s = _RETRY_S
                self._watch(kind, rest, listing["metadata"]["resourceVersion"])
            except ClusterError as error:
                with self.lock:
                    self.trouble, self.remedy = error.message, error.remedy or ""
                self._told.set()
                self._on_change()
                self._closed.wait(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)

    def _watch(self, kind: str, rest: Rest, version: str) -> None:
        while not self._closed.is_set():
            for event in rest.watch(
                _PATHS[kind], timeout_s=_WATCH_S, resourceVersion=version, allowWatchBookmarks="true"
            ):
                if self._closed.is_set():
                    return
                if event["type"] == "ERROR":
                    return  # most likely the version is too old (410): list again
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                with self.lock:
                    self.state.apply(kind, event)
                self._on_change()


def thinned(
    call: Callable[[], None], every_s: float, *, refresh_s: float | None = None
) -> tuple[Callable[[], None], threading.Event]:
    """Return a function that has `call` called soon, at most once in `every_s`, and the event that ends it.

    A burst of a thousand pods makes thousands of changes; a browser needs a few a second. With `refresh_s` it is
    called that often even if nobody asks.
    """
    wanted, ended = threading.Event(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            if wanted.wait(refresh_s or 1.0) or refresh_s:
                wanted.clear()
                if not ended.is_set():
                    call()
                ended.wait(every_s)

    threading.Thread(target=work, daemon=True, name="wasmlab-redraw").start()
    return wanted.set, ended
