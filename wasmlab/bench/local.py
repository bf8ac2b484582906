"""Path "local": a module in the sandbox, with no cluster around it.

What the modes mean here
------------------------
======  ===================================  ==============================================  =======================
mode    compiled code                        processes                                       the clock starts
======  ===================================  ==============================================  =======================
cold    none: an empty compile cache         none: a new zygote starts an interpreter,       before the sandbox is
                                             imports the engine, forks a worker; a compile   created
                                             child does the same and compiles
cached  in the compile cache                 none: a new zygote, as above; nothing is        before the sandbox is
                                             compiled                                        created
warm    in the compile cache, its pages in   a running zygote with an idle worker that was   before the request is
        memory                               forked beforehand                               sent
======  ===================================  ==============================================  =======================

In every mode the guest runs in a process of its own that has never run another guest. The clock stops when the first
byte of its output arrives (``first_byte_ns``) and when its outcome is known (``total_ns``). What lies between is told
by the processes themselves, in the phases of `wasmlab.bench.phases`; what starting a process costs is seen from
outside: ``process_ns`` is the time until the new zygote has an idle worker, less its import and bind; ``child_ns`` the
time until the compile child begins to read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.bench.phases import as_spans, durations
from wasmlab.bench.plan import Arm
from wasmlab.errors import SandboxError, Unsupported
from wasmlab.modules import workloads
from wasmlab.process import start_time_ticks

if TYPE_CHECKING:
    from wasmlab.engines import CompileCache, Engine
    from wasmlab.engines.spec import RunSpec
    from wasmlab.sandbox import Sandbox

DEADLINE_S = 120.0


class LocalExecutor:
    """Runs workloads in sandboxes; a context manager that leaves no process and no file behind.

    Parameters
    ----------
    cache : CompileCache, optional
        For the modes ``cached`` and ``warm``; the user's own by default.
    """

    def __init__(self, cache: CompileCache | None = None) -> None:
        self._cache = cache
        self._warm: dict[str, Sandbox] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LocalExecutor:
        from wasmlab.engines import CompileCache

        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wasmlab-bench-")))
        self._cache = self._cache or CompileCache()
        return self

    def __exit__(self, *_: object) -> None:
        self._warm.clear()
        self._stack.close()

    def run(self, arm: Arm) -> dict[str, Any]:
        """Carry out one run; see `wasmlab.bench.runner.Executor`."""
        from wasmlab import engines

        engine = engines.get(arm.engine)
        work = workloads.get(arm.workload)
        if refused := refusal(arm.engine, work):
            raise Unsupported(refused, remedy="leave it out on this engine")
        with self._spec(work) as spec:
            return self._run(arm, engine, work, spec)

    def _run(self, arm: Arm, engine: Engine, work: workloads.Workload, spec: RunSpec) -> dict[str, Any]:
        row = {"engine_version": engine.version, "module_digest": work.digest}
        if arm.mode == "warm":
            sandbox = self._warm_sandbox(arm.engine)
            assert self._cache is not None
            # Compiling belongs to the preparation, also where the sandbox would do it by itself.
            self._cache.artifact(engine, spec.module, spec.digest, spec=spec)
            wait_idle(sandbox)
            asked = time.monotonic_ns()
            return row | _finish(sandbox, spec, work, asked, {})
        cache = self._empty_cache() if arm.mode == "cold" else self._cache
        assert cache is not None
        if arm.mode == "cached":
            cache.artifact(engine, spec.module, spec.digest, spec=spec)
        extra: dict[str, int] = {}
        asked = time.monotonic_ns()
        with self._sandbox(arm.engine, cache) as sandbox:
            wait_idle(sandbox)
            ready = time.monotonic_ns()
            extra |= durations(as_spans(sandbox.stats()["prepared"]))
            extra["process_ns"] = ready - asked - sum(extra.values())
            if arm.mode == "cold":
                cache.artifact(engine, spec.module, spec.digest, spec=spec)
                extra |= durations(as_spans(cache.compiled))
            return row | _finish(sandbox, spec, work, asked, extra)

    @contextlib.contextmanager
    def _spec(self, work: workloads.Workload) -> Iterator[RunSpec]:
        """Yield what is to be run; a directory that it writes to is fresh, and gone afterwards."""
        from wasmlab.engines.spec import Preopen, RunSpec

        with contextlib.ExitStack() as stack:
            preopens: tuple[Preopen, ...] = ()
            if work.scratch:
                host = stack.enter_context(tempfile.TemporaryDirectory(dir=self._scratch, prefix="data-"))
                preopens = (Preopen(host, work.scratch),)
            yield RunSpec(str(work.path), work.digest, work.argv, preopens=preopens, deadline_s=DEADLINE_S)

    def _empty_cache(self) -> CompileCache:
        from wasmlab.engines import CompileCache

        return CompileCache(Path(tempfile.mkdtemp(dir=self._scratch, prefix="cache-")))

    @contextlib.contextmanager
    def _sandbox(self, engine: str, cache: CompileCache) -> Iterator[Sandbox]:
        from wasmlab.sandbox import Sandbox

        directory = Path(tempfile.mkdtemp(dir=self._scratch, prefix=f"{engine}-"))
        with Sandbox(engine, dir=directory, workers=1, cache=cache) as sandbox:
            pid = sandbox.stats()["pid"]
            started = start_time_ticks(pid)
            try:
                yield sandbox
            finally:
                # Ended by signal and not by request: waiting for init to reap it, too, can take a second on some
                # machines, and there are hundreds of these.
                if start_time_ticks(pid) == started:
                    os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + 10.0
                while start_time_ticks(pid) == started and time.monotonic() < deadline:
                    time.sleep(0.002)

    def _warm_sandbox(self, engine: str) -> Sandbox:
        if engine not in self._warm:
            assert self._cache is not None
            self._warm[engine] = self._stack.enter_context(self._sandbox(engine, self._cache))
        return self._warm[engine]


def refusal(engine: str, work: workloads.Workload) -> str:
    """Say why an engine, as it is installed here, cannot run a workload; empty if it can."""
    from wasmlab import engines

    known = engines.get(engine)
    for need in work.needs:
        if not getattr(known.capabilities, need):
            why = known.capabilities.notes.get(need, "not supported")
            return f"{engine} {known.version} cannot run {work.name}: {why}"
    return ""


def feasible(arms: Iterable[Arm]) -> tuple[tuple[Arm, ...], list[str]]:
    """Leave out the local arms that an engine cannot run here; return the others, and why some were left out."""
    kept, why = [], []
    for arm in arms:
        refused = refusal(arm.engine, workloads.get(arm.workload)) if arm.path == "local" else ""
        if refused:
            why.append(refused)
        else:
            kept.append(arm)
    return tuple(kept), list(dict.fromkeys(why))


def wait_idle(sandbox: Sandbox, timeout_s: float = 60.0) -> None:
    """Wait until a worker is ready and waiting.

    Raises
    ------
    SandboxError
        If none is at the deadline.
    """
    deadline = time.monotonic() + timeout_s
    while not sandbox.stats()["idle"]:
        if time.monotonic() > deadline:
            raise SandboxError(
                f"no worker was ready after {timeout_s:g} s", remedy="try again on a less busy machine"
            )
        time.sleep(0.0005)


def _finish(
    sandbox: Sandbox, spec: RunSpec, work: workloads.Workload, asked_ns: int, extra: dict[str, int]
) -> dict[str, Any]:
    outcome = sandbox.run(spec, stdin=work.stdin or None)
    total = time.monotonic_ns() - asked_ns
    spans = as_spans(outcome.spans)
    row: dict[str, Any] = durations(spans) | extra
    row["total_ns"] = total
    row["exit_code"] = outcome.exit_code
    first = [span.end_ns for span in spans if span.phase == "first_byte"]
    row["first_byte_ns"] = first[0] - asked_ns if first else None
    if outcome.trap is not None:
        row["error"] = f"{outcome.trap}: {outcome.message}"
    else:
        row["error"] = work.check(outcome.stdout, outcome.exit_code)
    row["ok"] = row["error"] is None
    return row
