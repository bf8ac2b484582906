"""One suite, both engines: what a guest sees and how its end is told."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from wasmlab.errors import InvalidModule, SandboxError, Unsupported
from wasmlab.sandbox import Preopen, Sandbox

MIB = 1 << 20


def test_hello_prints_to_both_streams(sandbox, spec):
    outcome = sandbox.run(spec("hello", "a", "b c"))
    assert outcome.exit_code == 0
    assert outcome.trap is None
    assert outcome.ok
    assert outcome.stdout == b'hello from stdout!\nArgs are: ["a", "b c"]\n'
    assert outcome.stderr == b"hello from stderr!\n"


def test_environment_is_exactly_what_was_given(sandbox, spec):
    os.environ["WASMLAB_TEST_SECRET"] = "x"
    try:
        outcome = sandbox.run(spec("env", "one", "", "ü", env=(("A", "b c"), ("EMPTY", ""), ("U", "ü"))))
    finally:
        del os.environ["WASMLAB_TEST_SECRET"]
    lines = outcome.stdout.decode().splitlines()
    assert lines[:4] == ["arg 0=env.wasm", "arg 1=one", "arg 2=", "arg 3=ü"]
    assert sorted(line for line in lines if line.startswith("env ")) == ["env A=b c", "env EMPTY=", "env U=ü"]


def test_long_environment_travels(sandbox, spec):
    value = "v" * 300_000  # longer than a packet
    outcome = sandbox.run(spec("env", env=(("LONG", value),)))
    assert f"env LONG={value}".encode() in outcome.stdout


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 134, 137, 143, 254, 255])
def test_exit_codes_arrive_as_given(sandbox, spec, code):
    outcome = sandbox.run(spec("exit", str(code)))
    assert (outcome.exit_code, outcome.trap, outcome.message) == (code, None, "")


def test_exit_code_beyond_a_byte_is_reduced_and_said(sandbox, spec, wat):
    module = wat(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $x (param i32))) (memory (export "memory") 1)'
        '(func (export "_start") (call $x (i32.const 300))))'
    )
    outcome = sandbox.run(spec(module))
    assert outcome.exit_code == 44
    assert outcome.trap is None


@pytest.mark.parametrize("size", [0, 6, 200_000])
def test_stdin_bytes_reach_the_guest(sandbox, spec, size):
    content = os.urandom(size)
    outcome = sandbox.run(spec("cat"), stdin=content)
    assert outcome.exit_code == 0
    assert outcome.stdout == content


def test_no_stdin_is_end_of_file(sandbox, spec):
    assert sandbox.run(spec("cat", deadline_s=20.0)).exit_code == 0


def test_stdin_and_stdout_stream_while_the_guest_runs(sandbox, spec):
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    result = []
    thread = threading.Thread(
        target=lambda: result.append(
            sandbox.run(spec("cat", deadline_s=30.0), stdin=in_read, stdout=out_write)
        )
    )
    thread.start()
    try:
        for text in (b"first", b"second"):
            os.write(in_write, text)
            assert os.read(out_read, 100) == text  # it came back although stdin is still open
    finally:
        os.close(in_write)
        thread.join(30)
    assert result[0].exit_code == 0
    for fd in (in_read, out_read, out_write):
        os.close(fd)


def test_output_goes_to_given_descriptors(sandbox, spec, tmp_path):
    target = tmp_path / "out"
    with target.open("wb") as stream:
        outcome = sandbox.run(spec("hello"), stdout=stream.fileno(), stderr=stream.fileno())
    assert outcome.stdout == b""
    assert outcome.stderr == b""
    text = target.read_bytes()
    assert b"hello from stdout!\n" in text
    assert b"hello from stderr!\n" in text


def test_reader_that_goes_away_ends_nothing_but_the_writes(sandbox, spec):
    read, write = os.pipe()
    os.close(read)
    outcome = sandbox.run(spec("spam", "20000", deadline_s=30.0), stdout=write)
    os.close(write)
    assert outcome.trap in (None, "unreachable")  # the guest sees EPIPE, or nothing; it does not hang


def test_much_output_is_captured_whole(sandbox, spec):
    outcome = sandbox.run(spec("spam", "50000"))
    assert outcome.stdout.count(b"\n") == 50000
    assert not outcome.truncated


@pytest.mark.parametrize(
    ("name", "kind"),
    [("trap", "unreachable"), ("stackoverflow", "stack_overflow")],
    ids=["unreachable", "stack"],
)
def test_traps_have_their_reason(sandbox, spec, name, kind):
    outcome = sandbox.run(spec(name))
    assert outcome.exit_code is None
    assert outcome.trap == kind
    assert outcome.message
    assert not outcome.ok


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("(drop (i32.load (i32.const -4)))", "memory_out_of_bounds"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer_division_by_zero"),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "integer_overflow"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "bad_conversion_to_integer"),
        ("(call_indirect (i32.const 0))", "indirect_call_to_null"),
        ("(call_indirect (i32.const 9))", "table_out_of_bounds"),
        ("(call_indirect (i32.const 1))", "bad_signature"),
    ],
)
def test_trap_kinds_are_the_same_on_both_engines(sandbox, spec, wat, body, kind):
    module = wat(
        '(module (memory (export "memory") 1) (table 3 funcref) (func $f (param i32)) (elem (i32.const 1) $f)'
        f'(func (export "_start") {body}))'
    )
    assert sandbox.run(spec(module)).trap == kind


def test_endless_loop_meets_its_deadline(sandbox, spec):
    begun = time.monotonic()
    outcome = sandbox.run(spec("loop", deadline_s=0.3))
    assert outcome.trap == "deadline"
    assert outcome.exit_code is None
    assert "0.3 s" in outcome.message
    assert time.monotonic() - begun >= 0.3


def test_sleeping_guest_meets_its_deadline(sandbox, spec):
    assert sandbox.run(spec("sleep", "30", deadline_s=0.2)).trap == "deadline"


def test_memory_limit_is_exact(sandbox, spec):
    outcome = sandbox.run(spec("eatmem", memory_bytes=64 * MIB))
    assert outcome.exit_code == 0
    grown = int(outcome.stdout.split()[1])
    assert 60 <= grown <= 63  # what the module had at its start counts too
    assert outcome.max_rss_bytes < 256 * MIB


def test_without_limit_it_gets_what_it_asks(sandbox, spec):
    outcome = sandbox.run(spec("eatmem", "200"))
    assert outcome.stdout == b"grown 200 MiB\n"


def test_module_that_needs_more_than_its_limit_to_start_is_out_of_memory(sandbox, spec, wat):
    module = wat('(module (memory (export "memory") 100) (func (export "_start")))')
    outcome = sandbox.run(spec(module, memory_bytes=2 * MIB))
    assert outcome.trap == "out_of_memory"
    assert "limit" in outcome.message or "memory" in outcome.message


def test_guest_that_gives_up_at_its_limit_is_out_of_memory(sandbox, spec, wat):
    # Grows page by page, touches each page, and traps when it gets no more: what abort() in malloc looks like.
    module = wat(
        '(module (memory (export "memory") 1) (func (export "_start") (local $at i32) (loop $more'
        "(local.set $at (memory.grow (i32.const 1)))"
        "(if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))"
        "(i32.store (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1))"
        "(i32.store offset=4096 (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1))"
        + "".join(
            f"(i32.store offset={4096 * page} (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1))"
            for page in range(2, 16)
        )
        + "(br $more))))"
    )
    outcome = sandbox.run(spec(module, memory_bytes=48 * MIB))
    assert outcome.trap == "out_of_memory"
    assert "unreachable" in outcome.message


def test_no_link_leads_out_of_a_directory(sandbox, spec, tmp_path):
    """Another guest may have planted them, where two share a directory; those that stay inside are followed."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("hidden")
    (inside / "note").write_text("shown")
    for name, target in {"link": "note", "dir": "../out", "file": "../out/secret", "loop": "."}.items():
        (inside / name).symlink_to(target)
    (inside / "abs").symlink_to(outside)
    asked = ("cat:/d/link", "cat:/d/dir/secret", "cat:/d/file", "cat:/d/abs/secret")
    outcome = sandbox.run(spec("probe", *asked, preopens=(Preopen(str(inside), "/d", True),)))
    assert outcome.exit_code == 0, outcome
    assert b"cat:/d/link > shown" in outcome.stdout
    assert b"hidden" not in outcome.stdout


