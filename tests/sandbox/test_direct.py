"""One run with no zygote."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from wasmlab.errors import SandboxError
from wasmlab.sandbox.direct import run_once


def test_refuses_to_fork_a_process_with_threads(spec, cache):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(SandboxError, match="threads"):
            run_once("wasmtime", spec("exit", "0"), cache=cache)
    finally:
        stop.set()
        thread.join()


def test_outcome_has_the_import_as_a_phase(engine, cache, helpers):
    code = """
import sys
from pathlib import Path
from wasmlab.engines import CompileCache
from wasmlab.sandbox.direct import module_spec, run_once
engine, cache, module = sys.argv[1:]
outcome = run_once(engine, module_spec(Path(module), ("exit", "9")), cache=CompileCache(Path(cache)))
print(outcome.exit_code, *sorted(span.phase for span in outcome.spans))
"""
    argv = [sys.executable, "-c", code, engine, str(cache.root), str(helpers.fixtures / "exit.wasm")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    exit_code, *phases = done.stdout.split()
    assert exit_code == "9"
    assert {"import", "spawn", "load", "run", "teardown", "reaped"} <= set(phases)
