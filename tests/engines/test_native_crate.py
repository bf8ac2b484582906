"""The binding by itself, as somebody without the lab would use it. Guests run in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wasmlab.engines import native_binding

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "data" / "wasm" / "fixtures"


def test_versions(script):
    assert script("answer([w.__version__, w.WASMER_VERSION])") == [
        native_binding.version(),
        native_binding.wasmer_version(),
    ]


def test_import_and_engines_start_no_thread(script):
    assert script("w.Engine(None); w.Engine('singlepass'); answer(len(os.listdir('/proc/self/task')))") == 1


@pytest.mark.parametrize("compiler", ["cranelift", "singlepass"])
def test_compile_serialize_load_run(script, compiler):
    code, out, imports = script(
        """
with open(sys.argv[2], "rb") as stream:
    made = w.Engine(sys.argv[3]).compile(stream.read())
with open("hello.bin", "wb") as stream:
    stream.write(made.serialize())
out = []
bare = w.Engine(None)
for loaded in (bare.deserialize_file("hello.bin"), bare.deserialize_file("hello.bin", unchecked=True),
               bare.deserialize(made.serialize())):
    code = loaded.instantiate(["hello", "a"], stdout=out.append, stderr=out.append).run()
answer([code, b"".join(out).decode(), loaded.imports])
""",
        ROOT / "data/wasm/hello.wasm",
        compiler,
    )
    assert code == 0
    assert out == 'hello from stdout!\nhello from stderr!\nArgs are: ["a"]\n' * 3
    assert "wasi_snapshot_preview1.fd_write" in imports


def test_what_is_not_a_module_is_refused(script):
    found = script("""
answer([error(lambda: engine.compile(b"")), error(lambda: engine.compile(b"(module)")),
        error(lambda: engine.validate(b"\\0asm\\1\\0\\0\\0\\xff")), error(lambda: w.Engine(None).compile(b"\\0asm")),
        error(lambda: w.Engine("v8")), error(lambda: engine.deserialize(b"nonsense" * 100)),
        error(lambda: engine.deserialize_file("/nonexistent"))])
""")
    assert [one[0] for one in found] == [
        "CompileError", "CompileError", "CompileError", "WasmerError", "ValueError", "DeserializeError",
        "FileNotFoundError",
    ]  # fmt: skip


def test_compiled_code_that_is_cut_off_is_refused(script):
    cut = """
