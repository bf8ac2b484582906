"""Compiled code for a module, without keeping the shim from answering: a State call may wait two seconds at most."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.engines.cache import CompileCache
from wasmlab.errors import WasmlabError

if TYPE_CHECKING:
    from wasmlab.engines.base import Engine
    from wasmlab.engines.spec import RunSpec
    from wasmlab.sandbox.loop import Loop

Then = Callable[["RunSpec", Path | str], None]
"""Called with the spec (its digest filled in) and the artifact, or with the reason why there is none."""


class Preparer:
    """Looks into the compile cache at once; compiles in a child."""

    def __init__(self, loop: Loop, cache: CompileCache) -> None:
        self._loop = loop
        self._cache = cache

    def artifact(self, engine: Engine, wasm: bytes, spec: RunSpec, then: Then) -> None:
        """Find or make the artifact for `wasm`; `then` is called now (cached) or later.

        Raises
        ------
        WasmlabError
            If the engine does not do what `spec` asks for.
        """
        digest = "sha256:" + hashlib.sha256(wasm).hexdigest()
        spec = dataclasses.replace(spec, digest=digest)
        engine.check(spec)
        found = self._cache.peek(engine, spec)
        if found is not None:
            then(spec, found)
            return
        self._in_child(engine, wasm, spec, then)

    def _in_child(self, engine: Engine, wasm: bytes, spec: RunSpec, then: Then) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            answer: dict[str, str]
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.closerange(3, write)
                os.closerange(write + 1, 1 << 16)
                answer = {"artifact": str(self._cache.artifact(engine, wasm, spec.digest, spec=spec))}
            except WasmlabError as error:
                answer = {"error": error.message + (f" (try: {error.remedy})" if error.remedy else "")}
            except BaseException as error:
                answer = {"error": f"compiling failed: {type(error).__name__}: {error}"}
            with contextlib.suppress(OSError):
                os.write(write, json.dumps(answer).encode()[:32768])
            os._exit(0)
        os.close(write)
        self._loop.watch(read, lambda _: self._done(read, pid, spec, then))

    def _done(self, read: int, pid: int, spec: RunSpec, then: Then) -> None:
        raw = os.read(read, 65536)
        self._loop.unwatch(read)
        os.close(read)
        os.waitpid(pid, 0)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {"error": "the compiler ended without an answer"}
        then(spec, Path(answer["artifact"]) if "artifact" in answer else str(answer["error"]))
