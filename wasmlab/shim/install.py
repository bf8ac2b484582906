"""Put the shim's executables where containerd finds them (a directory on its PATH)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wasmlab.paths import atomic_write

PROGRAMS = ("containerd-shim-wasm-v1", "containerd-shim-wasmtime-v1", "containerd-shim-wasmer-v1")
FALLBACK = "wasmlab-shim"
LAUNCHER_SOURCE = Path(__file__).with_name("launcher.c")

_SCRIPT = """#!{interpreter} -IS
import sys
sys.path.insert(0, {here!r})
import entry
import os
program = os.environ.pop("WASMLAB_SHIM_PROGRAM", "") or os.path.basename(sys.argv[0])
os._exit(entry.main(sys.argv[1:], {python!r}, program, {root!r}))
"""


def install(directory: Path, *, launcher: Path | None = None) -> list[Path]:
    """Write the shim's executables into `directory` and return their paths.

    Parameters
    ----------
    directory : Path
        A directory on containerd's PATH.
    launcher : Path, optional
        ``launcher.c``, compiled for this machine: it asks the zygote in half a millisecond, and hands everything else
        to the script. Without it the script does everything (it starts the base interpreter without site packages).
    """
    directory.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parent
    # A virtual environment's interpreter first looks for its home; the base one starts faster, and nothing of the
    # environment is needed here.
    interpreter = getattr(sys, "_base_executable", "") or sys.executable
    script = _SCRIPT.format(
        interpreter=os.path.realpath(interpreter),
        here=str(here),
        python=sys.executable,
        root=str(here.parents[1]),
    )
    atomic_write(directory / FALLBACK, script, mode=0o755)
    target = FALLBACK
    if launcher is not None:
        target = "wasmlab-shim-launcher"
        atomic_write(directory / target, launcher.read_bytes(), mode=0o755)
    for name in PROGRAMS:
        link = directory / f".{name}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(directory / name)
    return [directory / name for name in PROGRAMS]
