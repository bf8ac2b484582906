"""The guest's standard streams: containerd's FIFOs handed straight to the guest, or a terminal pumped through them.

Without a terminal the guest writes into containerd's FIFOs itself, so output costs no copy and no wake-up here. How a
FIFO is opened decides who waits for whom:

* stdout, stderr for reading and writing: that never blocks, and the guest lives on (its output waits in the FIFO) while
  containerd is restarted;
* stdin for reading without blocking; the shim keeps a writing end open until CloseIO, else the guest would see the end
  of its input before the client has opened the FIFO.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable

from wasmlab.shim.loop import READ, WRITE, Loop

_CHUNK = 65536


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


class Streams:
    """The descriptors of one process.

    Attributes
    ----------
    guest : list of int
        stdin, stdout, stderr for the worker; closed here once it has them.
    """

    def __init__(self, stdin: str, stdout: str, stderr: str) -> None:
        self.guest: list[int] = []
        self._keep_stdin = -1
        self._keep_stderr = -1
        try:
            if stdin:
                fd = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self.guest.append(fd)
                os.set_blocking(fd, True)
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    self._keep_stdin = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            else:
                self.guest.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self.guest.append(_open_output(stdout))
            self.guest.append(_open_output(stderr))
            # For the reason of an end that the worker could not tell any more.
            self._keep_stderr = os.dup(self.guest[2])
        except OSError:
            self.close()
            raise

    def handed_over(self) -> None:
        """Close what the worker has got."""
        for fd in self.guest:
            os.close(fd)
        self.guest = []

    def close_stdin(self) -> None:
        """CloseIO: when the client's end is closed too, the guest reads the end of its input."""
        if self._keep_stdin >= 0:
            os.close(self._keep_stdin)
            self._keep_stdin = -1

    def say(self, text: str) -> None:
        """Write a line to the guest's stderr, if that is possible without waiting."""
        if self._keep_stderr >= 0:
            with contextlib.suppress(OSError):
                os.set_blocking(self._keep_stderr, False)
                os.write(self._keep_stderr, text.encode() + b"\n")

    def resize(self, width: int, height: int) -> None:
        """Only terminals have a size."""

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when all output has left; here it leaves without us."""
        self.close()
        done()

    def close(self) -> None:
        """Close everything."""
        self.handed_over()
        self.close_stdin()
        if self._keep_stderr >= 0:
            os.close(self._keep_stderr)
            self._keep_stderr = -1


class Console:
    """A terminal: the guest has its slave side, the shim pumps between the master side and the FIFOs."""

    def __init__(self, loop: Loop, stdin: str, stdout: str) -> None:
        self._loop = loop
        self._master, slave = os.openpty()
        self.guest = [slave, os.dup(slave), os.dup(slave)]
        self._input = self._input_keep = self._output = -1
        self._to_guest = bytearray()
        self._to_client = bytearray()
        self._done: Callable[[], None] | None = None
        self._ended = False
        try:
            os.set_blocking(self._master, False)
            if stdin:
                self._input = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._input_keep = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
        """CloseIO: the guest's input ends when the client's has."""
        if self._input_keep >= 0:
            os.close(self._input_keep)
            self._input_keep = -1

    def _client_ready(self, _: int) -> None:
        try:
            data = os.read(self._input, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(self._input)
            # The end of input, as a terminal says it.
            data = b"\x04"
        self._to_guest += data
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
            if not self._loop.watched(self._output):
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
        if self._loop.watched(self._master):
            self._loop.modify(
                self._master, (0 if self._to_client else READ) | (WRITE if self._to_guest else 0)
            )

    def _end(self) -> None:
        self._ended = True
        self._loop.unwatch(self._master)
        if not self._to_client and self._done is not None:
            self._finished()

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when everything that the guest printed has left."""
        self._done = done
        # A client that has gone must not keep the exit from being told.
        self._loop.after(2.0, self._finished)
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
        for fd in (self._master, self._input, self._input_keep, self._output):
            if fd >= 0:
                self._loop.unwatch(fd)
                os.close(fd)
        self._master = self._input = self._input_keep = self._output = -1
