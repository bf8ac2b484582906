"""Carry out one HTTP exchange with deadlines, on aiohttp: no policy here, and no other module opens a socket.

One transport serves the asynchronous and the synchronous client. aiohttp costs 0.15 s to import where urllib3 costs
0.05 s, but asyncio can bound the *whole* exchange (name resolution and dripping bytes included), which blocking sockets
cannot. It is imported when the first request is made.

Guarantees: every exchange ends within its deadline; certificate checks are on unless told otherwise; nothing from the
environment but the proxy settings is used (no netrc); answers are never decompressed, so their digests are those of
what travelled.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import wasmlab
from wasmlab.errors import OCIError, PrerequisiteError, RegistryTimeout, SizeMismatch
from wasmlab.oci.failures import host_of, translate
from wasmlab.oci.protocol import FilePart, Request, Response, Timeouts
from wasmlab.oci.reference import is_loopback
from wasmlab.oci.resolver import daemon_resolver

if TYPE_CHECKING:
    import aiohttp

_CHUNK_BYTES = 256 * 1024
# After an upload the registry digests and stores it before it answers; assume it manages this rate.
_COMMIT_RATE_BYTES_PER_S = 16 * 1024 * 1024

#: Called with each piece of a successful answer.
Sink = Callable[[bytes], None]
#: Called with how many bytes have moved since the last call.
Progress = Callable[[int], None]


class Transport(Protocol):
    """What the session needs; tests put a fake in its place."""

    async def exchange(
        self, request: Request, sink: Sink | None = None, progress: Progress | None = None
    ) -> Response:
        """Send `request`; a 2xx body goes to `sink` if given, any other body into the response."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class AiohttpTransport:
    """The real transport.

    Parameters
    ----------
    timeouts : Timeouts
        Deadlines.
    insecure : bool
        Accept any certificate.
    ca_file : Path, optional
        More certificate authorities, PEM.
    """

    def __init__(self, timeouts: Timeouts, *, insecure: bool = False, ca_file: Path | None = None) -> None:
        self._timeouts = timeouts
        self._insecure = insecure
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    async def exchange(
        self, request: Request, sink: Sink | None = None, progress: Progress | None = None
    ) -> Response:
        """Send `request` and read the answer.

        Raises
        ------
        RegistryTimeout
            If a deadline passed: connecting, a silence, or the whole.
        RegistryUnavailable
            If there is no connection, or it broke.
        SizeMismatch
            If the body was cut short of its Content-Length.
        """
        import aiohttp

        limit_s = self._timeouts.for_size(request.size_bytes)
        try:
            async with asyncio.timeout(limit_s):
                return await self._exchange(request, sink, progress)
        except aiohttp.ConnectionTimeoutError as error:
            raise RegistryTimeout(
                f"cannot {request.what}: no connection to {host_of(request)} within {self._timeouts.connect_s:g} s",
                remedy="check the address, the network and any firewall",
                phase="connect",
            ) from error
        except aiohttp.SocketTimeoutError as error:
            raise RegistryTimeout(
                f"cannot {request.what}: {host_of(request)} was silent for {self._read_s(request):g} s",
                remedy="the registry hangs or is overloaded: see its log, or raise --timeout",
                phase="read",
            ) from error
        except TimeoutError as error:
            raise RegistryTimeout(
                f"cannot {request.what}: not finished after {limit_s:g} s",
                remedy="the connection is too slow: raise --timeout",
                phase="total",
            ) from error
        except aiohttp.ClientError as error:
            raise translate(request, error) from error

    async def _exchange(self, request: Request, sink: Sink | None, progress: Progress | None) -> Response:
        import aiohttp
        import yarl

        session = self._session or self._open()
        upload: Any = request.body
        headers = dict(request.headers)
        if isinstance(upload, FilePart):
            headers["Content-Length"] = str(upload.size_bytes)
            upload = _read_part(upload, progress)
        timeout = aiohttp.ClientTimeout(
            total=None,  # bounded by the caller, with a message of its own
            connect=self._timeouts.connect_s,
            sock_connect=self._timeouts.connect_s,
            sock_read=self._read_s(request),
        )
        try:
            async with session.request(
                request.method,
                # As it is: normalising the query would break upload states and the signatures of pre-signed URLs.
                yarl.URL(request.url, encoded=True),
                headers=headers,
                data=upload,
                timeout=timeout,
                allow_redirects=False,
                ssl=self._ssl(request.url),
                proxy=_proxy(request.url),
            ) as answer:
                stream = sink if sink is not None and answer.status in (200, 206) else None
                body = await _read_body(request, answer, stream, progress)
                merged: dict[str, str] = {}
                for name, value in answer.headers.items():
                    key = name.lower()
                    merged[key] = f"{merged[key]}\n{value}" if key in merged else value
                return Response(answer.status, merged, body, request.url)
        except aiohttp.ClientPayloadError as error:
            raise SizeMismatch(
                f"cannot {request.what}: the connection was cut in the middle of the answer",
                remedy="try again; if it stays, look for a proxy that ends long transfers",
                expected=None,
                actual=None,
            ) from error

    def _read_s(self, request: Request) -> float:
        extra = request.size_bytes / _COMMIT_RATE_BYTES_PER_S if request.body is not None else 0.0
        return round(self._timeouts.read_s + extra, 1)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=32, resolver=daemon_resolver())
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # identity: with a compressed transfer, announced size and digest would not be those of the bytes.
            headers={"User-Agent": f"wasmlab/{wasmlab.__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )
        return self._session

    def _ssl(self, url: str) -> ssl.SSLContext | bool:
        if not url.startswith("https:"):
            return True
        if self._tls is None:
            self._tls = _tls_context(self._insecure, self._ca_file)
        return self._tls

    async def aclose(self) -> None:
        """Close all connections; the transport may be used again afterwards."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _tls_context(insecure: bool, ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise PrerequisiteError(
                f"cannot use the CA file {ca_file}: {error}",
                remedy="give a readable file with PEM certificates",
            ) from error
    return context


def _proxy(url: str) -> str | None:
    host = urlsplit(url).netloc
    # Like Go, and unlike urllib: this machine is never reached through a proxy.
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(urlsplit(url).scheme)


async def _read_part(part: FilePart, progress: Progress | None) -> AsyncIterator[bytes]:
    with open(part.path, "rb") as stream:
        stream.seek(part.offset_bytes)
        left = part.size_bytes
        while left:
            chunk = stream.read(min(_CHUNK_BYTES, left))
            if not chunk:
                raise OCIError(
                    f"{part.path} became shorter while it was pushed",
                    remedy="push it again when it is complete",
                )
            left -= len(chunk)
            yield chunk
            if progress is not None:
                progress(len(chunk))


async def _read_body(request: Request, answer: Any, sink: Sink | None, progress: Progress | None) -> bytes:
    if request.method == "HEAD":
        return b""
    kept = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        if sink is not None:
            sink(chunk)
            if progress is not None:
                progress(len(chunk))
            continue
        kept += chunk
        if len(kept) > request.max_body_bytes:
            if answer.status >= 400:
                break  # an endless error page: its beginning tells enough
            raise OCIError(
                f"cannot {request.what}: the answer is larger than {request.max_body_bytes} bytes",
                remedy="this is not the answer of a registry: check the address",
            )
    return bytes(kept[: request.max_body_bytes])
