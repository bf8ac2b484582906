from __future__ import annotations

import json

import pytest

from wasmlab.node.endpoint import streams
from wasmlab.node.endpoint.streaming import arguments_of
from wasmlab.node.endpoint.streams import V4, V4_BASE64, V5, Frame, Streams


@pytest.mark.parametrize("protocol", streams.PROTOCOLS)
@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256))])
def test_what_is_written_can_be_read(protocol: str, data: bytes) -> None:
    assert streams.decode(protocol, streams.encode(protocol, streams.STDERR, data)) == Frame(2, data)


def test_messages_as_kubernetes_writes_them() -> None:
    assert streams.decode(V5, b"\x00ls\n") == Frame(streams.STDIN, b"ls\n")
    assert streams.decode(V5, b"\xff\x00") == Frame(streams.STDIN, end=True)
    assert streams.decode(V4, b"\xff\x00") == Frame(255, b"\x00")  # v4 has no such message
    assert streams.decode(V4_BASE64, "0Zm9vCgo=") == Frame(streams.STDIN, b"foo\n\n")
    assert streams.encode(V4_BASE64, 1, b"\n") == "1Cg=="


@pytest.mark.parametrize("message", [b"", "", "0not base64!", "\N{SNOWMAN}"])
def test_nonsense_means_nothing(message: bytes | str) -> None:
    assert streams.decode(V4_BASE64, message) in (None, Frame(ord("?") - ord("0")))
    assert streams.decode(V5, b"\xff") is None
    assert streams.decode(V5, b"\xff\x00\x00") is None


def test_what_a_client_asks_for() -> None:
    assert Streams.of({"input": "1", "output": "1", "error": "1"}) == Streams(True, True, True, False)
    assert Streams.of({"output": "1", "error": "1", "tty": "1"}) == Streams(False, True, False, True)
    assert Streams.of({"output": "true"}) == Streams(False, True, False, False)
    with pytest.raises(ValueError, match="at least 1"):
        Streams.of({"tty": "1", "input": "0"})


def test_the_last_word() -> None:
    assert json.loads(streams.exited(0)) == {"metadata": {}, "status": "Success"}
    assert json.loads(streams.exited(7)) == {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 7",
        "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
    }
    assert json.loads(streams.failure("no"))["code"] == 500


def test_the_words_after_the_dashes() -> None:
    assert arguments_of([], "hello") == []
    assert arguments_of(["a", "b.wasm"], "hello") == ["a", "b.wasm"]
    for own in ("hello.wasm", "/hello.wasm", "./bin/hello.wasm"):
        assert arguments_of([own, "a"], "hello") == ["a"]
    assert arguments_of(["hello.wasm"], "hello.wasm") == []
    assert arguments_of(["hello.wasm", "other.wasm"], "hello") == ["other.wasm"]
    with pytest.raises(ValueError, match=r"sh\.wasm: this container is the module hello"):
        arguments_of(["/bin/sh.wasm", "-c"], "hello")
