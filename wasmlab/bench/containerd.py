"""Path 2 without Kubernetes: what ``ctr run`` costs with our shim, beside runc, on a containerd of our own.

``python -m wasmlab.bench.containerd [--runs N] [--containerd DIR] [--json]`` (as root)

All arms of one workload run in one interleaved series, in random order; runc runs the same C programs, compiled for
the host. Wall time is what the user of ctr waits; CPU time is that of everything (ctr, containerd, shims, the zygote's
preparations for the next pod, the guest), taken from a cgroup that holds it all, and hardly changes when the machine is
busy with other things.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wasmlab.bench import memory, stats
from wasmlab.containerd import native
from wasmlab.errors import BenchmarkError, PrerequisiteError
from wasmlab.modules.files import data_dir
from wasmlab.oci.image import Image, archive, scratch_image
from wasmlab.paths import cache_dir
from wasmlab.process import Child
from wasmlab.shim import control, install

RUNTIMES = {
    "runc": "io.containerd.runc.v2",
    "wasmtime": "io.containerd.wasmtime.v1",
    "wasmer": "io.containerd.wasmer.v1",
}
# What was aimed for: (workload, compared with, at most this many times).
TARGETS = {"hello": ("runc", 0.8), "big": ("hello", 1.05), "lines": ("runc", 1.1)}
SLEEP_TARGET_BYTES = 4 << 20
_LINES = 10_000
_BIG_FUNCTIONS = 2_300  # about 500 KB of code
_SETTLE_S = 0.15  # the zygote prepares the next pod meanwhile, and that CPU time belongs to this one
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Row:
    """One ``ctr run``.

    Attributes
    ----------
    workload : str
        ``hello``, ``big`` (500 KB of code, prints hello) or ``lines`` (10,000 of them).
    arm : str
        ``runc``, ``wasmtime`` or ``wasmer``.
    round : int
        In which round of the interleaved series.
    ok : bool
        Whether it ended with code 0 and printed what it should.
    wall_ns : int
        From starting ctr to its end.
    cpu_ns : int
        CPU time of everything that took part.
    """

    workload: str
    arm: str
    round: int
    ok: bool
    wall_ns: int
    cpu_ns: int


def missing() -> str:
    """Why this cannot be measured here ("" if it can)."""
    if os.geteuid() != 0:
        return "needs root: containers need mounts and cgroups"
    if not shutil.which("runc"):
        return "needs runc as the control arm: apt-get install runc containerd"
    if not shutil.which("containerd") or not shutil.which("ctr"):
        return "needs containerd and ctr: apt-get install containerd runc"
    return ""


class Containerd:
    """A containerd of our own with the shim's executables on its PATH, in a cgroup of its own. A context manager.

    Parameters
    ----------
    programs : Path, optional
        Directory with ``containerd``, ``ctr`` and ``containerd-shim-runc-v2``; those on PATH if None.
    """

    def __init__(self, programs: Path | None = None) -> None:
        if reason := missing():
            raise PrerequisiteError(
                f"the containerd path cannot be measured: {reason}", remedy="run it as root on Debian"
            )
        # Short: unix sockets' paths are.
        self.dir = Path(tempfile.mkdtemp(prefix="wlb-", dir="/tmp"))
        self.name = self.dir.name
        self.shim_dir = self.dir / "z"
        self._path = ":".join(
            [str(self.dir / "bin"), *([str(programs)] if programs else []), os.environ["PATH"]]
        )
        self._environment = {**os.environ, "PATH": self._path, "WASMLAB_SHIM_DIR": str(self.shim_dir)}
        self._v2 = (_CGROUPS / "cgroup.controllers").exists()
        self._cpu = _CGROUPS / self.name if self._v2 else _CGROUPS / "cpuacct" / self.name
        self._count = 0
        self._child: Child | None = None

    def __enter__(self) -> Containerd:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        install.install(self.dir / "bin", launcher=native.program(install.LAUNCHER_SOURCE))
        # The plugins that need what is not here, or listen where a system's containerd does.
        plugins = ("grpc.v1.cri", *(f"snapshotter.v1.{one}" for one in ("aufs", "btrfs", "devmapper", "zfs")))
        disabled = ", ".join(f'"io.containerd.{one}"' for one in plugins)
        (self.dir / "config.toml").write_text(
            f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
            f'disabled_plugins = [{disabled}]\n[grpc]\naddress = "{self.dir}/c.sock"\n'
        )
        self._cpu.mkdir()
        if self._v2:
            # Only leaves may hold processes where controllers are handed down.
            (self._cpu / "daemons").mkdir()
        self._child = Child(
            [
                shutil.which("containerd", path=self._path) or "containerd",
                "--config",
                str(self.dir / "config.toml"),
            ],
            log=self.dir / "containerd.log",
            env=self._environment,
        )
        self._adopt(self._child.pid)
        self._child.wait_ready(lambda: self.ctr("version").returncode == 0, timeout_s=30)

    def _adopt(self, pid: int) -> None:
        home = self._cpu / "daemons" if self._v2 else self._cpu
        (home / "cgroup.procs").write_text(str(pid))

    def cpu_ns(self) -> int:
        """Return the CPU time that everything here has taken."""
        if not self._v2:
            return int((self._cpu / "cpuacct.usage").read_text())
        fields = dict(line.split() for line in (self._cpu / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) * 1000

    def argv(self, *args: str) -> list[str]:
        """Return the command line of a ctr for this containerd."""
        return [shutil.which("ctr", path=self._path) or "ctr", "--address", f"{self.dir}/c.sock", *args]

    def ctr(self, *args: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
        """Run ctr, in the cgroup; its CPU time is part of the cost."""
        child = subprocess.Popen(
            # The shell waits until it has been put into the cgroup.
            ["/bin/sh", "-c", 'read _; exec "$@"', "ctr", *self.argv(*args)],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        self._adopt(child.pid)
        out, err = child.communicate(b"\n", timeout=120)
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def load(self, name: str, image: Image) -> str:
        """Import an image and return its reference."""
        reference = f"wasmlab.local/{name}:1"
        tar = self.dir / "image.tar"
        tar.write_bytes(archive(image, reference))
        done = self.ctr("images", "import", str(tar))
        tar.unlink()
        if done.returncode:
            raise BenchmarkError(
                f"cannot import {name}: {done.stderr.decode()}", remedy="see containerd's log"
            )
        return reference

    def container(self, runtime: str) -> tuple[str, list[str]]:
        """Return a fresh name, and the options that put the container into the cgroup."""
        self._count += 1
        name = f"c{self._count}"
        return name, ["--runtime", runtime, "--cgroup", f"/{self.name}/{name}"]

    def run(self, runtime: str, image: str, expected: bytes | int) -> tuple[bool, int, int]:
        """Run a container; return (whether it was right, wall ns, CPU ns).

        `expected` is the output, or its number of lines.
        """
        name, options = self.container(runtime)
        before = self.cpu_ns()
        begun = time.monotonic_ns()
        done = self.ctr("run", "--rm", *options, image, name)
        wall = time.monotonic_ns() - begun
        time.sleep(_SETTLE_S)
        right = done.stdout.count(b"\n") == expected if isinstance(expected, int) else done.stdout == expected
        return done.returncode == 0 and right, wall, self.cpu_ns() - before

    @contextlib.contextmanager
    def sleeping(self, runtime: str, image: str) -> Iterator[int]:
        """Run a container that sleeps; yields its process id."""
        name, options = self.container(runtime)
        self.ctr("run", "-d", "--null-io", *options, image, name)
        try:
            lines = self.ctr("tasks", "ls").stdout.decode().splitlines()
            yield next(int(line.split()[1]) for line in lines if line.split()[0] == name)
        finally:
            self.ctr("tasks", "delete", "--force", name)
            self.ctr("containers", "delete", name)

    def close(self) -> None:
        """End everything and remove it."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        control.stop(self.shim_dir)
        homes = [self._cpu] if self._v2 else [one / self.name for one in _CGROUPS.iterdir()]
        for home in homes:
            for directory in sorted((path for path in home.glob("**/") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    for pid in (directory / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
            deadline = time.monotonic() + 3
            while home.is_dir() and time.monotonic() < deadline:
                for directory in sorted((path for path in home.glob("**/") if path.is_dir()), reverse=True):
                    with contextlib.suppress(OSError):
                        directory.rmdir()
                time.sleep(0.01)
        shutil.rmtree(self.dir, ignore_errors=True)


def big_source(functions: int = _BIG_FUNCTIONS) -> str:
    """Return a C program that prints hello, and has much code besides that it could call."""
    lines = ["#include <stdio.h>", "#include <stdlib.h>"]
    for number in range(functions):
        # Every one differs, so that none can be merged with another.
        lines.append(
            f"static unsigned f{number}(unsigned x) {{ for (unsigned i = 0; i < (x & 7); i++) "
            f"x = (x * {2 * number + 3}u) ^ (x >> {number % 29 + 1}) ^ {number * 2654435761 % 2**32}u; "
            f"if (x & {1 << number % 31}u) x += {number * 40503 % 65521}u; else x ^= i_{number % 7}(x); return x; }}"
        )
    helpers = [
        f"static unsigned i_{n}(unsigned x) {{ return x / {n + 3}u + x % {n + 5}u; }}" for n in range(7)
    ]
    table = ", ".join(f"f{number}" for number in range(functions))
    main = (
        f"static unsigned (*const all[])(unsigned) = {{{table}}};\n"
        'int main(int argc, char **argv) { if (argc > 1) printf("%u\\n", '
        f'all[atoi(argv[1]) % {functions}](argc)); puts("hello from stdout!"); return 0; }}'
    )
    return "\n".join([*lines[:2], *helpers, *lines[2:], main]) + "\n"


def _module(source: Path) -> bytes:
    from wasmlab.modules.build import compile_c

    out = cache_dir("bench") / f"{source.stem}.wasm"
    if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
        compile_c(source, out)
    return out.read_bytes()


def images() -> dict[tuple[str, str], Image]:
    """Return the images by (workload, ``wasm`` or ``native``)."""
    data = data_dir("wasm")
    big = cache_dir("bench") / "big.c"
    text = big_source()
    if not big.exists() or big.read_text() != text:
        big.write_text(text)
    made: dict[tuple[str, str], Image] = {}
    for name, source, args in (
        ("hello", data / "hello.c", []),
        ("lines", data / "fixtures" / "spam.c", [str(_LINES)]),
        ("sleep", data / "fixtures" / "sleep.c", ["600"]),
        ("big", big, []),
    ):
        wasm = source.with_suffix(".wasm")
        content = wasm.read_bytes() if wasm.exists() and name != "big" else _module(source)
        made[name, "wasm"] = scratch_image({f"/{name}.wasm": content}, cmd=[f"/{name}.wasm", *args])
        if name != "big":
            program = native.program(source).read_bytes()
            made[name, "native"] = scratch_image({f"/{name}": program}, cmd=[f"/{name}", *args])
    return made


EXPECTED: dict[str, bytes | int] = {
    "hello": b"hello from stdout!\nArgs are: []\n",
    "big": b"hello from stdout!\n",
    "lines": _LINES,
}


def measure(
    runs: int = 30,
    *,
    programs: Path | None = None,
    engines: Sequence[str] = ("wasmtime", "wasmer"),
    seed: int = 1,
) -> dict[str, Any]:
    """Measure everything; return ``rows`` (list of `Row`), ``sleeping`` (bytes by arm) and ``tasks_per_s`` (by arm).

    Parameters
    ----------
    runs : int
        Rounds of the interleaved series; one more is run first and not counted.
    programs : Path, optional
        Directory of another containerd.
    engines : sequence of str
        Which engines.
    seed : int
        For the order.

    Raises
    ------
    PrerequisiteError
        Without root, containerd or runc.
    """
    generator = random.Random(seed)
    arms = ["runc", *engines]
    plan = (
        [("hello", arm) for arm in arms]
        + [("lines", arm) for arm in arms]
        + [("big", arm) for arm in engines]
    )
    with Containerd(programs) as containerd:
        references = {key: containerd.load("-".join(key), image) for key, image in images().items()}

        def reference(workload: str, arm: str) -> str:
            return references[workload, "native" if arm == "runc" else "wasm"]

        rows = []
        for number in range(runs + 1):
            for workload, arm in generator.sample(plan, len(plan)):
                image = reference(workload, arm)
                ok, wall, cpu = containerd.run(RUNTIMES[arm], image, EXPECTED[workload])
                if number:
                    rows.append(Row(workload, arm, number, ok, wall, cpu))
        sleeping = {arm: _sleeping_bytes(containerd, RUNTIMES[arm], reference("sleep", arm)) for arm in arms}
        rates = {arm: _tasks_per_s(containerd, RUNTIMES[arm], reference("hello", arm)) for arm in arms}
    return {"rows": rows, "sleeping": sleeping, "tasks_per_s": rates}


def _sleeping_bytes(containerd: Containerd, runtime: str, image: str, pods: int = 5) -> list[int]:
    """Private memory of a sleeping container, its shim included, for several."""
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(containerd.sleeping(runtime, image)) for _ in range(pods)]
        time.sleep(0.5)
        found = []
        for pid in pids:
            shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.append(memory.total([shim, pid]).uss_bytes)
    return found


def _tasks_per_s(
    containerd: Containerd, runtime: str, image: str, tasks: int = 40, at_once: int = 4
) -> float:
    running: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()
    for _ in range(tasks):
        name, options = containerd.container(runtime)
        if len(running) == at_once:
            running.pop(0).wait(60)
        running.append(
            subprocess.Popen(
                containerd.argv("run", "--rm", *options, image, name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    for child in running:
        child.wait(60)
    return tasks / (time.monotonic() - begun)


def figures(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table: medians, and ratios with 95 % intervals beside what was aimed for."""
    rows: list[Row] = measured["rows"]
    table: list[dict[str, Any]] = []

    def values(workload: str, arm: str, column: str) -> list[float]:
        return [
            getattr(row, column) / 1e6
            for row in rows
            if (row.workload, row.arm) == (workload, arm) and row.ok
        ]

    for workload, arm in dict.fromkeys((row.workload, row.arm) for row in rows):
        line: dict[str, Any] = {
            "workload": workload,
            "arm": arm,
            "failed": sum(1 for row in rows if (row.workload, row.arm) == (workload, arm) and not row.ok),
        }
        for column in ("wall_ns", "cpu_ns"):
            line[column.replace("_ns", "_ms")] = round(stats.median(values(workload, arm, column)).value, 2)
        against, limit = TARGETS[workload]
        if arm != "runc":
            other = ("hello", arm) if against == "hello" else (workload, against)
            for column in ("wall", "cpu"):
                ratio = stats.ratio_of_medians(
                    values(workload, arm, f"{column}_ns"), values(*other, f"{column}_ns")
                )
                line[f"{column}_ratio"] = [round(one, 3) for one in (ratio.value, ratio.low, ratio.high)]
            line |= {"against": "/".join(other), "target": limit, "met": line["wall_ratio"][0] <= limit}
        table.append(line)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="wasmlab.bench.containerd")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--containerd", type=Path, default=None, help="directory of another containerd")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    measured = measure(options.runs, programs=options.containerd)
    table = figures(measured)
    if options.json:
        content = {**measured, "rows": [asdict(row) for row in measured["rows"]], "figures": table}
        json.dump(content, sys.stdout)
        return 0
    for line in table:
        print(" ".join(f"{name}={value}" for name, value in line.items()))
    for arm, sizes in measured["sleeping"].items():
        print(f"sleeping arm={arm} private_MB={sorted(sizes)[len(sizes) // 2] / 1e6:.2f}")
    for arm, rate in measured["tasks_per_s"].items():
        print(f"parallel arm={arm} tasks_per_s={rate:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
