"""wasmer, by the binding of our own (the crate in ``native/``): the same steps, one by one, as on wasmtime.

`prepare` imports the binding and makes two engines before the fork, one without a compiler for what was compiled before
and one with, for cold runs: nothing of that starts a thread, and each worker inherits it. A run then maps the artifact,
instantiates and calls. Where the binding has not been built, `wasmlab.engines.wasmer` serves by the package
``wasmer-sdk``.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.engines import native_binding
from wasmlab.engines.base import Capabilities, Compiled, GuestResult, exit_code_of
from wasmlab.engines.common import (
    DEADLINE_NOTE,
    FUEL,
    MEMORY_NOTE,
    hand_over,
    refuse_other_than_core,
    refused,
    trapped,
)
from wasmlab.engines.laps import Laps
from wasmlab.engines.stdio import STDERR, STDOUT, write_frame
from wasmlab.errors import InvalidModule

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmlab.engines.spec import RunSpec, Span
    from wasmlab.engines.stdio import Stdio

# fd_write of nothing, then proc_exit(0): what a worker rehearses with.
_NOOP = bytes.fromhex(
    "0061736d0100000001100360047f7f7f7f017f60017f0060000002460216776173695f736e617073686f745f70726576696577310866645f77"
    "72697465000016776173695f736e617073686f745f70726576696577310970726f635f657869740001030201020503010001071302066d656d"
    "6f72790200065f737461727400020a13011100410141004101410810001a410010010b"
)
_NO_COMPONENTS = "wasmer runs core modules only; use engine wasmtime"

_CAPABILITIES = Capabilities(
    components=False,
    notes={
        "components": _NO_COMPONENTS,
        "memory_limit": MEMORY_NOTE,
        "read_only_dirs": "enforced by the binding below wasmer, whose own rights let a guest create empty files",
        "deadline": DEADLINE_NOTE,
        "listens": "sockets of WASIX; accept gives up after 30 seconds (ETIMEDOUT) unless the guest sets a timeout",
        "fuel": "the module is compiled with metering, by the rule of wasmtime's costs",
    },
)


class WasmerNativeEngine:
    """The adapter.

    Parameters
    ----------
    library : Path
        The binding, as `native_binding.chosen` found it.
    compiler : {"cranelift", "singlepass"}
        What compiles. Compiled code of both runs on the same engine.
    name : str
        What the engine is called.
    """

    capabilities = _CAPABILITIES
    noop_module = _NOOP

    def __init__(self, library: Path, compiler: str = "cranelift", name: str = "wasmer") -> None:
        self.name = name
        self._library = library
        self._compiler = compiler
        self._engine: Any = None
        self._compiling: Any = None
        self.noop: Path | None = None
        self.prepared: tuple[Span, ...] = ()

    @functools.cached_property
    def version(self) -> str:
        """Version of wasmer, and which binding this is: no result may hide that."""
        return f"{native_binding.wasmer_version()} native ({self._compiler})"

    def settings(self) -> dict[str, str]:
        """Compile settings (part of the cache key)."""
        return {
            "binding": f"native {native_binding.version()}",
            "compiler": self._compiler,
            "opt_level": "speed",
        }

    def check(self, spec: RunSpec) -> None:
        """Everything in a RunSpec is supported."""

    def variant(self, spec: RunSpec) -> str:
        """Counting fuel changes the code; other limits do not."""
        return "" if spec.fuel is None else FUEL

    @property
    def _binding(self) -> Any:
        return native_binding.load(self._library)

    def validate(self, wasm: bytes) -> None:
        """Raise `InvalidModule` if wasmer refuses the module."""
        refuse_other_than_core(wasm, _NO_COMPONENTS)
        binding = self._binding
        try:
            binding.Engine(self._compiler).validate(wasm)
        except binding.CompileError as error:
            raise refused("wasmer", error) from error

    def compile(self, wasm: bytes, key: str, variant: str = "", laps: Laps | None = None) -> Compiled:
        """Compile and serialize."""
        refuse_other_than_core(wasm, _NO_COMPONENTS)
        binding = self._binding
        metering = variant == FUEL
        engine = self._compiling
        if engine is None or metering:
            engine = binding.Engine(self._compiler, metering=metering)
        try:
            if laps is not None:
                engine.validate(wasm)
                laps("validate")
            module = engine.compile(wasm)
        except binding.CompileError as error:
            raise refused("wasmer", error) from error
        if laps is not None:
            laps("compile")
        code = module.serialize()
        if laps is not None:
            laps("serialize")
        name = f"{key}.wasmu"
        return Compiled(artifact=name, files={name: code})

    def prepare(self, cache_root: Path) -> None:
        """Import the binding and make the engines that every worker inherits."""
        laps = Laps()
        binding = self._binding
        laps("import")
        self._engine, self._compiling = binding.Engine(None), binding.Engine(self._compiler)
        laps("bind")
        self.prepared = tuple(laps.spans)

    def complete(self) -> None:
        """Nothing more can be made ahead."""

    def warm(self) -> None:
        """Nothing: all that can be shared was made in `prepare`, the rehearsal does the rest."""

    def run(
        self,
        artifact: Path,
        spec: RunSpec,
        stdio: Stdio,
        *,
        cold: bool,
        before_guest: Callable[[], None] | None = None,
    ) -> GuestResult:
        """Run a core module; see `Engine.run`."""
        laps = Laps()
        engine, binding = self._engine, self._binding
        assert engine is not None, "prepare() comes first"
        hand_over(stdio)

        try:
            if cold:
                with open(spec.module, "rb") as stream:
                    wasm = stream.read()
                laps("read")
                compiled = self.compile(wasm, "cold", self.variant(spec), laps)
                module = engine.deserialize(compiled.files[compiled.artifact])
            else:
                # The cache has compared its checksum, or knows the file's stamp.
                module = engine.deserialize_file(os.fspath(artifact), unchecked=True)
            laps("load")
        except InvalidModule as error:
            return laps.ended(None, "invalid_module", error.message)
        except binding.WasmerError as error:
            return laps.ended(None, "invalid_module", f"cannot load the compiled module: {error}")

        if before_guest is not None:
            before_guest()
            laps("confine")
        try:
            instance = module.instantiate(
                spec.argv,
                env=spec.env,
                preopens=[(one.host, one.guest, one.read_only) for one in spec.preopens],
                memory_limit_bytes=spec.memory_bytes,
                fuel=spec.fuel,
                listen=spec.listen,
                **_streams(stdio),
            )
        except binding.MemoryLimitError as error:
            return laps.ended(None, "out_of_memory", f"the module needs more memory to start: {error}")
        except binding.LinkError as error:
            return laps.ended(None, "link", str(error))
        except binding.Trap as error:
            return laps.ended(None, error.kind, f"wasm trap: {error}")
        except binding.Exit as leave:
            laps("instantiate")
            code, message = exit_code_of(leave.code)
            return laps.ended(code, None, message)
        laps("instantiate")
        try:
            raw = instance.run()
        except binding.Trap as error:
            laps("run")
            return trapped(laps, error.kind, f"wasm trap: {error}", instance.memory_bytes, spec.memory_bytes)
        laps("run")
        code, message = exit_code_of(raw)
        return laps.ended(code, None, message)


def _streams(stdio: Stdio) -> dict[str, Any]:
    if not stdio.framed:
        return {"stdin": 0, "stdout": 1, "stderr": 2}
    # Called at each write of the guest, so the order between the two streams is the guest's.
    return {
        "stdin": 0,
        "stdout": lambda data: write_frame(stdio.stdout, STDOUT, data),
        "stderr": lambda data: write_frame(stdio.stdout, STDERR, data),
    }


def make(name: str = "wasmer") -> WasmerNativeEngine | None:
    """Return the adapter if the engine called `name` is to be the native binding, None if it is ``wasmer-sdk``."""
    chosen = native_binding.chosen(name)
    return None if chosen is None else WasmerNativeEngine(*chosen, name)
