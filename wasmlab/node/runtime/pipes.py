"""Pipes between a module's standard streams and this process, without a thread and without a buffer in between.

Who does not read is waited for: a client that reads slowly slows the module, a module that reads slowly slows the
client. Nothing is kept here but one portion.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

_PORTION_BYTES = 32 * 1024
_LOOK_S = 0.5


class Pipe:
    """One pipe, or /dev/null: the module's end is a blocking one, ours is not.

    Parameters
    ----------
    wanted : bool
        /dev/null if not.
    to_module : bool
        Whether the module reads from it.
    """

    def __init__(self, wanted: bool, *, to_module: bool = False) -> None:
        self.ours = self.theirs = -1
        if not wanted:
            self.theirs = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            return
        read, write = os.pipe2(os.O_CLOEXEC)
        self.theirs, self.ours = (read, write) if to_module else (write, read)
        os.set_blocking(self.ours, False)

    def handed_over(self) -> None:
        """The module has its end: close our copy of it, or the pipe would never end."""
        self.theirs = _closed(self.theirs)

    def close(self) -> None:
        """Close what is left."""
        self.ours, self.theirs = _closed(self.ours), _closed(self.theirs)

    async def portions(self) -> AsyncIterator[bytes]:
        """What the module writes, as it comes, until it has closed its end."""
        while self.ours >= 0:
            try:
                data = os.read(self.ours, _PORTION_BYTES)
            except BlockingIOError:
                await _ready(self.ours, reading=True)
                continue
            if not data:
                return
            yield data


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


async def write(fd: int, data: bytes, *, given_up: Callable[[], Awaitable[bool]]) -> None:
    """Write all of `data` to a non-blocking descriptor, for as long as it takes.

    Parameters
    ----------
    given_up : callable
        Looked at twice a second while the reader does not read; true ends the waiting.

    Raises
    ------
    BrokenPipeError
        The reader has gone, or it was given up.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await _ready(fd, reading=False)
            if await given_up():
                raise BrokenPipeError("nobody waits for it any more") from None


async def _ready(fd: int, *, reading: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)

    def told() -> None:
        if not ready.done():
            ready.set_result(None)

    add(fd, told)
    try:
        await ready
    finally:
        remove(fd)
