"""A small epoll loop with timers, for processes that fork: zygotes and shims.

Not asyncio: that is not made for forking, and what a worker inherits should weigh nothing.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_LONGEST_WAIT_S = 3600.0


class Loop:
    """Calls a handler for each descriptor that is ready, and actions when their time has come.

    Parameters
    ----------
    tolerant : bool
        What a handler raises is printed to stderr and the loop goes on: for a process that serves several, of whom one
        must not fail for another's trouble. Otherwise it ends the loop.
    """

    def __init__(self, *, tolerant: bool = False) -> None:
        self._tolerant = tolerant
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.ending = False

    def watch(self, fd: int, handler: Callable[[int], None], events: int = READ) -> None:
        """Call `handler(events)` whenever `fd` is ready."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def want(self, fd: int, events: int) -> None:
        """Change what a watched descriptor is watched for."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Watch it no more (before it is closed); nothing if it was not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether `fd` is watched."""
        return fd in self._handlers

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` once, `delay_s` from now."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._count), action))

    def every(self, interval_s: float, action: Callable[[], None]) -> None:
        """Call `action` again and again."""

        def again() -> None:
            action()
            self.after(interval_s, again)

        self.after(interval_s, again)

    def step(self, longest_s: float) -> bool:
        """Run what is due, then wait at most `longest_s` for events and deal with them; say whether there were any."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._call(heapq.heappop(self._timers)[2])
        if self.ending:
            return True
        if self._timers:
            longest_s = min(longest_s, self._timers[0][0] - time.monotonic())
        events = self._epoll.poll(max(0.0, longest_s))
        for fd, event in events:
            # A handler before it may have closed this one.
            handler = self._handlers.get(fd)
            if handler is not None:
                self._call(handler, event)
        return bool(events)

    def run(self) -> None:
        """Serve until `ending`."""
        while not self.ending:
            self.step(_LONGEST_WAIT_S)

    def _call(self, action: Callable[..., None], *arguments: int) -> None:
        if not self._tolerant:
            action(*arguments)
            return
        try:
            action(*arguments)
        except Exception:
            import traceback  # rarely needed, and not small

            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Let go of the kernel object."""
        self._epoll.close()

    def end_on(self, *signals: int) -> None:
        """Let signals set `ending`; they wake the loop."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write)

        def asked(number: int, frame: Any) -> None:
            self.ending = True

        def drain(event: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)

        for number in signals:
            signal.signal(number, asked)
        self.watch(wake_read, drain)
