"""Child processes that are waited for, watched, and never left behind.

A `Child` runs in a process group of its own and writes to a log file. Starting it means waiting for a readiness
predicate with a deadline; if the child ends first, the error carries its exit code and the last lines it wrote.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wasmlab.errors import PrerequisiteError, ProcessError

_PR_SET_PDEATHSIG = 1
# Loaded here and not in the child: between fork and exec only async-signal-safe work may be done.
_LIBC = ctypes.CDLL(None, use_errno=True)


def free_ports(count: int) -> list[int]:
    """Return `count` distinct TCP ports that are free on 127.0.0.1 right now.

    The ports are not reserved. Prefer handing over a listening socket or letting the program bind port 0.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_time_ticks(pid: int) -> int | None:
    """Return when `pid` started (clock ticks since boot), or None if there is no such process.

    Together with the pid this identifies a process: pids are reused, the pair is not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and parentheses; fields are counted after the last ")".
    fields = text.rpartition(")")[2].split()
    # A zombie has ended: nothing can be signalled and nothing is held.
    return None if fields[0] == "Z" else int(fields[19])


def tail(path: Path, lines: int = 20, limit_bytes: int = 64 * 1024) -> str:
    """Return the last `lines` lines of a file, reading at most `limit_bytes` from its end."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - limit_bytes))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class Child:
    """A supervised child process.

    Parameters
    ----------
    argv : sequence of str
        The command line.
    log : Path
        Where its stdout and stderr go (appended; created 0600).
    env : mapping, optional
        The whole environment; inherited if None.
    die_with_parent : bool
        Ask the kernel to send SIGTERM when this process ends. True for children of a context manager, False for
        daemons that outlive the command that started them.
    stdout : int, optional
        A file descriptor for stdout in place of the log.
    pass_fds : sequence of int
        Descriptors to leave open in the child.

    Raises
    ------
    PrerequisiteError
        If the program does not exist or may not be executed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        die_with_parent: bool = True,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.argv = tuple(str(word) for word in argv)
        self.log = log
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        parent = os.getpid()

        def prepare() -> None:
            if die_with_parent:
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:  # the parent died before prctl took effect
                    os._exit(1)

        try:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=fd if stdout is None else stdout,
                stderr=fd,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                preexec_fn=prepare if die_with_parent else None,
            )
        except OSError as error:
            raise PrerequisiteError(
                f"cannot start {self.argv[0]}: {error.strerror}", remedy="run `wasmlab doctor`"
            ) from error
        finally:
            os.close(fd)

    @property
    def pid(self) -> int:
        """Process id, which is also its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code (negative: signal), or None while it runs."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.returncode is None

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of its log."""
        return tail(self.log, lines)

    def failure(self, message: str, *, remedy: str | None = None) -> ProcessError:
        """Build the error that says how this child failed."""
        return ProcessError(
            message, argv=self.argv, returncode=self.returncode, log_tail=self.tail(), remedy=remedy
        )

    def wait_ready(
        self, predicate: Callable[[], bool], timeout_s: float, *, what: str = "", interval_s: float = 0.02
    ) -> None:
        """Wait until `predicate()` is true.

        Raises
        ------
        ProcessError
            If the child ends first, or the deadline passes (the child is then stopped).
        """
        name = what or Path(self.argv[0]).name
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if not self.alive:
                raise self.failure(f"{name} ended before it was ready")
            if time.monotonic() >= deadline:
                self.stop()
                raise self.failure(
                    f"{name} was not ready after {timeout_s:g} s and was stopped",
                    remedy=f"see its whole log in {self.log}; on a busy machine try again",
                )
            time.sleep(interval_s)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code.

        Raises
        ------
        ProcessError
            If it still runs at the deadline.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"{Path(self.argv[0]).name} still runs after {timeout_s:g} s") from None

    def signal(self, number: int) -> None:
        """Send a signal to the child alone; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, grace_s: float = 10.0) -> int:
        """End the child: SIGTERM, then after `grace_s` SIGKILL to its whole process group.

        Returns
        -------
        int
            Its exit code.
        """
        self.signal(signal.SIGTERM)
        try:
            code = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            code = None
        # The group may hold grandchildren even when the leader has ended well.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait(5.0) if code is None else code

    def kill(self) -> None:
        """SIGKILL to the child alone, and reap it: what a crash looks like."""
        self._process.kill()
        self._process.wait(5.0)
