"""The Kubernetes API over HTTP, with plain dicts.

Credentials are read by `plainconfig`, or by ``kubernetes.aio`` (it knows every form of kubeconfig, exec plug-ins
included); requests are
aiohttp and orjson, without the client's models: deserialising 200 pods into them takes 0.4 s, and their times lose the
decimals that a Lease must have.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from wasmlab.errors import ClusterError, PrerequisiteError
from wasmlab.node.api import plainconfig

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
# The API server ends a watch after 30 to 60 minutes (--min-request-timeout 1800).
_WATCH_LIFE_S = 3600.0


class ApiError(ClusterError):
    """The API server said no.

    Attributes
    ----------
    status : int
        HTTP status.
    reason : str
        ``Status.reason``: NotFound, AlreadyExists, Conflict, Expired, Forbidden...
    """

    def __init__(self, message: str, *, status: int, reason: str = "", **context: Any) -> None:
        super().__init__(message, status=status, reason=reason, **context)

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.context["status"] in (408, 429) or self.context["status"] >= 500


class ApiUnavailable(ClusterError, ConnectionError):
    """No answer: refused, reset, timed out, TLS failure."""


# What aiohttp and the sockets below it raise when there is no answer.
NO_ANSWER = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class KubeApi:
    """One API server, with one set of credentials.

    Use `KubeApi.from_kubeconfig`; close with `aclose`.
    """

    def __init__(
        self,
        server: str,
        ssl_context: ssl.SSLContext | None,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        connections: int = 24,
        kubeconfig: Path | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.kubeconfig = kubeconfig
        self._headers = {"Accept": "application/json", "User-Agent": "wasmlab-node"}
        if token:
            self._headers["Authorization"] = token if token.startswith("Bearer ") else f"Bearer {token}"
        self._ssl = ssl_context if ssl_context is not None else True
        self._timeout_s = timeout_s
        self._connections = connections
        # Waiting for a connection must not count against a request's deadline: a thousand deletions take their time.
        self._slots = asyncio.Semaphore(connections)
        self._retired: list[tuple[float, aiohttp.ClientSession]] = []
        self._session, self._watches = self._sessions()

    def _sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        # Few connections, reused in last-in first-out order: each costs the API server a TLS handshake.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._ssl, keepalive_timeout=75),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=5),
            json_serialize=lambda value: orjson.dumps(value).decode(),
            auto_decompress=True,
        )
        # Watches have connections of their own: they must not wait for a free one, nor hold one.
        watches = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl),
            headers={**self._headers, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )
        return session, watches

    @classmethod
    async def from_kubeconfig(cls, path: Path, *, temporary: Path, **options: Any) -> KubeApi:
        """Read a kubeconfig.

        Parameters
        ----------
        path : Path
            The file.
        temporary : Path
            A private directory for keys that ssl will only read from files; they are removed again at once.

        Raises
        ------
        PrerequisiteError
            It cannot be read or used.
        """
        plain = plainconfig.read(path)
        if plain is not None:
            try:
                context = plain.context(temporary)
            except (OSError, ValueError) as error:
                raise _unusable(path, error) from error
            return cls(plain.server, context, token=plain.token, kubeconfig=path, **options)
        from kubernetes.aio import config as kube_config
        from kubernetes.aio.client import Configuration

        configuration = Configuration()
        try:
            await kube_config.load_kube_config(
                config_file=str(path),
                client_configuration=configuration,
                persist_config=False,
                temp_file_path=str(temporary),
            )
            context = _ssl_context(configuration)
        except (kube_config.ConfigException, OSError, ssl.SSLError, ValueError) as error:
            raise _unusable(path, error) from error
        finally:
            _remove_temporary_keys(temporary)
        key = configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization")
        return cls(configuration.host, context, token=key, kubeconfig=path, **options)

    async def use_certificate(self, certificate_pem: bytes, key_pem: bytes, *, temporary: Path) -> None:
        """Go on with another client certificate: new requests and watches open new connections with it.

        The API server looks at a connection's certificate at each request, so the old connections must go before
        the old certificate does; what is under way on them is left to end, a watch for at most as long as the API
        server lets one live.

        Parameters
        ----------
        temporary : Path
            A private directory: ssl reads keys from files only.
        """
        assert isinstance(self._ssl, ssl.SSLContext), "a client certificate needs TLS"
        fd, name = tempfile.mkstemp(dir=temporary, prefix="tmp")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(certificate_pem + b"\n" + key_pem)
            self._ssl.load_cert_chain(name)
        finally:
            os.unlink(name)
        now = time.monotonic()
        for _, session in [one for one in self._retired if one[0] < now]:
            await session.close()
        self._retired = [one for one in self._retired if one[0] >= now]
        self._retired += [(now + _WATCH_LIFE_S, one) for one in (self._session, self._watches)]
        self._session, self._watches = self._sessions()

    def follow(self) -> bool:
        """Go to where the kubeconfig says that the API server is now; whether that is elsewhere.

        To be asked when nobody answers: a control plane may come back under another address, and whoever moved it (or
        an administrator) has changed the file. Its credentials and authority are not looked at.
        """
        if self.kubeconfig is None:
            return False
        try:
            content = yaml.safe_load(self.kubeconfig.read_text())
            context = next(
                c["context"] for c in content["contexts"] if c["name"] == content["current-context"]
            )
            cluster = next(c["cluster"] for c in content["clusters"] if c["name"] == context["cluster"])
            server = str(cluster["server"]).rstrip("/")
        except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration):
            return False
        moved, self.server = server != self.server, server
        return moved

    async def aclose(self) -> None:
        """Close all connections."""
        for session in (self._session, self._watches, *(one for _, one in self._retired)):
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Send one request, once, and return the object that came back.

        Raises
        ------
        ApiError
            The API server's refusal.
        ApiUnavailable
            There was no answer.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else None
        try:
            async with (
                self._slots,
                self._session.request(
                    method, self.server + path, data=data, params=params, headers=headers
                ) as response,
            ):
                raw = await response.read()
        except NO_ANSWER as error:
            raise ApiUnavailable(
                f"{method} {self.server}{path}: no answer ({_short(error)})",
                remedy="is the API server running and reachable from here?",
            ) from error
        if response.status >= 400:
            raise _api_error(method, path, response.status, raw)
        return orjson.loads(raw) if raw else {}

    async def get(self, path: str, **params: str) -> Json:
        """Read an object or a list; raises as `request`."""
        return await self.request("GET", path, params=params or None)

    async def create(self, path: str, body: Json) -> Json:
        """Create an object in a collection; raises as `request`."""
        return await self.request("POST", path, body=body)

    async def patch(self, path: str, body: Json, content_type: str = MERGE) -> Json:
        """Change an object; raises as `request`."""
        return await self.request("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: Json | None = None) -> Json:
        """Delete an object; raises as `request`."""
        return await self.request("DELETE", path, body=body)

    async def watch(
        self, path: str, params: Mapping[str, str], *, silence_s: float
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield (type, object) until the server ends the watch.

        Parameters
        ----------
        silence_s : float
            Give up after so long without a byte. The API server sends a bookmark about every minute, so a longer
            silence is a dead connection that nobody told us about.

        Raises
        ------
        ApiError
            Also for an ERROR event in the stream (410 Expired).
        ApiUnavailable
            The connection broke.
        """
        query = {**params, "watch": "1"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence_s)
        rest = b""
        try:
            async with self._watches.get(self.server + path, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise _api_error("WATCH", path, response.status, await response.read())
                async for chunk in response.content.iter_any():
                    lines = (rest + chunk).split(b"\n")
                    rest = lines.pop()
                    for line in lines:
                        if not line:
                            continue
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            problem = event["object"]
                            raise ApiError(
                                f"WATCH {path}: {problem.get('message')}",
                                status=int(problem.get("code") or 500),
                                reason=problem.get("reason") or "",
                            )
                        yield event["type"], event["object"]
        except NO_ANSWER as error:
            raise ApiUnavailable(f"WATCH {self.server}{path}: {_short(error)}") from error


def _short(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _api_error(method: str, path: str, status: int, raw: bytes) -> ApiError:
    message, reason = raw[:500].decode(errors="replace"), ""
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        answer = orjson.loads(raw)
        message, reason = answer.get("message") or message, answer.get("reason") or ""
    return ApiError(f"{method} {path}: {status} {message}", status=status, reason=reason)


def _ssl_context(configuration: Any) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return plainconfig.relaxed(context)


def _unusable(path: Path, error: Exception) -> PrerequisiteError:
    return PrerequisiteError(
        f"the kubeconfig {path} cannot be used: {error}",
        remedy="check the path and the file's content (kubectl --kubeconfig FILE version)",
    )


def _remove_temporary_keys(directory: Path) -> None:
    # kubernetes.aio keeps them until the process ends in good order; a killed one would leave its keys behind.
    from kubernetes.aio.config import kube_config as internals

    remembered: dict[str, str] = getattr(internals, "_temp_files", {})
    for content, name in list(remembered.items()):
        if Path(name).parent == directory:
            del remembered[content]
    for path in directory.glob("tmp*"):
        with contextlib.suppress(OSError):
            path.unlink()