code = module(sys.argv[2]).serialize()
answer([error(lambda: engine.deserialize(code[:length]))[0] for length in (0, 10, 100, len(code) // 2, len(code) - 1)])
"""
    assert set(script(cut, ROOT / "data/wasm/hello.wasm")) == {"DeserializeError"}


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 3), (126, 126), (255, 255), (300, 44), (-1, 255)])
def test_exit_codes(script, wat, code, expected):
    path = wat(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $x (param i32))) (memory (export "memory") 1)'
        f'(func (export "_start") (call $x (i32.const {code}))))'
    )
    assert script("answer(run(sys.argv[2]))", path) == [expected, ""]


def test_start_section_that_traps_or_calls_the_host(script, wat):
    traps = wat(
        '(module (memory (export "memory") 1) (func $s unreachable) (start $s) (func (export "_start")))'
    )
    calls = wat(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $x (param i32))) (memory (export "memory") 1)'
        '(func $s (call $x (i32.const 7))) (start $s) (func (export "_start")))'
    )
    found = script("answer([error(lambda: run(path)) for path in sys.argv[2:]])", traps, calls)
    assert found[0][:2] == ["Trap", "unreachable"]
    # wasmer-wasix knows the guest's memory only after the start section, and panics: an error, not the end of us.
    assert found[1][0] == "WasmerError"
    assert "panicked" in found[1][2]


def test_leaving_in_the_initialization(script, wat):
    path = wat(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $x (param i32))) (memory (export "memory") 1)'
        '(func (export "_initialize") (call $x (i32.const 7))) (func (export "_start")))'
    )
    assert script("answer(error(lambda: run(sys.argv[2])))", path)[:2] == ["Exit", 7]


def test_an_instance_runs_once(script):
    found = script(
        "one = module(sys.argv[2]).instantiate(['h']); one.run(); answer(error(one.run))",
        ROOT / "data/wasm/hello.wasm",
    )
    assert found[0] == "WasmerError"


@pytest.mark.parametrize(
    ("guest", "arguments"), [("loop", []), ("sleep", ["60"]), ("cat", [])], ids=["loop", "sleep", "stdin"]
)
def test_interrupt_ends_it_while_other_threads_run(script, guest, arguments):
    found = script(
        """
read, write = os.pipe()
instance = module(sys.argv[2]).instantiate(["g", *sys.argv[3:]], stdin=read)
ticks = 0
def later():
    global ticks
    for _ in range(20):
        time.sleep(0.01)
        ticks += 1
    instance.interrupt()
threading.Thread(target=later).start()
begun = time.monotonic()
found = error(instance.run)
answer([found, ticks, time.monotonic() - begun])
""",
        FIXTURES / f"{guest}.wasm",
        *arguments,
    )
    assert found[0][:2] == ["Trap", "interrupted"]
    assert found[1] == 20
    assert found[2] < 10


def test_interrupt_before_the_run(script):
    found = script(
        "one = module(sys.argv[2]).instantiate(['g']); one.interrupt(); answer(error(one.run))",
        FIXTURES / "loop.wasm",
    )
    assert found[:2] == ["Trap", "interrupted"]


def test_guest_that_sleeps_is_woken_in_a_forked_child_too(script):
    # The clock's thread does not survive a fork; neither do a compiler's, so only the parent compiles.
    code = """
compiled = module(sys.argv[2])
def sleep(seconds):
    begun = time.monotonic()
    code = compiled.instantiate(["sleep", seconds]).run()
    return code == 0 and time.monotonic() - begun >= float(seconds)
first = sleep("0.01")
pid = os.fork()
if pid == 0:
    os._exit(0 if sleep("0.05") else 99)
answer([first, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
"""
    assert script(code, FIXTURES / "sleep.wasm") == [True, 0]


def test_memory_limit(script, wat):
    path = wat(
        '(module (memory (export "memory") 2) (func (export "_start")'
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))"
    )
    found = script(
        """
compiled = module(sys.argv[2])
def used(limit):
    instance = compiled.instantiate(["m"], memory_limit_bytes=limit)
    return [error(instance.run)[1], instance.memory_bytes]
answer([used(1 << 20), used(5 * 65536 + 100), error(lambda: used(65536))])
""",
        path,
    )
    assert found[0] == ["unreachable", 1 << 20]
    assert found[1] == ["unreachable", 5 * 65536]
    assert found[2][0] == "MemoryLimitError"


def test_missing_import_and_missing_start(script, wat):
    missing = wat(
        '(module (import "env" "nope" (func)) (memory (export "memory") 1) (func (export "_start")))'
    )
    no_start = wat('(module (memory (export "memory") 1) (func (export "run")))')
    found = script("answer([error(lambda: run(path)) for path in sys.argv[2:]])", missing, no_start)
    assert [one[0] for one in found] == ["LinkError", "LinkError"]
    assert "nope" in found[0][2]
    assert "_start" in found[1][2]


# Tries all that changes a directory, by descriptor 3 (the virtual root), 4 (its listing) and 5 (the directory).
CHANGES = """
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times"
    (func $utimes (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $truncate (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_allocate" (func $allocate (param i32 i64 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "file") (data (i32.const 16) "new") (data (i32.const 32) "empty") (data (i32.const 48) "made")
  (data (i32.const 64) "d/file") (data (i32.const 80) "d/new")
  (data (i32.const 96) "\\00\\00\\00\\00\\04\\00\\00\\00")
  (global $all i64 (i64.const 0x1fffffff))
  (func $try (param $fd i32) (param $name i32) (param $length i32) (param $flags i32) (param $fdflags i32)
    (i32.store (i32.const 200) (i32.const -1))
    (drop (call $open (local.get $fd) (i32.const 1) (local.get $name) (local.get $length) (local.get $flags)
      (global.get $all) (global.get $all) (local.get $fdflags) (i32.const 200)))
    (if (i32.ne (i32.load (i32.const 200)) (i32.const -1)) (then
      (drop (call $write (i32.load (i32.const 200)) (i32.const 96) (i32.const 1) (i32.const 204)))
      (drop (call $truncate (i32.load (i32.const 200)) (i64.const 0)))
      (drop (call $allocate (i32.load (i32.const 200)) (i64.const 0) (i64.const 100000))))))
  (func $all_flags (param $fd i32) (param $name i32) (param $length i32)
    (local $flags i32)
    (loop $next
      (call $try (local.get $fd) (local.get $name) (local.get $length) (local.get $flags) (i32.const 0))
      (call $try (local.get $fd) (local.get $name) (local.get $length) (local.get $flags) (i32.const 1))
      (local.set $flags (i32.add (local.get $flags) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $flags) (i32.const 16)))))
  (func $attack (param $fd i32)
    (call $all_flags (local.get $fd) (i32.const 0) (i32.const 4))
    (call $all_flags (local.get $fd) (i32.const 16) (i32.const 3))
    (call $all_flags (local.get $fd) (i32.const 64) (i32.const 6))
    (call $all_flags (local.get $fd) (i32.const 80) (i32.const 5))
    (drop (call $mkdir (local.get $fd) (i32.const 48) (i32.const 4)))
    (drop (call $rmdir (local.get $fd) (i32.const 32) (i32.const 5)))
    (drop (call $rename (local.get $fd) (i32.const 0) (i32.const 4) (local.get $fd) (i32.const 48) (i32.const 4)))
    (drop (call $symlink (i32.const 0) (i32.const 4) (local.get $fd) (i32.const 48) (i32.const 4)))
    (drop (call $link (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 4) (local.get $fd) (i32.const 48)
      (i32.const 4)))
    (drop (call $utimes (local.get $fd) (i32.const 1) (i32.const 0) (i32.const 4) (i64.const 1) (i64.const 1)
      (i32.const 5)))
    (drop (call $unlink (local.get $fd) (i32.const 0) (i32.const 4))))
  (func (export "_start")
    (call $attack (i32.const 3)) (call $attack (i32.const 4)) (call $attack (i32.const 5))))
"""


def state(folder: Path) -> dict[str, object]:
    """Return all there is to see in a directory: names, kinds, contents, times of change."""
    found: dict[str, object] = {".": folder.stat().st_mtime_ns}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime_ns, info.st_size, content)
    return found


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "shared"
    (made / "empty").mkdir(parents=True)
    (made / "file").write_text("content")
    return made


def test_read_only_directory_cannot_be_changed_in_any_way(script, wat, folder):
    path = wat(CHANGES)
    before = state(folder)
    assert script("answer(run(sys.argv[2], preopens=[(sys.argv[3], '/d', True)]))", path, folder) == [0, ""]
    assert state(folder) == before
    # The same guest with leave to write: it does change things, so the test above means something.
    assert script("answer(run(sys.argv[2], preopens=[(sys.argv[3], '/d', False)]))", path, folder) == [0, ""]
    after = state(folder)
    assert {"new", "made"} <= set(after)


@pytest.mark.parametrize("guest", ["/d", "d", "/", "."])
def test_directories_by_any_name(script, folder, guest):
    shown = {"/d": "/d", "d": "d", "/": "/", ".": "."}[guest]
    code, out = script(
        "answer(run(sys.argv[2], sys.argv[4], preopens=[(sys.argv[3], sys.argv[5], True)]))",
        FIXTURES / "readdir.wasm", folder, shown, guest,
    )  # fmt: skip
    assert code == 0, out
    assert "file" in out
    assert "empty" in out


def test_links_do_not_lead_out(script, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "absolute").symlink_to(tmp_path / "secret")
    (folder / "upwards").symlink_to("../secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "inside").symlink_to("file")
    code = """
results = []
for name in ("absolute", "upwards", "outside/secret", "../secret", "inside/../../secret", "inside"):
    results.append(run(sys.argv[2], "/d/" + name, preopens=[(sys.argv[3], "/d", False)]))
answer(results)
"""
    *others, inside = script(code, FIXTURES / "readfile.wasm", folder)
    for result in others:
        assert result[0] != 0, result
        assert "secret" not in result[1].partition(":")[2], result
    assert inside == [0, "content"]


def test_directory_that_is_not_there(script):
    found = script("answer(error(lambda: run(sys.argv[2], preopens=[('/nonexistent', '/d', True)])))",
                   ROOT / "data/wasm/hello.wasm")  # fmt: skip
    assert found[0] == "FileNotFoundError"
    assert "/nonexistent" in found[2]


def test_streams_by_descriptor(script, tmp_path):
    (tmp_path / "in").write_bytes(os.urandom(300_000))
    code = """
compiled = module(sys.argv[2])
with open("in", "rb") as source, open("out", "wb") as target:
    instance = compiled.instantiate(["cat"], stdin=source.fileno(), stdout=target.fileno())
answer(instance.run())
"""
    assert script(code, FIXTURES / "cat.wasm") == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_stdin_that_comes_slowly(script):
    code = """
read, write = os.pipe()
def feed():
    for piece in (b"one ", b"two ", b"three"):
        time.sleep(0.05)
        os.write(write, piece)
    os.close(write)
threading.Thread(target=feed).start()
answer(run(sys.argv[2], stdin=read))
"""
    assert script(code, FIXTURES / "cat.wasm") == [0, "one two three"]


def test_callable_that_fails_is_an_error_of_the_guest_only(script):
    code = """
sys.unraisablehook = lambda _: None
def bad(data):
    raise RuntimeError("no")
compiled = module(sys.argv[2])
answer([compiled.instantiate(["h"], stdout=bad).run(), error(lambda: compiled.instantiate(["h"], stdout=999))])
"""
    ended, refused = script(code, ROOT / "data/wasm/hello.wasm")
    assert isinstance(ended, int)
    assert refused[0] == "OSError"


def test_nul_in_arguments_is_refused(script):
    found = script("answer(error(lambda: run(sys.argv[2], 'a\\0b')))", ROOT / "data/wasm/hello.wasm")
    assert found[0] == "ValueError"


@pytest.mark.parametrize("seconds", ["0", "0.01"])
def test_a_sleep_of_no_time_ends(script, seconds):
    code, out = script("answer(run(sys.argv[2], sys.argv[3]))", FIXTURES / "sleep.wasm", seconds)
    assert (code, out) == (0, "sleeping\nawake\n")
