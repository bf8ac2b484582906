"""The client for code that is not asynchronous; also the place to import either client and their results from.

>>> from wasmlab.oci import Client
>>> client = Client()
>>> client.push("hello.wasm", "127.0.0.1:5000/hello:v1").digest         # doctest: +SKIP
'sha256:...'
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from wasmlab.oci.artifact import Layout
from wasmlab.oci.async_client import MAX_MODULE_BYTES, AsyncClient
from wasmlab.oci.credentials import Credentials
from wasmlab.oci.image import Image, Index
from wasmlab.oci.progress import ProgressCallback
from wasmlab.oci.protocol import Timeouts
from wasmlab.oci.reference import Reference
from wasmlab.oci.results import Inspected, Located, Pulled, Pushed, PushedImage
from wasmlab.oci.session import TokenCache

__all__ = [
    "MAX_MODULE_BYTES",
    "AsyncClient",
    "Client",
    "Inspected",
    "Located",
    "ProgressCallback",
    "Pulled",
    "Pushed",
    "PushedImage",
    "Timeouts",
]

_T = TypeVar("_T")


class Client:
    """The same for code that is not asynchronous (scripts, notebooks): nothing to close, usable from any thread.

    Each call runs in an event loop of its own, so no connection, thread or loop outlives it; tokens are kept between
    calls. In a thread that already runs a loop (Jupyter) the call gets a helper thread.
    See `AsyncClient` for the parameters.
    """

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        plain_http: bool | Collection[str] | None = None,
        insecure: bool = False,
        ca_file: str | Path | None = None,
        timeout: Timeouts | None = None,
    ) -> None:
        tokens = TokenCache()
        self._make = lambda: AsyncClient(
            credentials=credentials,
            plain_http=plain_http,
            insecure=insecure,
            ca_file=ca_file,
            timeout=timeout,
            _tokens=tokens,
        )

    def push(
        self,
        path: str | Path,
        ref: str | Reference,
        layout: Layout = "wasm-to-oci",
        progress: ProgressCallback | None = None,
        *,
        title: str | None = None,
        chunk_bytes: int | None = None,
        credentials: Credentials | None = None,
    ) -> Pushed:
        """Push a module. See `AsyncClient.push`."""
        return self._run(
            lambda client: client.push(
                path, ref, layout, progress, title=title, chunk_bytes=chunk_bytes, credentials=credentials
            )
        )

    def push_image(
        self, content: Image | Index, ref: str | Reference, *, credentials: Credentials | None = None
    ) -> PushedImage:
        """Push an image, or an index of images. See `AsyncClient.push_image`."""
        return self._run(lambda client: client.push_image(content, ref, credentials=credentials))

    def check_push(self, ref: str | Reference, *, credentials: Credentials | None = None) -> None:
        """See whether pushing would be allowed. See `AsyncClient.check_push`."""
        self._run(lambda client: client.check_push(ref, credentials=credentials))

    def pull(
        self,
        ref: str | Reference,
        out: str | Path,
        progress: ProgressCallback | None = None,
        *,
        credentials: Credentials | None = None,
    ) -> Pulled:
        """Pull a module. See `AsyncClient.pull`."""
        return self._run(lambda client: client.pull(ref, out, progress, credentials=credentials))

    def inspect(self, ref: str | Reference, *, credentials: Credentials | None = None) -> Inspected:
        """Look at what a reference points at. See `AsyncClient.inspect`."""
        return self._run(lambda client: client.inspect(ref, credentials=credentials))

    def resolve(self, ref: str | Reference, *, credentials: Credentials | None = None) -> str:
        """Return the digest a reference stands for. See `AsyncClient.resolve`."""
        return self._run(lambda client: client.resolve(ref, credentials=credentials))

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, _T]]) -> _T:
        async def main() -> _T:
            async with self._make() as client:
                return await call(client)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(main())
        return _run_in_thread(main)


def _run_in_thread(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    outcome: dict[str, Any] = {}
    running = threading.Event()

    async def tracked() -> _T:
        outcome["loop"], outcome["task"] = asyncio.get_running_loop(), asyncio.current_task()
        running.set()
        return await main()

    def work() -> None:
        try:
            outcome["value"] = asyncio.run(tracked())
        except BaseException as error:
            outcome["error"] = error
        finally:
            running.set()

    thread = threading.Thread(target=work, name="wasmlab-oci", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:  # KeyboardInterrupt in a notebook: end the transfer, then let it through
        running.wait()
        if "task" in outcome:
            with contextlib.suppress(RuntimeError):
                outcome["loop"].call_soon_threadsafe(outcome["task"].cancel)
        thread.join()
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
