"""wasmtime in workers that need no Python: ``runner.c``, as an engine with a name of its own.

It is the adapter of `wasmlab.engines.wasmtime` in everything, and so are the compiled modules; what differs is the
process a guest runs in, which `wasmlab.sandbox.template` has forked. It costs a fifth of the CPU time and a small part
of the private memory of a worker that is forked from a Python interpreter (`make bench` says how much). There is no
such worker for wasmer, so comparisons of the two engines are made with ``wasmtime``.

``python -m wasmlab.engines.wasmtime_runner`` compiles it, once, in ten seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
from pathlib import Path
from typing import Any

from wasmlab.engines.base import package_version
from wasmlab.engines.wasmtime import MAX_STACK_BYTES, STRATEGIES, WasmtimeEngine
from wasmlab.errors import PrerequisiteError
from wasmlab.modules import hostprogram

NAME = "wasmtime-runner"
SOURCE = Path(__file__).with_name("runner.c")
# An old enough C library, and dynamic: the engine's library is loaded at run time, and brings the same one.
_BUILD: dict[str, Any] = {
    "libc": "gnu.2.28",
    "flags": ("-std=gnu17", "-O2", "-s", "-Wall", "-Wextra", "-ldl"),
}
# ``runner.c`` declares the C API itself: of these versions.
_WASMTIME = ("50.",)


def build() -> Path:
    """Compile ``runner.c``, if that was not done before, and return the program.

    Raises
    ------
    PrerequisiteError, ProcessError
        There is no compiler, or it fails.
    """
    return hostprogram.program(SOURCE, **_BUILD)


def find() -> Path:
    """Return the program.

    Raises
    ------
    PrerequisiteError
        It has not been compiled, or is not for the installed version of wasmtime.
    """
    version = package_version("wasmtime")
    if not version.startswith(_WASMTIME):
        raise PrerequisiteError(
            f"{NAME} is not written for wasmtime {version}", remedy="use engine wasmtime, which does the same"
        )
    program = hostprogram.path_of(SOURCE, **_BUILD)
    if not program.exists():
        raise PrerequisiteError(
            f"the program of engine {NAME} is not compiled",
            remedy="run `python -m wasmlab.engines.wasmtime_runner`, or use engine wasmtime, which does the same",
        )
    return program


class WasmtimeRunnerEngine(WasmtimeEngine):
    """The adapter.

    Raises
    ------
    PrerequisiteError
        As `find`.
    """

    def __init__(self) -> None:
        super().__init__(name=NAME)
        self._program = find()

    @functools.cached_property
    def version(self) -> str:
        """Version of the package ``wasmtime``, and that there is no Python in a worker."""
        return f"{package_version('wasmtime')} (runner)"

    def runner(self) -> list[str]:
        """Return the program, and what it has to know to make the same engine: library, compiler, stack size."""
        found = importlib.util.find_spec("wasmtime")
        home = Path(found.origin).parent if found is not None and found.origin else Path()
        library = home / f"linux-{platform.machine()}" / "_libwasmtime.so"
        return [str(self._program), str(library), str(STRATEGIES["cranelift"]), str(MAX_STACK_BYTES)]


if __name__ == "__main__":
    print(build())
