"""What the adapters say of themselves, and whether it is true."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.adapters import ADAPTERS, chosen
from wasmlab import engines
from wasmlab.engines import CompileCache, base, native_binding
from wasmlab.errors import InvalidModule, PrerequisiteError, Unsupported
from wasmlab.sandbox import AsyncSandbox, Preopen, RunSpec, Sandbox


@pytest.fixture(params=ADAPTERS)
def engine(request):
    with chosen(request.param) as name:
        yield engines.get(name)


def test_names_and_get():
    assert engines.names() == ("wasmtime", "wasmer")
    assert engines.get("wasmtime") is engines.get("wasmtime")
    assert set(engines.variants()) > {"wasmtime", "wasmtime-winch", "wasmer-singlepass"}
    with pytest.raises(Unsupported, match="v8"):
        engines.get("v8")


@pytest.mark.parametrize(
    ("wish", "version"),
    [("sdk", "sdk "), ("native", "native (cranelift)"), ("native-singlepass", "native (singlepass)")],
)
def test_the_environment_chooses_what_wasmer_is(monkeypatch, wish, version):
    if wish != "sdk" and native_binding.find() is None:
        pytest.skip("the native wasmer binding is not built: make native")
    monkeypatch.setenv(native_binding.OVERRIDE, wish)
    made = engines.get.__wrapped__("wasmer")
    assert version in made.version
    assert made.name == "wasmer"
    # It has no say in what an engine is that is called by its full name.
    assert "sdk" in engines.get.__wrapped__("wasmer-sdk").version


def test_version_is_known_without_importing(engine):
    code = f"""
import sys
from wasmlab import engines
print(engines.get({engine.name!r}).version)
heavy = ("wasmtime", "wasmer_sdk", "wasmer_native", "importlib.metadata", "tomllib")
assert not [name for name in sys.modules if name in heavy]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    from importlib.metadata import version

    expected = {
        "wasmtime": lambda: version("wasmtime"),
        "wasmtime-runner": lambda: f"{version('wasmtime')} (runner)",
        "wasmtime-winch": lambda: f"{version('wasmtime')} (winch)",
        "wasmer-sdk": lambda: f"sdk {version('wasmer-sdk')}",
        "wasmer-native": lambda: f"{native_binding.wasmer_version()} native (cranelift)",
        "wasmer-singlepass": lambda: f"{native_binding.wasmer_version()} native (singlepass)",
    }
    assert done.stdout.strip() == expected[engine.name]()


def test_missing_package_has_a_remedy():
    with pytest.raises(PrerequisiteError, match="no-such-engine") as caught:
        base.package_version("no-such-engine")
    assert "pip install" in caught.value.remedy


def test_every_lack_has_its_reason(engine):
    for name, reason in engine.capabilities.lacks().items():
        assert reason != "not supported", name


def test_validate(engine):
    engine.validate((Path(__file__).resolve().parents[2] / "data/wasm/hello.wasm").read_bytes())
    with pytest.raises(InvalidModule):
        engine.validate(b"\0asm\x01\0\0\0\xff")


def test_check_refuses_what_is_not_supported(engine):
    spec = RunSpec("m", "d", ("m",), preopens=(Preopen("/tmp", "/tmp"),))
    if engine.capabilities.directories:
        engine.check(spec)
    else:
        with pytest.raises(Unsupported) as caught:
            engine.check(spec)
        assert caught.value.capability == "directories"


def test_import_starts_no_thread(engine, tmp_path):
    code = """
import os, sys
from pathlib import Path
from wasmlab import engines
engines.get(sys.argv[1]).prepare(Path(sys.argv[2]))
print(len(os.listdir("/proc/self/task")))
"""
    argv = [sys.executable, "-c", code, engine.name, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "1"


COMMAND = """
(component
  (core module $m (func (export "run") (result i32) {body}))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
"""


@pytest.mark.parametrize(
    ("body", "code", "trap"),
    [("i32.const 0", 0, None), ("i32.const 1", 1, None), ("unreachable", None, "unreachable")],
)
def test_component_runs_on_wasmtime(tmp_path, body, code, trap):
    import wasmtime

    path = tmp_path / "c.wasm"
    path.write_bytes(wasmtime.wat2wasm(COMMAND.format(body=body)))
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    spec = RunSpec(str(path), digest, ("c",))
    with Sandbox("wasmtime", cache=CompileCache(tmp_path / "cache"), workers=1) as sandbox:
        for cold in (False, True):
            outcome = sandbox.run(spec, cold=cold)
            assert (outcome.exit_code, outcome.trap) == (code, trap), outcome.message


async def test_component_prints_to_descriptors_and_to_logs(tmp_path):
    import wasmtime

    path = tmp_path / "c.wasm"
    path.write_bytes(wasmtime.wat2wasm(Path(__file__).with_name("component_hello.wat").read_text()))
    spec = RunSpec(str(path), "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(), ("c",))
    cache = CompileCache(tmp_path / "cache")
    sandbox = await AsyncSandbox.connect("wasmtime", tmp_path / "z", cache=cache)
    try:
        outcome = await (await sandbox.start("one", spec, log_path=tmp_path / "log")).wait()
        assert outcome.exit_code == 0, outcome.message
        assert (tmp_path / "log").read_text().endswith(" stdout F component says hello\n")
        captured = await asyncio.to_thread(Sandbox("wasmtime", cache=cache, dir=tmp_path / "z").run, spec)
        assert captured.stdout == b"component says hello\n"
    finally:
        await sandbox.shutdown()


def test_component_is_refused_by_wasmer(tmp_path):
    import wasmtime

    path = tmp_path / "c.wasm"
    path.write_bytes(wasmtime.wat2wasm(COMMAND.format(body="i32.const 0")))
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    with (
        Sandbox("wasmer", cache=CompileCache(tmp_path / "cache"), workers=1) as sandbox,
        pytest.raises(Unsupported, match="wasmtime"),
    ):
        sandbox.run(RunSpec(str(path), digest, ("c",)))
