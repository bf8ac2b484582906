"""Compile C to WASM with the compiler from PyPI's ``ziglang``, so that no system compiler is needed.

Guarantees: a module is replaced as a whole or not at all; the same source, compiler and flags give the same bytes
(no paths, no times, no debug information go in); ``data/wasm/DIGESTS.json`` records what was built from what, and
`problems` compares it with the files.

Some kernels are built a second time as components (WASI 0.2 commands), from the same source: see
`wasmlab.modules.component`.

``python -m wasmlab.modules.build`` rebuilds what is in ``data/wasm`` and rewrites ``DIGESTS.json``;
with ``--check`` it rebuilds into a temporary directory and fails if any digest differs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wasmlab.errors import PrerequisiteError, ProcessError
from wasmlab.modules import component
from wasmlab.modules.files import data_dir
from wasmlab.modules.module import Module
from wasmlab.paths import atomic_write, cache_dir

TARGET = "wasm32-wasi"
FLAGS = (
    "-std=gnu17",
    "-O2",
    "-s",
    "-Wall",
    "-Wextra",
    # zig's default stack is 16 MiB, all of it initial linear memory: it would count against every pod's limit.
    "-Wl,-z,stack-size=262144",
)
# Kernels that are components, too; and what makes them so: linked with the kernel, and put around it.
COMPONENTS = ("hello", "print", "sha256")
WASI_0_2 = "components/wasip2.c"
COMMAND = "components/command.wat"
# What a source includes that is no part of the C library.
HEADERS = {"serve.c": ("wasix.h",)}
_TIMEOUT_S = 300.0


def compiler() -> str:
    """Return the compiler's name and version, ``"ziglang 0.17.1"``.

    Raises
    ------
    PrerequisiteError
        If it is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise PrerequisiteError(
            "the C compiler for WASM is not installed: this Python has no package ziglang",
            remedy="run `make setup`, or `python -m pip install ziglang`",
        )
    return f"ziglang {importlib.metadata.version('ziglang')}"


def compile_c(source: str | Path, out: str | Path, *, flags: Sequence[str] = ()) -> Module:
    """Compile one C file to a WASI program.

    The very first compilation on a machine takes about half a minute (the C library is compiled and cached).

    Parameters
    ----------
    source : path
        The C file.
    out : path
        Where the module goes; an existing file is replaced only if compiling succeeded.
    flags : sequence of str
        Added after the standard flags, so that they win.

    Raises
    ------
    PrerequisiteError
        If the compiler is missing, or the source does not exist.
    ProcessError
        If the compiler fails; ``log_tail`` holds its messages.
    """
    compiler()
    source, out = Path(source), Path(out)
    if not source.is_file():
        raise PrerequisiteError(f"there is no C source {source}", remedy="check the path")
    zig_cache = cache_dir("zig")
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(zig_cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache_dir("zig", "local")),
    }
    with tempfile.TemporaryDirectory(dir=zig_cache, prefix="out-") as scratch:
        result = Path(scratch) / "module.wasm"
        argv = [sys.executable, "-m", "ziglang", "cc", f"--target={TARGET}", *FLAGS, *flags]
        argv += ["-o", str(result), str(source)]
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"compiling {source.name} did not end within {_TIMEOUT_S:g} s",
                argv=argv,
                remedy="try again when idle",
            ) from None
        if done.returncode != 0 or not result.exists():
            raise ProcessError(
                f"compiling {source.name} failed",
                argv=argv,
                returncode=done.returncode,
                log_tail="\n".join(done.stderr.splitlines()[-20:]),
                remedy="fix the source; the messages are the compiler's",
            )
        data = result.read_bytes()
    module = Module(data, name=out.stem)
    atomic_write(out, data, mode=0o644)
    return module


def compile_component(source: str | Path, out: str | Path, root: Path | None = None) -> Module:
    """Compile one C file to a WASI 0.2 command.

    Only programs that read their arguments and write to stdout and stderr: more of WASI is not in `WASI_0_2`.

    Raises
    ------
    PrerequisiteError, ProcessError
        As `compile_c`.
    InvalidModule
        If the program uses more of WASI than that.
    """
    root = root or data_dir("wasm")
    out = Path(out)
    with tempfile.TemporaryDirectory(prefix="wasmlab-component-") as scratch:
        core = compile_c(source, Path(scratch) / f"{out.stem}.wasm", flags=[str(root / WASI_0_2)])
    module = component.wrap(core, (root / COMMAND).read_text())
    atomic_write(out, module.data, mode=0o644)
    return module


