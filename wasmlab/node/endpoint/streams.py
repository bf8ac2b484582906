"""The wire format of exec and attach: channels in WebSocket messages, and the Status that ends them: pure.

A message is a channel number and its bytes. ``v5`` adds the message ``255, channel``: that channel is at its end, which
is how a client closes stdin. ``v4.base64`` is for clients that can only send text.

References
----------
``k8s.io/streaming/pkg/httpstream/wsstream/conn.go``; ``k8s.io/cri-streaming/pkg/streaming/remotecommand``
(``websocket.go``, ``exec.go``: channels, the Status of an exit code, messages).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255
V5, V4, V4_BASE64 = "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
PROTOCOLS = (V5, V4, V4_BASE64)


@dataclass(frozen=True)
class Streams:
    """Which streams a client asks for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Streams:
        """Read the query.

        Raises
        ------
        ValueError
            None is asked for.
        """
        stdin, stdout, stderr, tty = (
            query.get(k) in ("1", "true") for k in ("input", "output", "error", "tty")
        )
        if not (stdin or stdout or stderr):
            raise ValueError("you must specify at least 1 of stdin, stdout, stderr")
        return cls(stdin, stdout, stderr and not tty, tty)  # a terminal has one output


@dataclass(frozen=True)
class Frame:
    """What a client sent: bytes for a channel, or its end."""

    channel: int
    data: bytes = b""
    end: bool = False


def decode(protocol: str, message: bytes | str) -> Frame | None:
    """Read a client's message; None for one that means nothing."""
    raw = message.encode("latin-1", "replace") if isinstance(message, str) else message
    if not raw:
        return None
    if protocol == V4_BASE64:
        try:
            return Frame(raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True))
        except (binascii.Error, ValueError):
            return None
    if protocol == V5 and raw[0] == _CLOSE:
        return Frame(raw[1], end=True) if len(raw) == 2 else None
    return Frame(raw[0], raw[1:])


def encode(protocol: str, channel: int, data: bytes) -> bytes | str:
    """Write a message to a client: text for the base64 protocol, else bytes."""
    if protocol == V4_BASE64:
        return f"{channel}{base64.b64encode(data).decode()}"
    return bytes((channel,)) + data


def success() -> bytes:
    """The Status that says it went well."""
    return _dumps({"metadata": {}, "status": "Success"})


def exited(code: int) -> bytes:
    """The Status of a command that ended with an exit code."""
    if code == 0:
        return success()
    return _dumps(
        {
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def failure(message: str, *, code: int = 500, reason: str = "InternalError") -> bytes:
    """The Status of what could not be done; clients print the message."""
    return _dumps({"metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code})


def _dumps(status: Json) -> bytes:
    return json.dumps(status, separators=(",", ":")).encode()
