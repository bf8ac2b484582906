"""Put the shim's executables where containerd finds them (a directory on its PATH)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAMS = ("containerd-shim-wasm-v1", "containerd-shim-wasmtime-v1", "containerd-shim-wasmer-v1")

_SCRIPT = """#!{interpreter} -IS
import sys
sys.path.insert(0, {here!r})
import entry
import os
os._exit(entry.main(sys.argv[1:], {python!r}, os.path.basename(sys.argv[0]), {root!r}))
"""


def install(directory: Path) -> list[Path]:
    """Write the shim's executables into `directory` and return their paths.

    ``containerd-shim-wasm-v1`` is a script that starts the base interpreter without site packages; the names of the
    single engines are links to it.
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
    first = directory / PROGRAMS[0]
    temporary = directory / f".{PROGRAMS[0]}.new"
    temporary.write_text(script)
    temporary.chmod(0o755)
    temporary.replace(first)
    for name in PROGRAMS[1:]:
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to(first.name)
    return [directory / name for name in PROGRAMS]
