"""What the host says when a module is run directly: it is a program, but not for this processor."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from wasmlab.modules.module import Module


def run_on_host(module: Module, *, timeout_s: float = 10.0) -> str:
    """Mark a copy of `module` executable, run it as if it were a native program, and return what happened.

    The answer is ``"exec format error"`` unless the kernel was taught a WASM interpreter (binfmt_misc), in which
    case it is what the program printed.

    Examples
    --------
    >>> run_on_host(Module(b"\\0asm\\1\\0\\0\\0", name="empty"))      # doctest: +SKIP
    'exec format error'
    """
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / f"{module.name}.wasm"
        program.write_bytes(module.data)
        program.chmod(0o700)
        try:
            done = subprocess.run(
                [str(program)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
            )
        except OSError as error:
            # The kernel's ENOEXEC, in a shell's spelling.
            return os.strerror(error.errno or 0).lower()
        return done.stdout