def sources(root: Path | None = None) -> list[Path]:
    """Return the C sources of the lab's modules, in a fixed order."""
    root = root or data_dir("wasm")
    return [*sorted(root.glob("*.c")), *sorted(root.glob("fixtures/*.c"))]


def build_all(root: Path | None = None, out: Path | None = None) -> dict:
    """Compile every source under `root` and return the record that belongs into ``DIGESTS.json``.

    Parameters
    ----------
    root : Path, optional
        Where the sources are; ``data/wasm`` by default.
    out : Path, optional
        Where the modules go; beside their sources by default.
    """
    root = root or data_dir("wasm")
    out = out or root
    record: dict = {"compiler": compiler(), "target": TARGET, "flags": list(FLAGS), "modules": {}}
    for source in sources(root):
        relative = source.relative_to(root).with_suffix(".wasm")
        (out / relative).parent.mkdir(parents=True, exist_ok=True)
        module = compile_c(source, out / relative)
        record["modules"][relative.as_posix()] = {
            "digest": module.digest,
            "size_bytes": module.size_bytes,
            "source": source.relative_to(root).as_posix(),
            "source_digest": _digest(source),
        }
        if source.name in HEADERS:
            parts = {part: _digest(root / part) for part in HEADERS[source.name]}
            record["modules"][relative.as_posix()]["parts"] = parts
    for name in COMPONENTS:
        source = root / f"{name}.c"
        relative = Path("components") / f"{name}.wasm"
        (out / relative).parent.mkdir(parents=True, exist_ok=True)
        module = compile_component(source, out / relative, root)
        record["modules"][relative.as_posix()] = {
            "digest": module.digest,
            "size_bytes": module.size_bytes,
            "source": source.relative_to(root).as_posix(),
            "source_digest": _digest(source),
            "parts": {part: _digest(root / part) for part in (WASI_0_2, COMMAND)},
        }
    return record


def problems(root: Path | None = None) -> list[str]:
    """Compare the files with ``DIGESTS.json`` and return what does not agree; nothing is compiled."""
    root = root or data_dir("wasm")
    recorded = json.loads((root / "DIGESTS.json").read_text())["modules"]
    found = []
    for name, entry in recorded.items():
        for path, expected in (
            (root / name, entry["digest"]),
            (root / entry["source"], entry["source_digest"]),
            *((root / part, digest) for part, digest in entry.get("parts", {}).items()),
        ):
            if not path.is_file():
                found.append(f"{path.relative_to(root)} is missing")
            elif _digest(path) != expected:
                found.append(f"{path.relative_to(root)} is not what DIGESTS.json was written from")
    known = {entry["source"] for entry in recorded.values()}
    found += [
        f"{path.relative_to(root)} is not in DIGESTS.json"
        for path in sources(root)
        if path.relative_to(root).as_posix() not in known
    ]
    return list(dict.fromkeys(found))


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuild ``data/wasm``, or with ``--check`` only compare."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words not in ([], ["--check"]):
        print("usage: python -m wasmlab.modules.build [--check]", file=sys.stderr)
        return 2
    root = data_dir("wasm")
    if words:
        with tempfile.TemporaryDirectory() as scratch:
            record = build_all(root, Path(scratch))
        recorded = json.loads((root / "DIGESTS.json").read_text())
        for name, entry in record["modules"].items():
            if recorded["modules"].get(name) != entry:
                print(f"{name} differs from DIGESTS.json", file=sys.stderr)
        same = record == recorded
        print("all modules rebuild to their recorded digests" if same else "digests differ", file=sys.stderr)
        return 0 if same else 1
    record = build_all(root)
    atomic_write(root / "DIGESTS.json", json.dumps(record, indent=2, sort_keys=True) + "\n", mode=0o644)
    print(f"built {len(record['modules'])} modules", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