def test_read_only_directory(sandbox, spec, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("content\n")
    (tmp_path / "sub" / "b.txt").write_text("below\n")
    shown = (Preopen(str(tmp_path), "/data", read_only=True),)
    assert sandbox.run(spec("readfile", "/data/a.txt", preopens=shown)).stdout == b"content\n"
    assert sandbox.run(spec("readfile", "/data/sub/b.txt", preopens=shown)).stdout == b"below\n"
    assert b"a.txt" in sandbox.run(spec("readdir", "/data", preopens=shown)).stdout
    sandbox.run(spec("writefile", "/data/new.txt", "x", preopens=shown))
    sandbox.run(spec("writefile", "/data/a.txt", "x", preopens=shown))
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "sub"]
    assert (tmp_path / "a.txt").read_text() == "content\n"


def test_writable_directory_works_or_is_refused(sandbox, spec, tmp_path):
    wanted = spec("writefile", "/data/new.txt", "text", preopens=(Preopen(str(tmp_path), "/data"),))
    if sandbox.engine.capabilities.directories:
        assert sandbox.run(wanted).exit_code == 0
        assert (tmp_path / "new.txt").read_text() == "text\n"
    else:
        with pytest.raises(Unsupported, match="wasmtime"):
            sandbox.run(wanted)


