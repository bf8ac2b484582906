"""Workers of engine ``wasmtime-runner``: who is asked to fork them, and what they are told.

The `Template` is a child of the zygote. It has loaded the engine's library and nothing else, forks workers whose parent
is the zygote, and never runs a guest: ``engines/runner.c``. What such a worker does not know (`encode` says what it
does) goes to one that is forked from the zygote, and so does everything while there is no template.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.sandbox.protocol import send

if TYPE_CHECKING:
    from wasmlab.sandbox.loop import Loop

_ANSWER_S = 10.0
_AGAIN_S = 1.0
_MAX_REQUEST = 40 * 1024
_KEPT_MODULES = 7
_NO_SCORE = -1 << 20

# What a worker of this kind understands of a RunSpec; a key that is not here must be None, False or empty.
_KNOWN = frozenset(
    {"module", "digest", "argv", "env", "preopens", "memory_bytes", "deadline_s", "cgroups", "oom_score_adj"}
)
_COMPONENT = ".component.cwasm"


def encode(message: dict[str, Any]) -> bytes | None:
    """Return a request as ``runner.c`` reads it; None if it asks for something that is not known there.

    Parameters
    ----------
    message : dict
        The client's request.
    """
    spec = message["spec"]
    artifact = message["artifact"]
    if message.get("cold") or artifact.endswith(_COMPONENT):
        return None
    for name, value in spec.items():
        # Not `in (None, False, ...)`: a limit of 0 is a limit.
        if name not in _KNOWN and value is not None and value is not False and value != []:
            return None
    if any(len(one) != 4 for one in spec["preopens"]):
        return None
    memory, score = spec["memory_bytes"], spec.get("oom_score_adj")
    env, cgroups = spec["env"], spec.get("cgroups") or ()
    parts = [
        struct.pack(
            "=qqqq",
            int(message["t0"]),
            -1 if memory is None else memory,
            _NO_SCORE if score is None else score,
            bool(message.get("log_path")),
        ),
        _texts((artifact,), counted=False),
        _texts(spec["argv"]),
        _texts([name for name, _ in env]),
        _texts([value for _, value in env]),
        _texts(cgroups),
        struct.pack("=q", len(spec["preopens"])),
    ]
    for host, guest, read_only, root in spec["preopens"]:
        below = os.path.relpath(host, root) if root else ""
        parts.append(_texts((host, guest, root, below), counted=False) + struct.pack("=q", bool(read_only)))
    raw = b"".join(parts)
    return raw if len(raw) <= _MAX_REQUEST else None


def _texts(texts: Any, *, counted: bool = True) -> bytes:
    # As Python's own binding has it: a text ends at its first zero.
    raw = b"".join(text.partition("\0")[0].encode() + b"\0" for text in texts)
    return struct.pack("=q", len(texts)) + raw if counted else raw


def translate(result: dict[str, Any]) -> None:
    """Replace the engine's number of a trap in a worker's result by its name."""
    trap = result.get("trap")
    if isinstance(trap, int):
        import wasmtime

        try:
            result["trap"] = wasmtime.TrapCode(trap).name.lower()
        except ValueError:
            result["trap"] = "trap"


class Template:
    """The process that forks the workers.

    Parameters
    ----------
    argv : list of str
        The program, and its arguments about the engine.
    noop : Path
        A compiled module that does nothing.
    marks : list of str
        What its workers are called, and more words for its command line, by which processes of this sandbox are
        recognized.
    on_change : callable
        Called when it has become usable, or unusable.
    say : callable
        Writes a line to the zygote's log.

    Attributes
    ----------
    usable : bool
        Whether it has said that it is ready, and lives.
    """

    def __init__(
        self,
        argv: list[str],
        noop: Path,
        marks: list[str],
        loop: Loop,
        on_change: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.usable = False
        self._argv, self._noop, self._marks = argv, noop, marks
        self._loop = loop
        self._on_change = on_change
        self._say = say
        self._control: socket.socket | None = None
        self._pid = 0
        self._kept: set[str] = set()
        self._closing = False

    def start(self) -> None:
        """Start it; the loop hears when it can be used."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()
        program, *engine = self._argv
        argv = [program, str(fd), str(os.getpid()), *engine, str(self._noop), *self._marks]
        try:
            # Not through `subprocess`, whose objects reap what is the zygote's to reap; posix_spawn does not fork.
            os.set_inheritable(fd, True)
            self._pid = os.posix_spawn(program, argv, {}, setsigdef=[signal.SIGINT, signal.SIGTERM])
        except OSError as error:
            ours.close()
            self._say(f"cannot start {program}: {error.strerror}")
            return
        finally:
            theirs.close()
        self._control = ours
        self._kept = set()
        ours.settimeout(_ANSWER_S)
        self._loop.watch(ours.fileno(), lambda _: self._heard())

    def fork(self, sock: socket.socket, rehearse: bool) -> int:
        """Have a worker forked that listens on `sock`, and return its process id.

        Raises
        ------
        OSError
            If it cannot be forked; the template may be gone then.
        """
        control = self._control
        if control is None:
            raise ConnectionResetError("there is no template")
        try:
            send(control, b"R" if rehearse else b"F", (sock.fileno(),))
            answer = control.recv(16)
        except OSError as error:
            self._lost(f"does not answer: {error}")
            raise
        if len(answer) != 4:
            self._lost("ended")
            raise ConnectionResetError("the template ended")
        (pid,) = struct.unpack("=i", answer)
        if pid <= 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def keep(self, artifact: str) -> None:
        """Have a module, which has been run without harm, loaded before the fork from now on."""
        if artifact in self._kept or len(self._kept) >= _KEPT_MODULES or self._control is None:
            return
        self._kept.add(artifact)
        with contextlib.suppress(OSError):
            send(self._control, b"M" + os.fsencode(artifact))

    def close(self) -> None:
        """End it; its workers are the zygote's."""
        self._closing = True
        if self._control is not None:
            self._lost("")

    def _heard(self) -> None:
        """It is ready, or it has ended: else it only answers."""
        assert self._control is not None
        try:
            answer = self._control.recv(16)
        except OSError as error:
            self._lost(f"does not start: {error}")
            return
        if answer == b"ready":
            self.usable = True
            self._on_change()
        else:
            self._lost("ended")

    def _lost(self, reason: str) -> None:
        control, self._control = self._control, None
        assert control is not None
        self._loop.unwatch(control.fileno())
        control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        was_usable, self.usable = self.usable, False
        if self._closing:
            return
        self._say(f"the template {reason}; workers are forked from the zygote")
        self._on_change()
        # One that never worked will not work the next time either.
        if was_usable:
            self._loop.after(_AGAIN_S, self._again)

    def _again(self) -> None:
        if not self._closing and self._control is None:
            self.start()


def bury_strangers(known: set[int]) -> None:
    """Reap children that nobody knows: workers whose template was killed before it could tell of them."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        for pid in {int(word) for word in text.split()} - known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
