"""The compile cache: private, keyed, checked, compiled once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.adapters import ADAPTERS, chosen
from wasmlab import engines
from wasmlab.engines import CompileCache, native_binding
from wasmlab.engines import cache as cache_module
from wasmlab.errors import InvalidModule, PrerequisiteError, SandboxError, Unsupported
from wasmlab.sandbox import RunSpec

ROOT = Path(__file__).resolve().parents[2]
HELLO = ROOT / "data/wasm/hello.wasm"
DIGEST = "sha256:" + hashlib.sha256(HELLO.read_bytes()).hexdigest()


@pytest.fixture(params=ADAPTERS)
def engine(request):
    with chosen(request.param) as name:
        yield engines.get(name)


@pytest.fixture
def plain():
    """One engine, for what is the cache's business alone."""
    return engines.get("wasmtime")


@pytest.fixture
def cache(tmp_path):
    return CompileCache(tmp_path / "compiled")


def compiled_files(cache: CompileCache) -> dict[str, int]:
    return {
        str(path.relative_to(cache.root)): path.stat().st_mtime_ns
        for path in cache.root.rglob("*")
        if path.is_file() and "locks" not in path.parts
    }


def code_files(cache: CompileCache) -> dict[str, int]:
    """The records' times tell when they were last used."""
    return {name: stamp for name, stamp in compiled_files(cache).items() if not name.endswith(".json")}


def native(cache: CompileCache) -> Path:
    """The file with native code."""
    (path,) = [path for path in cache.root.rglob("*") if path.suffix in (".cwasm", ".wasmu", ".bin")]
    return path


def test_compiles_once_and_is_private(cache, engine):
    first = cache.artifact(engine, HELLO)
    before = code_files(cache)
    assert cache.artifact(engine, HELLO.read_bytes(), DIGEST) == first
    assert CompileCache(cache.root).artifact(engine, str(HELLO), DIGEST) == first
    assert code_files(cache) == before
    assert cache.root.stat().st_mode & 0o777 == 0o700
    for folder, _, files in os.walk(cache.root):
        for name in files:
            assert Path(folder, name).stat().st_mode & 0o077 == 0


def test_peek_never_compiles(cache, engine):
    spec = RunSpec(str(HELLO), DIGEST, ("hello",))
    assert cache.peek(engine, spec) is None
    assert compiled_files(cache) == {}
    made = cache.artifact(engine, HELLO, DIGEST, spec=spec)
    assert cache.peek(engine, spec) == made


def test_keys_tell_apart_what_must_be_told_apart(cache, monkeypatch):
    wasmtime, wasmer = (engines.get(name) for name in ("wasmtime", "wasmer"))
    keys = {cache.key(wasmtime, DIGEST), cache.key(wasmer, DIGEST), cache.key(wasmtime, "sha256:" + "0" * 64)}
    keys.add(cache.key(wasmer, DIGEST, "memory=1"))
    monkeypatch.setattr(wasmtime, "version", "51.0")
    keys.add(cache.key(wasmtime, DIGEST))
    monkeypatch.undo()
    monkeypatch.setattr(wasmtime, "settings", lambda: {"opt_level": "none"})
    keys.add(cache.key(wasmtime, DIGEST))
    monkeypatch.undo()
    monkeypatch.setattr(cache_module, "_cpu", lambda: "another machine")
    keys.add(cache.key(wasmtime, DIGEST))
    assert len(keys) == 7


def test_every_compiler_has_keys_of_its_own(cache):
    names = [
        name
        for name in ADAPTERS
        if name == "wasmer-sdk" or not name.startswith("wasmer") or native_binding.find()
    ]
    made = [engines.get(name) for name in names]
    spec = RunSpec(str(HELLO), DIGEST, ("h",), fuel=5)
    keys = [cache.key(one, DIGEST) for one in made]
    keys += [cache.key(one, DIGEST, one.variant(spec)) for one in made if one.capabilities.fuel]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("adapter", "same"), [("wasmtime", True), ("wasmer-sdk", False), ("wasmer-native", True)]
)
def test_memory_limit_is_part_of_the_sdks_code_only(cache, adapter, same):
    small, large = (RunSpec(str(HELLO), DIGEST, ("h",), memory_bytes=size << 20) for size in (32, 64))
    with chosen(adapter) as name:
        pair = [cache.artifact(engines.get(name), HELLO, DIGEST, spec=spec) for spec in (small, large)]
    assert (pair[0] == pair[1]) is same


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_damaged_entry_is_noticed_and_rebuilt(cache, engine, damage):
    artifact = cache.artifact(engine, HELLO, DIGEST)
    path = native(cache)
    content = path.read_bytes()
    if damage == "truncate":
        os.truncate(path, len(content) // 2)
    elif damage == "empty":
        os.truncate(path, 0)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    for user in (cache, CompileCache(cache.root)):  # one that knows the entry, one that does not
        assert user.artifact(engine, HELLO, DIGEST) == artifact
        assert native(cache).stat().st_size == len(content)
        checksum = json.loads((cache.root / f"{cache.key(engine, DIGEST)}.json").read_text())["files"]
        name = str(path.relative_to(cache.root))
        assert hashlib.sha256(native(cache).read_bytes()).hexdigest() == checksum[name][1]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"artifact": 3}', b"[]", b'{"artifact": "x", "files": {"x": 1}}']
)
def test_damaged_record_is_rebuilt(cache, plain, content):
    artifact = cache.artifact(plain, HELLO, DIGEST)
    (cache.root / f"{cache.key(plain, DIGEST)}.json").write_bytes(content)
    assert CompileCache(cache.root).artifact(plain, HELLO, DIGEST) == artifact