def test_nothing_of_the_host_is_visible_without_directories(sandbox, spec):
    outcome = sandbox.run(spec("readfile", "/etc/passwd"))
    assert outcome.exit_code != 0
    assert b"root:" not in outcome.stdout


def test_guest_does_not_escape_its_directory(sandbox, spec, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    shown = (Preopen(str(tmp_path / "in"), "/data", read_only=True),)
    assert b"secret" not in sandbox.run(spec("readfile", "/data/../secret", preopens=shown)).stdout


def test_missing_import_is_a_link_failure(sandbox, spec, wat):
    module = wat(
        '(module (import "env" "nobody_has_this" (func)) (memory (export "memory") 1) (func (export "_start")))'
    )
    outcome = sandbox.run(spec(module))
    assert outcome.trap == "link"
    assert "nobody_has_this" in outcome.message


def test_library_without_start_is_told(sandbox, spec, wat):
    module = wat('(module (memory (export "memory") 1) (func (export "add")))')
    if sandbox.engine.settings().get("binding") == "sdk":  # it refuses to load it
        with pytest.raises(InvalidModule, match="_start"):
            sandbox.run(spec(module))
        return
    outcome = sandbox.run(spec(module))
    assert outcome.trap == "link"
    assert "_start" in outcome.message


@pytest.mark.parametrize("content", [b"", b"\0asm", b"not wasm at all", b"(module)"])
def test_what_is_not_wasm_is_refused(sandbox, spec, tmp_path, content):
    bad = tmp_path / "bad.wasm"
    bad.write_bytes(content)
    with pytest.raises(InvalidModule) as caught:
        sandbox.run(spec(bad))
    assert caught.value.remedy


def test_truncated_module_is_refused(sandbox, spec, tmp_path, helpers):
    bad = tmp_path / "cut.wasm"
    bad.write_bytes((helpers.root / "data/wasm/hello.wasm").read_bytes()[:-500])
    with pytest.raises(InvalidModule):
        sandbox.run(spec(bad))


def test_cold_run_compiles_and_leaves_nothing_in_the_cache(sandbox, spec, wat, cache):
    module = wat('(module (memory (export "memory") 1) (func (export "_start")) (func (export "cold")))')
    before = sorted(os.listdir(cache.root))
    outcome = sandbox.run(spec(module), cold=True)
    assert outcome.exit_code == 0
    assert sorted(os.listdir(cache.root)) == before
    if sandbox.engine.capabilities.phases:
        assert {"read", "compile", "load", "instantiate", "run"} <= {span.phase for span in outcome.spans}


def test_spans_are_in_order_and_complete(sandbox, spec):
    outcome = sandbox.run(spec("hello"))
    phases = {span.phase for span in outcome.spans}
    assert {"spawn", "load", "run", "first_byte", "reaped"} <= phases
    assert all(span.start_ns <= span.end_ns for span in outcome.spans)
    ends = [span.end_ns for span in outcome.spans]
    assert ends == sorted(ends)
    assert outcome.started_at <= outcome.finished_at


def test_worker_killed_from_outside_is_told_and_harms_nobody(sandbox, spec, helpers):
    result = []
    thread = threading.Thread(target=lambda: result.append(sandbox.run(spec("sleep", "60"))))
    thread.start()
    helpers.until(lambda: sandbox.stats()["running"])
    (pid,) = sandbox.stats()["running"].values()
    os.kill(pid, 9)
    thread.join(20)
    assert result[0].trap == "killed"
    assert result[0].exit_code is None
    assert "SIGKILL" in result[0].message
    assert sandbox.run(spec("exit", "3")).exit_code == 3


def test_worker_that_crashes_is_told_with_its_signal(sandbox, spec, helpers):
    result = []
    thread = threading.Thread(target=lambda: result.append(sandbox.run(spec("sleep", "60"))))
    thread.start()
    helpers.until(lambda: sandbox.stats()["running"])
    (pid,) = sandbox.stats()["running"].values()
    os.kill(pid, 6)  # not SIGSEGV: engines handle that one, and it would have to come from the guest
    thread.join(20)
    assert result[0].trap == "crash"
    assert "SIGABRT" in result[0].message


def test_many_at_once_none_lost(sandbox, spec):
    outcomes: dict[int, object] = {}
    wanted = {code: spec("exit", str(code)) for code in range(256)}
    numbers = iter(range(200))
    guard = threading.Lock()

    def work() -> None:
        while True:
            with guard:
                number = next(numbers, None)
            if number is None:
                return
            outcomes[number] = sandbox.run(wanted[number]).exit_code

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert outcomes == {number: number for number in range(200)}


def test_workers_are_confined(sandbox, spec, helpers):
    reader, writer = os.pipe()
    guest = spec("ticker", "60000", "2", deadline_s=100.0)  # long enough to be looked at; killed in the end
    thread = threading.Thread(target=lambda: sandbox.run(guest, stdout=writer))
    thread.start()
    # A worker confines itself before its guest runs, not at once when it is forked.
    assert os.read(reader, 4) == b"tick"
    (pid,) = sandbox.stats()["running"].values()
    zygote = sandbox.stats()["pid"]
    assert os.getsid(pid) == pid
    with open(f"/proc/{pid}/limits") as stream:
        limits = {line[:25].strip(): line[26:].split()[:2] for line in stream}
    assert limits["Max core file size"][0] == "0"
    assert int(limits["Max open files"][0]) <= 1024
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "800"
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not any(str(sandbox.dir) in target for target in targets)  # neither the lock nor anybody's log
    assert "WASMLAB_TEST" not in Path(f"/proc/{zygote}/environ").read_text()
    with open(f"/proc/{pid}/status") as stream:
        assert "NoNewPrivs:\t1\n" in stream.read()
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    os.close(reader)
    os.close(writer)


def test_zygote_stays_single_threaded(sandbox):
    assert len(os.listdir(f"/proc/{sandbox.stats()['pid']}/task")) == 1


def test_closed_sandbox_leaves_no_process_and_no_directory(engine, cache, spec, helpers):
    sandbox = Sandbox(engine, cache=cache)
    sandbox.run(spec("exit", "0"))
    zygote = sandbox.stats()["pid"]
    workers = helpers.children(zygote)
    assert workers
    sandbox.close()
    assert not helpers.alive(zygote)
    helpers.until(lambda: not any(helpers.alive(pid) for pid in workers))
    assert not sandbox.dir.exists()
    with pytest.raises(SandboxError):
        sandbox.run(spec("exit", "0"))


def test_host_memory_is_unharmed_by_a_guest_that_eats_it(sandbox, spec):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = sandbox.run(spec("eatmem", memory_bytes=128 * MIB))
    assert outcome.max_rss_bytes < 400 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
