"""Waiting for an object by watching it, never longer than a deadline.

A watch may be closed by the server at any time, and events may be too old to be replayed (410): then the object is
listed anew and the watch starts from there. Nothing is missed, because the predicate is asked about every listing too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from wasmlab.cluster.rest import Rest, Unreachable
from wasmlab.errors import ClusterError, NotReady

# Longest single watch: short enough that a dead connection without a reset is noticed.
_WATCH_S = 30
_RETRY_S = 0.1
# Answers that time may heal: conflict, too many requests, server errors. Not "forbidden" or "no such resource".
_PASSING = (409, 410, 429, 500, 502, 503, 504)

Object = dict[str, Any]


def wait_for(
    rest: Rest,
    collection: str,
    name: str,
    predicate: Callable[[Object | None], bool],
    timeout_s: float,
    *,
    what: str,
    events: Callable[[], list[str]] = list,
) -> Object | None:
    """Watch one object until `predicate` holds for it.

    Parameters
    ----------
    rest : Rest
        The API server.
    collection : str
        Path of the collection, e.g. ``/api/v1/namespaces/default/pods``.
    name : str
        Of the object in it.
    predicate : callable
        Is asked with the object, and with None while it does not exist; whatever it raises is raised.
    timeout_s : float
        The deadline, in seconds from now.
    what : str
        For the message, e.g. ``"pod default/hello to be Succeeded"``.
    events : callable
        What the cluster said meanwhile; asked only on failure.

    Returns
    -------
    dict or None
        The object for which the predicate held.

    Raises
    ------
    NotReady
        At the deadline; with ``events`` and the ``last`` state seen.
    ClusterError
        If the API server refuses for good.
    """
    deadline = time.monotonic() + timeout_s
    last: Object | None = None
    trouble: ClusterError | None = None
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            for last in _states(rest, collection, name, left_s):
                trouble = None
                if predicate(last):
                    return last
                if time.monotonic() >= deadline:
                    break
        except ClusterError as error:
            # The API server may restart while we wait: the deadline is the judge.
            if not isinstance(error, Unreachable) and error.context.get("status") not in _PASSING:
                raise
            trouble = error
            time.sleep(min(_RETRY_S, max(0.0, deadline - time.monotonic())))
    try:
        seen = events()
    except ClusterError as error:  # do not hide the timeout behind a second failure
        seen, trouble = [], trouble or error
    message = f"waited {timeout_s:g} s for {what}"
    if seen:
        message += "; events: " + "; ".join(seen[-5:])
    if trouble is not None:
        message += f"; the last request failed: {trouble.message}"
    raise NotReady(message, events=seen, last=last)


def _states(rest: Rest, collection: str, name: str, left_s: float) -> Iterator[Object | None]:
    """Yield the object's state now, then after every change, until the server closes the watch."""
    selector = f"metadata.name={name}"
    listing = rest.get(collection, fieldSelector=selector)
    yield listing["items"][0] if listing["items"] else None
    version = listing["metadata"]["resourceVersion"]
    timeout_s = max(1, round(min(left_s, _WATCH_S)))
    for event in rest.watch(collection, timeout_s=timeout_s, fieldSelector=selector, resourceVersion=version):
        if event["type"] == "ERROR":
            status = event["object"]
            raise ClusterError(
                f"watch of {collection} failed: {status.get('message')}", status=status.get("code")
            )
        if event["type"] == "DELETED":
            yield None
        elif event["type"] != "BOOKMARK":
            yield event["object"]
