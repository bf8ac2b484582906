"""The kernels: small C programs of our own, the sizes they run in, and the answers they must give. Pure data.

The answers were cross-checked with native builds of the same sources and, in ``tests/modules/test_workloads.py``, with
Python.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["startup", "compute", "memory", "calls", "io", "allocation", "program", "component"]
#: What each class of workload is bound by.
KINDS: dict[Kind, str] = {
    "startup": "starting and stopping",
    "compute": "the code that the engine's compiler makes",
    "memory": "memory bandwidth",
    "calls": "calls inside the module",
    "io": "calls of the host",
    "allocation": "the allocator, and pointers followed through growing memory",
    "program": "a large real program: loading its code, and all of the above",
    "component": "the component model: the same kernels as WASI 0.2 commands",
}


class Size(NamedTuple):
    """One size of a kernel: its argument, what it prints, and the order of its duration in a warm start."""

    argument: str
    expected: str
    typical_ms: int


class Kernel(NamedTuple):
    """A kernel: what it shows, its class, and its sizes by name ("" is the ordinary one)."""

    shows: str
    kind: Kind
    sizes: dict[str, Size]


HELLO_STDOUT = "hello from stdout!\nArgs are: []\n"

KERNELS: dict[str, Kernel] = {
    "sha256": Kernel(
        "integer arithmetic in registers",
        "compute",
        {
            "small": Size("2", "6b01abab842ecb198c6a871bb42dedaa83a1c514e15f462f8952616426897678\n", 1),
            "": Size("20", "b7af448773f25e8e710aebc92288a373da91c437c9739dbf321dfd8a1984c592\n", 10),
            "large": Size("200", "e177fe9ef2e1c8ffce9035bca717cb007b9fae331e76996daf1267bbe22b571f\n", 100),
        },
    ),
    "nbody": Kernel(
        "floating point and square roots",
        "compute",
        {
            "small": Size("5000", "-0.169020000 bfc5a27286fbdaff\n", 1),
            "": Size("100000", "-0.169079859 bfc5a468a93ff158\n", 10),
            "large": Size("1000000", "-0.169086185 bfc5a49db88734ef\n", 100),
        },
    ),
    "stream": Kernel(
        "memory bandwidth: three arrays larger than the inner caches",
        "memory",
        {
            "small": Size("2", "adf485e571480000\n", 10),
            "": Size("20", "e087581673e80000\n", 100),
            "large": Size("200", "6ccc3dad09a80000\n", 1000),
        },
    ),
    "churn": Kernel(
        "allocator and pointer chasing in growing memory",
        "allocation",
        {
            "small": Size("10000", "6314 nodes left, checksum 59c31f32348ca44e\n", 1),
            "": Size("100000", "38758 nodes left, checksum 55a6500436327195\n", 10),
            "large": Size("1000000", "339246 nodes left, checksum f0c343fe54827420\n", 100),
        },
    ),
    "sort": Kernel(
        "indirect calls",
        "calls",
        {
            "small": Size("1000", "8a688d62dadc2f30\n", 1),
            "": Size("10000", "c66a4773f63a6368\n", 10),
            "large": Size("100000", "b961b1f5628c6a00\n", 100),
        },
    ),
    "recurse": Kernel(
        "direct calls, thousands of frames deep",
        "calls",
        {
            "small": Size("5", "A(3, 5) = 253, 42438 calls, 255 deep\n", 1),
            "": Size("8", "A(3, 8) = 2045, 2785999 calls, 2047 deep\n", 10),
            "large": Size("9", "A(3, 9) = 4093, 11164370 calls, 4095 deep\n", 100),
        },
    ),
    "print": Kernel(
        "host calls, one per printed line",
        "io",
        {
            "small": Size(
                "100", "sha256:787d3fb9e2a35f423a495a9ff378377ae0a90cab9098ca5606403e7aff309db2", 1
            ),
            "": Size("2000", "sha256:c061a07fd634deb66b34a9aed6d65887a9afe7731ac1514cb62cf2a9afb1055c", 10),
            "large": Size(
                "20000", "sha256:8a8f4868abd332a40a556e2a58bd8f6ad50cde847181dab04ca3a8f166ea3d2c", 100
            ),
        },
    ),
    "files": Kernel(
        "the host's file system: write, list, read, rename and remove files of 4 KiB",
        "io",
        {
            "small": Size("10", "10 files listed, checksum 6aac33d641aab000\n", 10),
            "": Size("100", "100 files listed, checksum 935c0afd96387000\n", 100),
            "large": Size("1000", "1000 files listed, checksum 37b3c443ae904000\n", 1000),
        },
    ),
}

# 47053 = 211 x 223: the solver must find the only factors below 256.
FACTORING = b"""\
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
FACTORS = "sat\n(\n (p #b0000000011010011)\n (q #b0000000011011111)\n)\n"