def test_twenty_processes_compile_once(tmp_path, plain):
    code = """
import sys, hashlib
from pathlib import Path
from wasmlab import engines
from wasmlab.engines import CompileCache, cache
real, count = cache._in_child, Path(sys.argv[2])
def counted(*args):
    with count.open("a") as stream:
        stream.write("x")
    return real(*args)
cache._in_child = counted
print(CompileCache(Path(sys.argv[1])).artifact(engines.get(sys.argv[3]), Path(sys.argv[4])))
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "c"), str(tmp_path / "n"), plain.name, str(HELLO)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    answers = {child.communicate(timeout=100)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(answers) == 1
    assert (tmp_path / "n").read_text() == "x"
    assert not list((tmp_path / "c").glob(".new-*"))


@pytest.mark.parametrize(
    "content", [b"", b"(module)", b"\0asm", HELLO.read_bytes()[:2000], b"\x7fELF" + b"\0" * 100]
)
def test_bad_modules_leave_nothing(cache, engine, content):
    with pytest.raises(InvalidModule) as caught:
        cache.artifact(engine, content)
    assert caught.value.remedy
    assert compiled_files(cache) == {}


def test_component_is_compiled_or_refused(cache, engine):
    component = b"\0asm\x0d\0\x01\0"
    if engine.capabilities.components:
        assert cache.artifact(engine, component).exists()
    else:
        with pytest.raises(Unsupported, match="component"):
            cache.artifact(engine, component)


def test_missing_file_is_named(cache, plain, tmp_path):
    with pytest.raises(InvalidModule, match="nothing-here"):
        cache.artifact(plain, tmp_path / "nothing-here.wasm")


def test_compiler_that_dies_is_told(cache, monkeypatch):
    engine = engines.get("wasmtime")
    monkeypatch.setattr(cache_module.sys, "executable", "/bin/false")
    with pytest.raises(SandboxError, match="compiler child"):
        cache.artifact(engine, HELLO, DIGEST)
    monkeypatch.undo()
    assert cache.artifact(engine, HELLO, DIGEST).exists()


def test_compiling_has_a_deadline(cache):
    with pytest.raises(SandboxError, match="longer than"):
        cache.artifact(engines.get("wasmtime"), HELLO, DIGEST, timeout_s=0.01)
    assert compiled_files(cache) == {}


def test_unwritable_cache_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PrerequisiteError):
        CompileCache(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_told_and_leaves_nothing(tmp_path, plain):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12k,mode=0700", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        cache = CompileCache(small)
        with pytest.raises(PrerequisiteError, match="space") as caught:
            cache.artifact(plain, HELLO, DIGEST)
        assert caught.value.remedy
        assert compiled_files(cache) == {}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_size_and_prune(cache, plain):
    other = (ROOT / "data/wasm/fixtures/exit.wasm").read_bytes()
    cache.artifact(plain, HELLO, DIGEST)
    time.sleep(0.02)
    kept = cache.artifact(plain, other)
    total = cache.size()
    assert total > 0
    record = json.loads(
        (cache.root / f"{cache.key(plain, 'sha256:' + hashlib.sha256(other).hexdigest())}.json").read_text()
    )
    keep_bytes = sum(size for size, *_ in record["files"].values()) + 2000
    freed = cache.prune(keep_bytes)
    assert freed > 0
    assert kept.exists()
    assert cache.prune() > 0
    assert cache.size() == 0
    assert cache.artifact(plain, HELLO, DIGEST).exists()


def test_compiling_does_not_run_the_guest(cache, engine, tmp_path):
    # It would never come back.
    loop = (ROOT / "data/wasm/fixtures/loop.wasm").read_bytes()
    assert cache.artifact(engine, loop, timeout_s=60).exists()
    assert replace(RunSpec("m", "d", ()), deadline_s=1.0).deadline_s == 1.0


def test_the_compile_child_finds_what_its_caller_found(tmp_path, monkeypatch):
    """A zygote clears its environment after it has chosen its engines, and compiles later."""
    with chosen("wasmer-sdk") as name:
        engine = engines.get(name)
        cache = CompileCache(tmp_path / "compiled")
        with monkeypatch.context() as patch:
            for variable in list(os.environ):
                patch.delenv(variable)
            artifact = cache.artifact(engine, HELLO)
        assert artifact.suffix == ".wasm"


def test_code_of_another_binding_is_refused(cache, monkeypatch):
    with chosen("wasmer-sdk") as name:
        engine = engines.get(name)
        monkeypatch.setattr(engine, "version", "sdk 0.0.1")
        with pytest.raises(PrerequisiteError, match=r"its caller uses sdk 0\.0\.1"):
            cache.artifact(engine, HELLO)
    assert code_files(cache) == {}
