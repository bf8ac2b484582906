"""The guest's standard streams: containerd's FIFOs handed straight to the guest, or a terminal pumped through them.

Without a terminal the guest writes into containerd's FIFOs itself, so output costs no copy and no wake-up here. How a
FIFO is opened decides who waits for whom:

* stdout, stderr for reading and writing: that never blocks, and the guest lives on (its output waits in the FIFO) while
  containerd is restarted;
* stdin for reading without blocking. Its end is the end of the last writer, as for any FIFO. Only if the client has
  not opened it yet, the shim carries the input over (`_Relay`), else the guest would see an empty one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import termios
import time
from collections.abc import Callable

from wasmlab.sandbox.loop import READ, WRITE, Loop
from wasmlab.shim import kernel

_CHUNK = 65536
# A client that reads no more must not keep the exit from being told.
_DRAIN_S = 2.0
_LOOK_EVERY_S = 0.002


def _unread(fd: int) -> bool:
    """Whether a FIFO holds what somebody may still read."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    (left,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    return left > 0


def _open_output(path: str) -> int:
    if not path:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    if path.startswith("file://"):
        path = path.removeprefix("file://")
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    path = path.removeprefix("fifo://")
    if "://" in path:
        raise OSError(errno.EINVAL, "this shim writes to FIFOs and files only", path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


class _Relay:
    """Carries a client's stdin to the guest through a pipe of our own.

    Used when the client has not opened its end of the FIFO yet: the guest would read that as the end of its input. A
    poll knows better than a read: it reports a hang-up only when a writer has been there and has gone.
    """

    def __init__(self, loop: Loop, fifo: int) -> None:
        self._loop, self._fifo = loop, fifo
        self.guest, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        self._buffer = b""
        self._closing = False
        loop.watch(fifo, self._read)

    def _read(self, _: int = 0) -> None:
        try:
            data = os.read(self._fifo, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._buffer = data
        self._write()

    def _write(self, _: int = 0) -> None:
        try:
            while self._buffer:
                self._buffer = self._buffer[os.write(self._pipe, self._buffer) :]
        except BlockingIOError:
            if not self._loop.watches(self._pipe):
                self._loop.unwatch(self._fifo)
                self._loop.watch(self._pipe, self._write, WRITE)
            return
        except OSError:  # the guest does not read any more
            self.close()
            return
        if self._loop.watches(self._pipe):
            self._loop.unwatch(self._pipe)
            self._loop.watch(self._fifo, self._read)
        if self._closing:
            self.close()

    def end(self) -> None:
        """End the guest's input after what has been sent."""
        self._closing = True
        if not self._buffer:
            self._read()
        if not self._buffer:
            self.close()

    def close(self) -> None:
        """End the guest's input now."""
        if self._fifo >= 0:
            for fd in (self._fifo, self._pipe):
                self._loop.unwatch(fd)
                os.close(fd)
        self._fifo = self._pipe = -1


class Streams:
    """The descriptors of one process.

    Attributes
    ----------
    guest : list of int
        stdin, stdout, stderr for the worker; closed here once it has them.
    """

    def __init__(self, loop: Loop, stdin: str, stdout: str, stderr: str) -> None:
        self.guest: list[int] = []
        self._loop = loop
        self._relay: _Relay | None = None
        self._kept: list[int] = []
        try:
            if stdin:
                fd = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if stat.S_ISFIFO(os.fstat(fd).st_mode) and not kernel.has_writer(fd):
                    self._relay = _Relay(loop, fd)
                    fd = self._relay.guest
                self.guest.append(fd)
                os.set_blocking(fd, True)
            else:
                self.guest.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self.guest.append(_open_output(stdout))
            self.guest.append(_open_output(stderr))
            # To see when the client has read everything, and for the reason of an end that the worker could not tell.
            self._kept = [os.dup(self.guest[1]), os.dup(self.guest[2])]
        except OSError:
            self.close()
            raise

    def handed_over(self) -> None:
        """Close what the worker has got."""
        for fd in self.guest:
            os.close(fd)
        self.guest = []

    def close_stdin(self) -> None:
        """CloseIO: no input will come. Without a relay the guest has seen to it when the client closed its end."""
        if self._relay is not None:
            self._relay.end()

    def say(self, text: str) -> None:
        """Write a line to the guest's stderr, if that is possible without waiting."""
        if self._kept:
            with contextlib.suppress(OSError):
                os.set_blocking(self._kept[1], False)
                os.write(self._kept[1], text.encode() + b"\n")

    def resize(self, width: int, height: int) -> None:
        """Only terminals have a size."""

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when the client has read what the guest printed, or has had two seconds for it.

        containerd closes its end of the FIFOs as soon as a task that has ended is deleted, whatever is still in them.
        """
        deadline = time.monotonic() + _DRAIN_S

        def look() -> None:
            if any(map(_unread, self._kept)) and time.monotonic() < deadline:
                self._loop.after(_LOOK_EVERY_S, look)
                return
            self.close()
            done()

        look()

    def close(self) -> None:
        """Close everything."""
        self.handed_over()
        if self._relay is not None:
            self._relay.close()
        for fd in self._kept:
            os.close(fd)
        self._kept = []


class Console:
    """A terminal: the guest has its slave side, the shim pumps between the master side and the FIFOs."""

    def __init__(self, loop: Loop, stdin: str, stdout: str) -> None:
        self._loop = loop
        self._master, slave = os.openpty()
        self.guest = [slave, os.dup(slave), os.dup(slave)]
        self._input = self._output = -1
        self._to_guest = bytearray()
        self._to_client = bytearray()
        self._done: Callable[[], None] | None = None
        self._ended = False
        try:
            os.set_blocking(self._master, False)
            if stdin:
                self._input = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                # Not ready before a client has written, or has come and gone.
                loop.watch(self._input, self._client_ready)
            self._output = _open_output(stdout)
            os.set_blocking(self._output, False)
        except OSError:
            self.close()
            raise
        loop.watch(self._master, self._master_ready)

    def handed_over(self) -> None:
        """Close what the worker has got."""
        for fd in self.guest:
            os.close(fd)
        self.guest = []

    def resize(self, width: int, height: int) -> None:
        """Set the size in characters."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def say(self, text: str) -> None:
        """Write a line to the terminal."""
        self._to_client += text.encode() + b"\r\n"
        self._write_client()

    def close_stdin(self) -> None:
        """CloseIO: no input will come."""
        if self._input >= 0 and self._loop.watches(self._input):
            self._client_ready(0)
            self._end_input()

    def _client_ready(self, _: int) -> None:
        try:
            data = os.read(self._input, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end_input()
            return
        self._to_guest += data
        self._write_master()

    def _end_input(self) -> None:
        if self._loop.watches(self._input):
            self._loop.unwatch(self._input)
            # The end of input, as a terminal says it.
            self._to_guest += b"\x04"
            self._write_master()

    def _write_master(self) -> None:
        try:
            while self._to_guest:
                del self._to_guest[: os.write(self._master, self._to_guest[:4096])]
        except BlockingIOError:
            pass
        except OSError:
            self._to_guest.clear()
        self._update()

    def _master_ready(self, events: int) -> None:
        if events & WRITE:
            self._write_master()
        if events & ~WRITE and not self._to_client:
            try:
                data = os.read(self._master, _CHUNK)
            except BlockingIOError:
                return
            except OSError:  # EIO: no process has the slave side any more
                data = b""
            if not data:
                self._end()
                return
            self._to_client += data
            self._write_client()

    def _write_client(self, _: int = 0) -> None:
        try:
            while self._to_client:
                del self._to_client[: os.write(self._output, self._to_client)]
        except BlockingIOError:
            if not self._loop.watches(self._output):
                with contextlib.suppress(OSError):
                    self._loop.watch(self._output, self._write_client, WRITE)
            self._update()
            return
        except OSError:
            self._to_client.clear()
        self._loop.unwatch(self._output)
        self._update()
        if self._ended and self._done is not None:
            self._finished()

    def _update(self) -> None:
        """Read from the terminal only when the client has taken what came before."""
        if self._loop.watches(self._master):
            self._loop.want(self._master, (0 if self._to_client else READ) | (WRITE if self._to_guest else 0))

    def _end(self) -> None:
        self._ended = True
        self._loop.unwatch(self._master)
        if not self._to_client and self._done is not None:
            self._finished()

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when everything that the guest printed has left."""
        self._done = done
        self._loop.after(_DRAIN_S, self._finished)
        if self._ended and not self._to_client:
            self._finished()

    def _finished(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.close()
            done()

    def close(self) -> None:
        """Close everything."""
        self.handed_over()
        for fd in (self._master, self._input, self._output):
            if fd >= 0:
                self._loop.unwatch(fd)
                os.close(fd)
        self._master = self._input = self._output = -1
