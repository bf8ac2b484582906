"""A Kubernetes API connection for measuring: one socket, raw bytes, no models.

The official client is what users see, and what the rest of wasmlab uses. It would be measured too: a POST costs it
about 2 ms of its own. Here the clock starts when the request is written and stops when the answer's head has arrived.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from wasmlab.errors import BenchmarkError, ClusterError, NotReady

_TIMEOUT_S = 30.0


class Api:
    """What a kubeconfig grants, over connections of its own.

    Parameters
    ----------
    kubeconfig : Path
        With any credentials that kubectl takes.
    context : str, optional
        A context of it; the current one if None.
    """

    def __init__(self, kubeconfig: Path, context: str | None = None) -> None:
        import yaml

        config = yaml.safe_load(Path(kubeconfig).read_text())
        named = {
            kind: {entry["name"]: entry[kind[:-1]] for entry in config.get(kind) or ()}
            for kind in ("contexts", "clusters", "users")
        }
        chosen = named["contexts"][context or config["current-context"]]
        cluster, user = named["clusters"][chosen["cluster"]], named["users"][chosen["user"]]
        server = urlsplit(cluster["server"])
        if server.scheme != "https" or not server.hostname:
            raise BenchmarkError(
                f"cannot measure a cluster at {cluster['server']}", remedy="give one with https"
            )
        self._host, self._port = server.hostname, server.port or 443
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._bearer = _bearer(user, Path(kubeconfig), context)
        self._context = _tls(cluster, user, Path(kubeconfig).parent)
        self._local = threading.local()

    def connect(self, timeout_s: float = _TIMEOUT_S) -> http.client.HTTPSConnection:
        """Open a connection of its own (for a watch)."""
        return http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout_s)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        bearer = self._bearer()
        return {**self._headers, "Authorization": bearer} if bearer else self._headers

    def request(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request on this thread's connection and return status and body.

        Raises
        ------
        ClusterError
            If the API server cannot be reached.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        for last_try in (False, True):
            connection = getattr(self._local, "connection", None)
            fresh = connection is None
            if connection is None:
                connection = self._local.connection = self.connect()
            try:
                connection.request(method, path, data, self.headers | (headers or {}))
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                # The server may close an idle connection at any time; a fresh one that fails is another matter.
                if fresh or last_try:
                    raise ClusterError(
                        f"{method} {path.partition('?')[0]} failed: {error}", remedy="is the cluster up?"
                    ) from error
        raise AssertionError("unreachable")

    def must(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """Send one request and return the parsed answer.

        Raises
        ------
        ClusterError
            If the answer is not 2xx; ``status`` is the HTTP status.
        """
        status, data = self.request(method, path, body, headers=headers)
        if not 200 <= status < 300:
            try:
                message = json.loads(data)["message"]
            except (ValueError, KeyError, TypeError):
                message = data[:200].decode(errors="replace")
            raise ClusterError(f"{method} {path.partition('?')[0]}: {status} {message}", status=status)
        return json.loads(data) if data else None

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


class PodWatch:
    """Follows pods in a thread (of one namespace, with the labels of `selector`) and notes when what was first seen.

    Attributes
    ----------
    seen : dict
        Pod name -> moment -> CLOCK_MONOTONIC ns; moments are ``scheduled``, ``running`` and ``done``.
    last : dict
        Pod name -> the pod as last seen.
    ended : int
        How many pods have been seen Succeeded or Failed.
    gone : set of str
        Pods that were deleted before that.
    """

    def __init__(self, api: Api, namespace: str, selector: str = "") -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._selector = f"&labelSelector={quote(selector)}" if selector else ""
        self.seen: dict[str, dict[str, int]] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.ended = 0
        self.gone: set[str] = set()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._connection: http.client.HTTPSConnection | None = None
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="pod-watch", daemon=True)

    def __enter__(self) -> PodWatch:
        self._thread.start()
        if not self._ready.wait(_TIMEOUT_S):
            self._stop.set()
            raise ClusterError(f"the watch on pods did not start: {self._error or 'no answer'}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            # close() alone would not wake the thread out of its read.
            import contextlib
            import socket

            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition()` holds; it is asked whenever something changed. Returns whether it does."""
        with self._news:
            return self._news.wait_for(condition, timeout_s)

    def wait_done(self, name: str, timeout_s: float) -> dict[str, int]:
        """Wait until a pod has Succeeded or Failed, and return its moments.

        Raises
        ------
        NotReady
            At the deadline, with what its containers say; at once if the pod was deleted.
        """
        if not self.wait(lambda: name in self.gone or "done" in self.seen.get(name, {}), timeout_s):
            raise NotReady(f"pod {name} did not end within {timeout_s:g} s: {self._why(name)}", events=[])
        if name in self.gone:
            raise NotReady(f"pod {name} was deleted before it ended", events=[])
        return self.seen[name]

    def _why(self, name: str) -> str:
        status = self.last.get(name, {}).get("status", {})
        waiting = [
            f"{one['state']['waiting'].get('reason')}: {one['state']['waiting'].get('message', '')}"
            for one in status.get("containerStatuses", [])
            if "waiting" in one.get("state", {})
        ]
        return "; ".join(waiting) or f"phase {status.get('phase', 'unknown')}"

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._once()
            except (OSError, http.client.HTTPException, ValueError, ClusterError) as error:
                # Servers close watches; what was missed meanwhile is in the next list, seen late but seen.
                self._error = error
                self._stop.wait(0.05)

    def _once(self) -> None:
        listed = self._api.must("GET", f"{self._path}?resourceVersion=0{self._selector}")
        for pod in listed["items"]:
            self._note(pod, time.monotonic_ns())
        version = listed["metadata"]["resourceVersion"]
        connection = self._connection = self._api.connect(timeout_s=600)
        try:
            connection.request(
                "GET",
                f"{self._path}?watch=1&resourceVersion={version}&timeoutSeconds=590{self._selector}",
                headers=self._api.headers,
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise ClusterError(f"watching pods: {answer.status}")
            self._ready.set()
            rest = b""
            while not self._stop.is_set():
                data = answer.read1(1 << 16)
                now = time.monotonic_ns()
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line:
                        event = _parse(line)
                        if event["type"] == "ERROR":
                            return
                        self._note(event["object"], now, deleted=event["type"] == "DELETED")
        finally:
            self._connection = None
            connection.close()

    def _note(self, pod: dict[str, Any], now: int, *, deleted: bool = False) -> None:
        name = pod["metadata"]["name"]
        phase = pod.get("status", {}).get("phase")
        with self._news:
            moments = self.seen.setdefault(name, {})
            if pod["spec"].get("nodeName"):
                moments.setdefault("scheduled", now)
            statuses = pod.get("status", {}).get("containerStatuses") or ()
            if phase in ("Running", "Succeeded", "Failed") and statuses:
                moments.setdefault("running", now)
            if phase in ("Succeeded", "Failed") and "done" not in moments:
                moments["done"] = now
                self.ended += 1
            if deleted and "done" not in moments:
                self.gone.add(name)
            self.last[name] = pod
            self._news.notify_all()


def _parse(line: bytes) -> dict[str, Any]:
    import orjson

    return orjson.loads(line)


def _bearer(user: dict[str, Any], kubeconfig: Path, context: str | None) -> Callable[[], str]:
    """Return what says which token to send; empty for a client certificate."""
    if not {"exec", "tokenFile", "auth-provider"} & set(user):
        return lambda: f"Bearer {user['token']}" if "token" in user else ""
    # Clouds have tokens that programs make, and that expire: the official client knows all the ways.
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), context, configuration)
    return lambda: str(configuration.auth_settings().get("BearerToken", {}).get("value") or "")


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    def pem(entry: dict[str, Any], key: str) -> str | None:
        if entry.get(f"{key}-data"):
            return base64.b64decode(entry[f"{key}-data"]).decode()
        return (base / entry[key]).read_text() if entry.get(key) else None

    context = ssl.create_default_context(cadata=pem(cluster, "certificate-authority"))
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = pem(user, "client-certificate"), pem(user, "client-key")
    if certificate and key:
        # The ssl module reads certificates from files only.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
            both.write(certificate + "\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context
