"""Fixtures for the native binding by itself: guests run in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wasmlab.engines import native_binding

PRELUDE = """
import importlib.util, json, os, sys, threading, time
spec = importlib.util.spec_from_file_location("wasmer_native", sys.argv[1])
w = importlib.util.module_from_spec(spec)
spec.loader.exec_module(w)
engine = w.Engine()

def module(path):
    with open(path, "rb") as stream:
        return engine.compile(stream.read())

def run(path, *args, **options):
    out = []
    options.setdefault("stdout", lambda data: out.append(data))
    options.setdefault("stderr", options["stdout"])
    code = module(path).instantiate([path, *args], **options).run()
    return code, b"".join(out).decode()

def error(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, getattr(error, "kind", getattr(error, "code", None)), str(error)]

def answer(value):
    print(json.dumps(value))
"""


@pytest.fixture(scope="session")
def library():
    found = native_binding.find()
    if found is None:
        pytest.skip("the native wasmer binding is not built: make native")
    return found


@pytest.fixture
def script(library, tmp_path):
    """Run Python code with the binding loaded as `w`; return what it answered."""

    def run(code: str, *args: object) -> object:
        file = tmp_path / "script.py"
        file.write_text(PRELUDE + code)
        argv = [sys.executable, "-I", str(file), str(library), *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def wat(tmp_path):
    def make(text: str) -> Path:
        import wasmtime

        path = tmp_path / f"m{len(list(tmp_path.iterdir()))}.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        return path

    return make
