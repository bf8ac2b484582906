"""A worker: a forked process that waits, runs one guest, reports, and ends.

Everything slow was done before the fork (imports) or while it waited (`Engine.warm`). Between the request and the
guest's first instruction there is only what depends on the request.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.engines.base import GuestResult, result_json
from wasmlab.engines.spec import RunSpec, Span
from wasmlab.engines.stdio import Stdio
from wasmlab.errors import Unsupported, WasmlabError
from wasmlab.sandbox import confinement, limits
from wasmlab.sandbox.protocol import close_all, pack, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from wasmlab.engines.base import Engine

# The exit code of a worker that failed by itself; only looked at when there is no result.
FAILED = 70
_MESSAGE_LIMIT = 8192
_CONTROL_FD = 3


def serve(engine: Engine, control: socket.socket, parent: int, *, rehearse: bool = True) -> NoReturn:
    """Be a worker: wait for one request on `control`, run it, send the result, end the process.

    `rehearse` is for workers that will be idle; one that is waited for has no time to rehearse.
    """
    code = FAILED
    try:
        fd = (
            os.dup2(control.fileno(), _CONTROL_FD, inheritable=False)
            if control.fileno() != _CONTROL_FD
            else 3
        )
        limits.confine(parent, fd, f"wasm-{engine.name}".encode())
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
        engine.warm()
        if rehearse:
            rehearsal(engine)
        send(control, b'{"ready":true}')
        request, fds = receive(control)
        if request is not None:
            result = run(engine, request, fds)
            send(control, pack(result))
        code = 0
    except BaseException as error:
        print(f"worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        # No interpreter teardown: it takes milliseconds, and wasmer's threads abort in it.
        os._exit(code)


def rehearsal(engine: Engine, *, framed: bool = True) -> None:
    """Take a request from a socket and run a module that does nothing, by the very path that the guest will take.

    `framed` if that will write into a log: what is not needed then (wasmtime starts threads for it) is left alone.

    A forked process copies each page that it writes to first, Python writes to nearly every page it looks at, and
    engines start things lazily: that is 2 ms (wasmer: 15 ms) which an idle worker has, and a guest does not.
    """
    if engine.noop is None:
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    spec = RunSpec("noop", "", ("noop",), env=(("A", "b"),))
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"spec": spec.to_json(), "artifact": str(engine.noop), "t0": 0, "framed": framed}
    send(here, pack(request), (null, null) if framed else (null, null, null))
    received, fds = receive(there)
    if received is not None:
        send(there, pack(run(engine, received, fds)))
    here.close()
    there.close()
    os.close(null)


def run(
    engine: Engine,
    request: dict[str, Any],
    fds: list[int],
    *,
    before_guest: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Run what `request` says on `fds` (stdin, stdout and stderr, or stdin and a framed pipe); return the result.

    Every failure is a result. The descriptors are closed at the end.
    """
    received = time.monotonic_ns()
    spec = RunSpec.from_json(request["spec"])
    framed = bool(request.get("framed"))
    stdin, stdout, *rest = fds
    stdio = Stdio(stdin, stdout, rest[0] if rest else stdout, framed)
    try:
        # An engine that takes host directories runs the guest in this thread; the other one (the SDK) in its own.
        spec = confinement.apply(spec, guest_here=engine.capabilities.directories)
        result = engine.run(
            Path(request["artifact"]), spec, stdio, cold=bool(request.get("cold")), before_guest=before_guest
        )
    except Unsupported as error:
        result = GuestResult(None, "unsupported", str(error))
    except WasmlabError as error:
        result = GuestResult(None, "failed", str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        result = GuestResult(None, "failed", f"the worker failed: {error.strerror}{where}")
    except Exception as error:
        result = GuestResult(None, "failed", f"the worker failed: {type(error).__name__}: {error}")
    answer = result_json(result)
    answer["message"] = answer["message"][:_MESSAGE_LIMIT]
    close_all(fds)
    # Handing over lasts until the engine begins, so that the phases touch.
    begun = result.spans[0].start_ns if result.spans else received
    answer["spans"].insert(0, list(Span("spawn", int(request["t0"]), begun)))
    return answer
