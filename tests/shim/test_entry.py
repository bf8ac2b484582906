"""The command line, in Python and compiled: both say the same to the zygote."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shim.containerd import launcher
from wasmlab.shim import entry, install

COMPILED = launcher()


class Zygote:
    """Stands where the zygote listens; answers and remembers."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.asked: list[list[str]] = []
        self.answer = b"0an answer"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{directory}/zygote.sock")
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock:
                self.asked.append(sock.recv(65536).decode().split("\0"))
                sock.sendall(self.answer)


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    one = Zygote(tmp_path / "z")
    yield one
    one.listener.close()


@pytest.fixture(params=["script", "compiled"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    if request.param == "compiled" and COMPILED is None:
        pytest.skip("no compiler for the launcher here")
    return install.install(tmp_path / "bin", launcher=COMPILED if request.param == "compiled" else None)


def run(program: Path, tmp_path: Path, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(program), *args],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "WASMLAB_SHIM_DIR": f"{tmp_path}/z", "TTRPC_ADDRESS": "/c.ttrpc"},
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


COMMON = (
    "-namespace",
    "k8s.io",
    "-address",
    "/c.sock",
    "-publish-binary",
    "/usr/bin/containerd",
    "-id",
    "abc",
)


def test_start(programs, zygote, tmp_path):
    done = run(programs[0], tmp_path, *COMMON, "start")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"an answer", b"")
    assert zygote.asked == [["1", "start", "abc", "k8s.io", str(tmp_path), "/c.sock", "/c.ttrpc", "", "2"]]


def test_the_name_of_the_program_names_the_engine(programs, zygote, tmp_path):
    for program in programs:
        run(program, tmp_path, *COMMON, "-debug", "start")
    assert [asked[7] for asked in zygote.asked] == ["", "wasmtime", "wasmer"]


def test_delete(programs, zygote, tmp_path):
    run(programs[0], tmp_path, *COMMON, "-bundle", "/some/where", "delete")
    run(programs[0], tmp_path, *COMMON, "delete")
    assert zygote.asked == [["1", "delete", "abc", "/some/where"], ["1", "delete", "abc", str(tmp_path)]]


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b"", "2"),
        (b"\x0a\x02id\x12\x04k8s.\x22\x052.4.2", "3"),
        (b"\x0a\x02id\x12\x04k8s.\x18\x08\x2a\x05/sock", "3"),
        # An Any, as containerd 1.x sends: a type URL and a value.
        (b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x08\x01", "2"),
        (b"\xff\xff\xff", "2"),
        (b"\x21\x00", "2"),
    ],
)
def test_the_version_that_containerd_wants(programs, zygote, tmp_path, stdin, version):
    assert run(programs[0], tmp_path, *COMMON, "start", stdin=stdin).returncode == 0
    assert zygote.asked[0][8] == version


def test_an_error_goes_to_stderr(programs, zygote, tmp_path):
    zygote.answer = b"1it does not work"
    done = run(programs[0], tmp_path, *COMMON, "start")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"it does not work\n")


def test_usage(programs, zygote, tmp_path):
    done = run(programs[1], tmp_path, "-namespace", "x", "start")
    assert done.returncode == 2
    assert b"containerd-shim-wasmtime-v1" in done.stderr
    assert zygote.asked == []


def test_version_is_passed_on(programs, tmp_path):
    done = run(programs[2], tmp_path, "-v")
    assert done.stdout.startswith(b"containerd-shim-wasmer-v1:\n")


def test_go_flags():
    flags, action = entry.parse(["--id=a", "-namespace", "b", "-debug", "start", "-id", "c"])
    assert (flags, action) == ({"id": "a", "namespace": "b", "debug": ""}, "start")
    assert entry.parse(["-id"]) == ({"id": ""}, "")


@given(st.binary(max_size=60))
def test_any_input_has_a_version(raw):
    assert entry.bootstrap_version(raw) in ("2", "3")
