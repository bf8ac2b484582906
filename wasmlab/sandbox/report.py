"""Whether an engine works on this machine, found out by running a module on it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wasmlab import engines
from wasmlab.errors import WasmlabError

# Prints "ok\n" to stdout and returns. The source, in the text format:
#   (module
#     (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
#     (memory (export "memory") 1)
#     (data (i32.const 0) "\10\00\00\00\03\00\00\00")  (data (i32.const 16) "ok\n")
#     (func (export "_start") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
_SAYS_OK = bytes.fromhex(
    "0061736d01000000010c0260047f7f7f7f017f60000002230116776173695f736e617073686f745f7072657669657731"
    "0866645f77726974650000030201010503010001071302066d656d6f72790200065f737461727400010a0f010d004101"
    "41004101410810001a0b0b16020041000b0810000000030000000041100b036f6b0a"
)
_EXPECTED = b"ok\n"
_DEADLINE_S = 30.0


@dataclass(frozen=True)
class EngineReport:
    """What was found about one engine.

    Attributes
    ----------
    name, version : str
        Version is "" if the package is missing.
    works : bool
        A module was compiled and run, and printed what it should.
    reason, remedy : str
        Why it does not work, and what to do.
    lacks : mapping
        Capability -> reason, for those that it does not have.
    notes : mapping
        Capability -> what is special about one that it has.
    """

    name: str
    version: str
    works: bool
    reason: str = ""
    remedy: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def doctor() -> tuple[EngineReport, ...]:
    """Run a module on every engine and report what works here, what not, and why."""
    return tuple(examine(name) for name in engines.pod_names())


def examine(name: str) -> EngineReport:
    """Compile and run a module on the engine called `name`, for real; never raises."""
    try:
        engine = engines.get(name)
    except WasmlabError as error:
        return EngineReport(name, "", False, error.message, error.remedy or "")
    lacks = engine.capabilities.lacks()
    notes = {key: text for key, text in engine.capabilities.notes.items() if key not in lacks}
    version = ""
    try:
        version = engine.version
        reason = _try(name)
        remedy = "run it again, or use another engine" if reason else ""
    except WasmlabError as error:
        reason, remedy = error.message, error.remedy or ""
    except Exception as error:
        # Anything at all is a finding here.
        reason, remedy = f"{type(error).__name__}: {error}", "reinstall the package"
    return EngineReport(name, version, not reason, reason, remedy, lacks, notes)


def _try(name: str) -> str:
    """Return why the trial run was not as it should be; "" if it was."""
    from wasmlab.engines.spec import RunSpec
    from wasmlab.sandbox.client import Sandbox

    with tempfile.TemporaryDirectory(prefix="wasmlab-doctor-") as scratch:
        module = Path(scratch, "ok.wasm")
        module.write_bytes(_SAYS_OK)
        digest = "sha256:" + hashlib.sha256(_SAYS_OK).hexdigest()
        spec = RunSpec(os.fspath(module), digest, ("ok",), memory_bytes=1 << 20, deadline_s=_DEADLINE_S)
        with Sandbox(name, workers=1) as sandbox:
            outcome = sandbox.run(spec)
    if outcome.exit_code != 0:
        return f"a trial run failed: {outcome.trap or outcome.exit_code} {outcome.message}".strip()
    if outcome.stdout != _EXPECTED:
        return f"a trial run printed {outcome.stdout!r} instead of {_EXPECTED!r}"
    return ""
