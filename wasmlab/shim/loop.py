"""A small epoll loop. The shim forks, and asyncio is not made for that; besides, a shim should weigh nothing."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

READ, WRITE, HANGUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


class Loop:
    """Descriptors and timers. A handler that raises is logged and does not end the loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.ending = False

    def watch(self, fd: int, handler: Callable[[int], None], events: int = READ) -> None:
        """Call `handler(events)` whenever `fd` is ready."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on `fd`."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; harmless if it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watched(self, fd: int) -> bool:
        """Whether `fd` is watched."""
        return fd in self._handlers

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` once after `delay_s` seconds."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._count), action))

    def on_signals(self, *numbers: int) -> None:
        """End the loop when one of these signals comes."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write)
        for number in numbers:
            signal.signal(number, self._end)
        self.watch(read, lambda _: self._drain(read))

    def _end(self, number: int, frame: Any) -> None:
        self.ending = True

    @staticmethod
    def _drain(fd: int) -> None:
        try:
            os.read(fd, 4096)
        except BlockingIOError:
            pass

    def run(self) -> None:
        """Serve until `ending`."""
        while not self.ending:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._call(heapq.heappop(self._timers)[2])
            if self.ending:
                return
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, events in self._epoll.poll(timeout):
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._call(handler, events)

    @staticmethod
    def _call(action: Callable[..., None], *arguments: int) -> None:
        try:
            action(*arguments)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Let go of the kernel object."""
        self._epoll.close()
