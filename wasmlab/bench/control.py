"""Path "control": native processes, started in the same run as everything else.

A machine that is busy or slow starts these slowly too. Ratios to them travel between machines; milliseconds do not.

==========  =======================================================================
workload    what is started, with fork and exec, stdout a pipe
==========  =======================================================================
true        the smallest native process: ``/bin/true``
python      this interpreter, isolated, printing one line: what a worker without a zygote would cost at least
==========  =======================================================================
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any

from wasmlab.bench.plan import Arm
from wasmlab.errors import BenchmarkError


class ControlExecutor:
    """Starts native processes and waits for their end."""

    def __init__(self) -> None:
        self._commands = {
            "true": [shutil.which("true") or "/bin/true"],
            "python": [sys.executable, "-I", "-S", "-c", "print('hello')"],
        }

    def run(self, arm: Arm) -> dict[str, Any]:
        """Start one process; see `wasmlab.bench.runner.Executor`."""
        try:
            argv = self._commands[arm.workload]
        except KeyError:
            raise BenchmarkError(
                f"there is no control {arm.workload!r}", remedy=f"choose from {', '.join(self._commands)}"
            ) from None
        read, write = os.pipe()
        first_byte = None
        try:
            asked = time.monotonic_ns()
            # posix_spawn and not subprocess: the control shall not measure Python's bookkeeping.
            pid = os.posix_spawn(
                argv[0],
                argv,
                {"PATH": "/usr/bin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, read)],
            )
            os.close(write)
            write = -1
            if os.read(read, 65536):
                first_byte = time.monotonic_ns() - asked
            _, status = os.waitpid(pid, 0)
            total = time.monotonic_ns() - asked
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)
        code = os.waitstatus_to_exitcode(status)
        return {
            "ok": code == 0,
            "error": None if code == 0 else f"exit code {code}",
            "exit_code": code,
            "first_byte_ns": first_byte,
            "total_ns": total,
            "engine_version": f"Python {sys.version.split()[0]}" if arm.workload == "python" else None,
        }
