"""The binding's standard streams: what the guest takes them for, and how its writes reach the host."""

from __future__ import annotations

import pytest

from tests.engines.test_native_crate import FIXTURES

# Leaves with: file type by fd_fdstat_get of stream 1, plus 16 times that by fd_filestat_get.
TELL = """
(module
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_get" (func $filestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $fdstat (i32.const 1) (i32.const 100)))
    (drop (call $filestat (i32.const 1) (i32.const 200)))
    (call $exit (i32.add (i32.load8_u (i32.const 100)) (i32.mul (i32.const 16) (i32.load8_u (i32.const 216)))))))
"""
CHARACTER_DEVICE, REGULAR_FILE, SOCKET_STREAM, UNKNOWN = 2, 4, 6, 0


@pytest.mark.parametrize(
    ("stream", "filetype"),
    [
        ("os.openpty()[1]", CHARACTER_DEVICE),
        ("os.open('file', os.O_WRONLY | os.O_CREAT)", REGULAR_FILE),
        ("socket.socketpair()[0].detach()", SOCKET_STREAM),
        ("os.pipe()[1]", UNKNOWN),
        # A character device, but no terminal: nobody reads it line by line.
        ("os.open('/dev/null', os.O_WRONLY)", UNKNOWN),
        ("None", UNKNOWN),
        ("(lambda data: None)", UNKNOWN),
    ],
)
def test_only_a_terminal_is_a_character_device(script, wat, stream, filetype):
    code = f"import socket\nanswer(module(sys.argv[2]).instantiate(['m'], stdout={stream}).run())"
    assert script(code, wat(TELL)) == filetype * 17


PARTS = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "one") (data (i32.const 8) "two")
  (data (i32.const 16)
    "\\00\\00\\00\\00\\03\\00\\00\\00" "\\00\\00\\00\\00\\00\\00\\00\\00" "\\08\\00\\00\\00\\03\\00\\00\\00"
    "\\00\\00\\01\\00{length}\\00" "\\00\\00\\00\\00\\03\\00\\00\\00")
  (func (export "_start")
    (call $exit (call $write (i32.const {fd}) (i32.const 16) (i32.const 5) (i32.const 100)))
    (call $exit (i32.const 99))))
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_write_of_the_guest_is_one_write_of_the_host(script, wat, stream):
    text = PARTS.replace("{length}", "\\04\\00\\00").replace("{fd}", {"stdout": "1", "stderr": "2"}[stream])
    code = """
import socket
# A datagram socket keeps writes apart.
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
got, compiled = [], module(sys.argv[2])
codes = [compiled.instantiate(["m"], **{sys.argv[3]: target}).run() for target in (theirs.fileno(), got.append)]
answer([codes, ours.recv(100).decode(), [one.decode() for one in got]])
"""
    expected = "onetwo\0\0\0\0one"
    assert script(code, wat(text), stream) == [[0, 0], expected, [expected]]


@pytest.mark.parametrize("length", [0x10000, 0x20000])
def test_large_parts_keep_their_order(script, wat, length):
    text = PARTS.replace("{length}", f"\\00\\00\\{length >> 16:02x}").replace("{fd}", "1")
    code = """
with open("out", "wb") as target:
    code = module(sys.argv[2]).instantiate(["m"], stdout=target.fileno()).run()
with open("out", "rb") as source:
    got = source.read()
answer([code, len(got), got[:6].decode(), got[-3:].decode()])
"""
    assert script(code, wat(text)) == [0, length + 9, "onetwo", "one"]


def test_a_slow_reader_loses_nothing(script):
    code = """
read, write = os.pipe()
os.set_blocking(write, False)
got = bytearray()
def slowly():
    while part := os.read(read, 1000):
        got.extend(part)
reader = threading.Thread(target=slowly)
reader.start()
instance = module(sys.argv[2]).instantiate(["spam", "3000"], stdout=write)
code = instance.run()
del instance
os.close(write)
reader.join(30)
answer([code, bytes(got).decode().splitlines()])
"""
    ended, lines = script(code, FIXTURES / "spam.wasm")
    assert ended == 0
    assert [line.split()[:2] for line in lines] == [["line", str(number)] for number in range(3000)]


def test_a_write_that_fails_is_told_once_and_to_whom_it_failed(script, wat):
    code = """
import errno, signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
read, write = os.pipe()
os.close(read)
compiled = module(sys.argv[2])
full = os.open("/dev/full", os.O_WRONLY)
answer([compiled.instantiate(["m"], stdout=target).run() for target in (write, full)])
"""
    wasi_pipe, wasi_io = 64, 29  # wasmer-wasix knows no word for a full disk
    for length in ("\\04\\00\\00", "\\00\\00\\01"):
        text = PARTS.replace("{length}", length).replace("{fd}", "1")
        assert script(code, wat(text)) == [wasi_pipe, wasi_io]
