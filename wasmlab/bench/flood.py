"""Write many Pods over a few connections, all at once or so many at a time, and remove them likewise."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from wasmlab.bench.api import Api, PodWatch
from wasmlab.errors import ClusterError

WRITERS = 4
_LOOK_EVERY_S = 0.5
_ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Written(NamedTuple):
    """A Pod that the API server took; times on CLOCK_MONOTONIC."""

    uid: str
    began_ns: int
    answered_ns: int


@dataclass
class Flood:
    """What came of it: Pods by name, and what the API server said about those it did not take."""

    written: dict[str, Written] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def flood(
    api: Api,
    watch: PodWatch,
    namespace: str,
    pods: Sequence[tuple[str, bytes]],
    *,
    writers: int = WRITERS,
    in_flight: int | None = None,
    timeout_s: float = 120.0,
    stop: threading.Event | None = None,
    into: Flood | None = None,
) -> Flood:
    """Write Pods as fast as they are taken.

    Parameters
    ----------
    api : Api
        Each writer opens a connection of its own.
    watch : PodWatch
        Follows the namespace already.
    pods : sequence of (str, bytes)
        Names and bodies.
    writers : int
        How many connections.
    in_flight : int, optional
        So many Pods at a time: the next one is written when one has ended. None: all at once.
    timeout_s : float
        Deadline of the whole.
    stop : Event, optional
        When it is set, no further Pod is written.
    into : Flood, optional
        What is returned, for those who want to look at it meanwhile.

    Returns
    -------
    Flood
        When all have been written (not: ended). Those that were not by the deadline are missing.
    """
    done = into if into is not None else Flood()
    feed = iter(pods)
    lock = threading.Lock()
    stop = stop or threading.Event()
    deadline = time.monotonic() + timeout_s
    limit = in_flight or len(pods)
    already = watch.ended
    asked = 0

    def may_ask() -> bool:
        # Asked under the watch's lock whenever a Pod changes: looking and claiming are one step.
        nonlocal asked
        if asked - len(done.errors) - (watch.ended - already) < limit:
            asked += 1
            return True
        return False

    def write() -> None:
        try:
            while True:
                with lock:
                    entry = next(feed, None)
                if entry is None:
                    return
                # In slices, so that an interrupted measurement does not sit out its deadline.
                while not watch.wait(may_ask, _LOOK_EVERY_S):
                    if stop.is_set() or time.monotonic() > deadline:
                        return
                if stop.is_set():
                    return
                _write_one(api, namespace, *entry, done)
        finally:
            api.close()

    together(write, max(1, min(writers, limit)), stop)
    return done


def together(work: Callable[[], None], count: int, stop: threading.Event) -> None:
    """Do the work in several threads and wait for them; if interrupted, tell them to stop, and wait for that."""
    threads = [threading.Thread(target=work, name="flood") for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _write_one(api: Api, namespace: str, name: str, body: bytes, done: Flood) -> None:
    began = time.monotonic_ns()
    try:
        status, data = api.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    except ClusterError as error:
        done.errors.append(error.message)
        return
    if status == 201:
        answered = time.monotonic_ns()
        done.written[name] = Written(json.loads(data)["metadata"]["uid"], began, answered)
    else:
        done.errors.append(f"{status} {data[:200].decode(errors='replace')}")


def remove(
    api: Api,
    namespace: str,
    selector: str = "",
    *,
    grace_s: int = 1,
    writers: int = WRITERS,
    timeout_s: float = 120.0,
) -> bool:
    """Delete all Pods of a namespace and wait until they are gone; returns whether they are.

    One by one over a few connections: the API server deletes a whole collection in one request and one after the other,
    and a thousand Pods of a busy node outlast the request.

    Parameters
    ----------
    selector : str
        Only Pods with these labels.
    grace_s : int
        How long those that run may take to end.
    timeout_s : float
        Deadline of the whole.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    query = f"?labelSelector={quote(selector)}" if selector else ""
    body = {"kind": "DeleteOptions", "gracePeriodSeconds": grace_s}
    deadline = time.monotonic() + timeout_s
    asked: set[str] = set()
    stop = threading.Event()
    lock = threading.Lock()
    names: list[str] = []

    def delete() -> None:
        try:
            while not stop.is_set() and time.monotonic() < deadline:
                with lock:
                    if not names:
                        return
                    name = names.pop()
                # What cannot be deleted now is listed again, and tried again.
                with contextlib.suppress(ClusterError):
                    status, _ = api.request("DELETE", f"{path}/{name}", body)
                    if status < 300 or status == 404:
                        asked.add(name)
        finally:
            api.close()

    while time.monotonic() < deadline:
        with contextlib.suppress(ClusterError):
            listed = api.must("GET", path + query, headers={"Accept": _ONLY_METADATA})["items"]
            if not listed:
                return True
            names[:] = [name for one in listed if (name := one["metadata"]["name"]) not in asked]
            stop.clear()
            together(delete, min(writers, len(names)), stop)
        time.sleep(0.05)
    return False
