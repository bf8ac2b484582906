"""Termination messages: where the file is, what of it is believed, and when the log stands in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.status import termmessage
from wasmlab.node.status.records import Ended
from wasmlab.sandbox import Preopen, RunSpec

WASM = Path(__file__).resolve().parents[3] / "data" / "wasm"


def ended(code: int = 1, message: str = "", reason: str = "Error") -> Ended:
    return Ended(code, reason, message, 1.0, 2.0, "u.c.0")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, ("/dev", "termination-log")),
        ("/data/sub/msg", ("/data/sub", "msg")),
        ("msg", ("/", "msg")),
        ("/a/../b/msg", ("/b", "msg")),
        ("//msg", ("/", "msg")),
    ],
)
def test_place(path: str | None, expected: tuple[str, str]) -> None:
    container = {} if path is None else {"terminationMessagePath": path}
    assert termmessage.place(container) == expected


def test_only_a_module_that_could_open_a_file_is_given_a_place() -> None:
    for name, opens in (("hello", False), ("fixtures/sleep", False), ("fixtures/writefile", True)):
        assert termmessage.opens_files(str(WASM / f"{name}.wasm"), name) is opens
    assert termmessage.opens_files("/nowhere.wasm", "sha256:nowhere") is False


def test_the_place_is_a_private_directory_unless_a_volume_is_there(tmp_path: Path) -> None:
    spec = RunSpec("m.wasm", "d", ("m",))
    given = termmessage.with_place(spec, {}, tmp_path / "message")
    assert given.preopens == (Preopen(str(tmp_path / "message"), "/dev"),)
    assert (tmp_path / "message").stat().st_mode & 0o777 == 0o700
    assert termmessage.host_directory(given, {}) == tmp_path / "message"

    mounted = RunSpec("m.wasm", "d", ("m",), preopens=(Preopen("/vol", "/v/"),))
    container = {"terminationMessagePath": "/v/msg"}
    assert termmessage.with_place(mounted, container, tmp_path / "other") is mounted
    assert termmessage.host_directory(mounted, container) == Path("/vol")
    assert not (tmp_path / "other").exists()
    assert termmessage.host_directory(spec, {}) is None


def test_the_end_of_a_long_message_counts(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"a" * 5000 + b"end")
    text = termmessage.read(tmp_path, "m")
    assert len(text) == 4096
    assert text.endswith("aend")
    assert termmessage.read(tmp_path, "none") == ""


def test_nothing_that_a_module_put_there_is_followed_or_waited_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "dir", "fifo"):
        text = termmessage.read(tmp_path, name)
        assert text.startswith("Error on reading termination log"), name
        assert "secret" not in text


def log(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"2026-11-24T09:00:00.000000000Z stdout F {line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("container", "end", "expected"),
    [
        ({}, ended(1), ""),
        ({"terminationMessagePolicy": "FallbackToLogsOnError"}, ended(1), "one\ntwo\n"),
        ({"terminationMessagePolicy": "FallbackToLogsOnError"}, ended(1, "trap"), "trap: one\ntwo\n"),
        ({"terminationMessagePolicy": "FallbackToLogsOnError"}, ended(0), ""),
        ({"terminationMessagePolicy": "FallbackToLogsOnError"}, ended(128, "no", "StartError"), "no"),
    ],
)
def test_the_log_stands_in_on_an_error(
    tmp_path: Path, container: dict[str, Any], end: Ended, expected: str
) -> None:
    path = log(tmp_path / "c.0.log", "one", "two")
    assert termmessage.complete(end, container, None, path).message == expected


def test_a_message_of_its_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "termination-log").write_text("mine")
    container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    path = log(tmp_path / "c.0.log", "one")
    assert termmessage.complete(ended(0), container, tmp_path, path).message == "mine"
    assert termmessage.complete(ended(1, "trap"), container, tmp_path, path).message == "trap: mine"


def test_of_a_long_log_the_last_80_lines_and_2048_bytes(tmp_path: Path) -> None:
    short = log(tmp_path / "short.log", *(str(i) for i in range(500)))
    assert termmessage.last_of_log(short).splitlines() == [str(i) for i in range(420, 500)]
    long = log(tmp_path / "long.log", *("x" * 99 for _ in range(100)))
    assert len(termmessage.last_of_log(long)) == 2048
    assert "Error on reading termination message from logs" in termmessage.last_of_log(tmp_path / "no.log")
