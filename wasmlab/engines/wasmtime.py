"""wasmtime, by its own Python package.

`prepare` makes the Engine and a Linker with all of WASI once, before the fork: both are independent of a Store, so
every worker inherits them ready. A run then maps the artifact (45 us), makes a Store, instantiates and calls.

References
----------
wasmtime C API, ``crates/c-api/include/wasmtime/{linker,store,wasi,module,component}.h``.
"""

from __future__ import annotations

import atexit
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.engines.base import Capabilities, Compiled, GuestResult, exit_code_of, package_version, trap_kind
from wasmlab.engines.common import (
    COMPONENT_MAGIC,
    DEADLINE_NOTE,
    FUEL,
    MEMORY_NOTE,
    NO_SERVING_COMPONENTS,
    NO_START,
    hand_over,
    refuse_other_than_wasm,
    refused,
    trapped,
)
from wasmlab.engines.laps import Laps
from wasmlab.engines.sockets import MODULE as WASIX
from wasmlab.engines.sockets import Sockets
from wasmlab.engines.spec import RunSpec, Span
from wasmlab.engines.stdio import STDERR, STDOUT, Stdio, write_frame
from wasmlab.errors import InvalidModule

if TYPE_CHECKING:
    from collections.abc import Callable

    import wasmtime

# A worker must know which of the two it maps before it maps it.
_COMPONENT_SUFFIX = ".component.cwasm"
# fd_write of one byte, then proc_exit(0): what a worker rehearses with.
_NOOP = bytes.fromhex(
    "0061736d0100000001100360047f7f7f7f017f60017f0060000002460216776173695f736e617073686f745f707265766965"
    "77310866645f7772697465000016776173695f736e617073686f745f70726576696577310970726f635f6578697400010302"
    "01020503010001071302066d656d6f72790200065f737461727400020a13011100410141004101410810001a410010010b0b"
    "07010041040b0101"
)
# The main thread has 8 MiB (`limits.py` sees to it); the engine's default of 512 KiB is too little for CPython.
MAX_STACK_BYTES = 2 << 20
# A table entry costs the host 8 bytes that no memory limit counts.
_MAX_TABLE_ELEMENTS = 10_000_000
# ``wasmtime_strategy_t``: the package's own setter does not know the last one.
STRATEGIES = {"cranelift": 1, "winch": 2}

_CAPABILITIES = Capabilities(
    notes={
        "components": "WASI 0.2 commands run; their exit code is 0 or 1, as wasi:cli/exit defines it",
        "memory_limit": MEMORY_NOTE,
        "deadline": DEADLINE_NOTE,
        "listens": "core modules, by sockets of WASIX that the worker has (sock_open to sock_send); "
        f"not components: {NO_SERVING_COMPONENTS}",
        "fuel": "the module is compiled to count what it executes; the worker makes the engine for that when asked",
    }
)


class _ProcExit(BaseException):
    """Carries the code of proc_exit out of the guest; BaseException so that nothing in between handles it."""

    def __init__(self, code: int) -> None:
        self.code = code


def _proc_exit(code: int) -> None:
    raise _ProcExit(code)


class WasmtimeEngine:
    """The adapter.

    Parameters
    ----------
    compiler : {"cranelift", "winch"}
        Cranelift makes fast code, winch makes code fast.
    name : str
        What the engine is called.
    """

    capabilities = _CAPABILITIES
    noop_module = _NOOP

    def __init__(self, compiler: str = "cranelift", name: str = "wasmtime") -> None:
        self.name = name
        self._compiler = compiler
        self._engine: wasmtime.Engine | None = None
        self._engine_variant = ""
        self._linker: wasmtime.Linker | None = None
        self._component_linker: wasmtime.component.Linker | None = None
        self.noop: Path | None = None
        self.prepared: tuple[Span, ...] = ()

    @functools.cached_property
    def version(self) -> str:
        """Version of the package ``wasmtime``, and the compiler if it is not the usual one."""
        plain = package_version("wasmtime")
        return plain if self._compiler == "cranelift" else f"{plain} ({self._compiler})"

    def settings(self) -> dict[str, str]:
        """Compile settings (part of the cache key)."""
        return {"compiler": self._compiler, "opt_level": "speed"}

    def check(self, spec: RunSpec) -> None:
        """Everything in a RunSpec is supported."""

    def variant(self, spec: RunSpec) -> str:
        """Counting fuel changes the code; other limits do not."""
        return "" if spec.fuel is None else FUEL

    def _make_engine(self, variant: str = "") -> wasmtime.Engine:
        import wasmtime
        from wasmtime import _bindings

        config = wasmtime.Config()
        config.max_wasm_stack = MAX_STACK_BYTES
        _bindings.wasmtime_config_strategy_set(config.ptr(), STRATEGIES[self._compiler])
        if variant == FUEL:
            config.consume_fuel = True
        return wasmtime.Engine(config)

    def validate(self, wasm: bytes) -> None:
        """Raise `InvalidModule` if wasmtime refuses the module."""
        import wasmtime

        if wasm[:8] == COMPONENT_MAGIC:
            self.compile(wasm, "validate")
            return
        try:
            wasmtime.Module.validate(self._engine or self._make_engine(), wasm)
        except wasmtime.WasmtimeError as error:
            raise refused("wasmtime", error) from error

    def compile(self, wasm: bytes, key: str, variant: str = "", laps: Laps | None = None) -> Compiled:
        """Compile and serialize. A component is not validated by itself: the binding has no function for that."""
        import wasmtime

        refuse_other_than_wasm(wasm)
        is_component = wasm[:8] == COMPONENT_MAGIC
        engine = self._engine
        if engine is None or variant != self._engine_variant:
            engine = self._make_engine(variant)
        try:
            if laps is not None and not is_component:
                wasmtime.Module.validate(engine, wasm)
                laps("validate")
            compiled: wasmtime.Module | wasmtime.component.Component
            if is_component:
                from wasmtime import component

                compiled = component.Component(engine, wasm)
            else:
                compiled = wasmtime.Module(engine, wasm)
            if laps is not None:
                laps("compile")
            code = bytes(compiled.serialize())
        except wasmtime.WasmtimeError as error:
            raise refused("wasmtime", error) from error
        if laps is not None:
            laps("serialize")
        name = key + (_COMPONENT_SUFFIX if is_component else ".cwasm")
        return Compiled(artifact=name, files={name: code})

    def prepare(self, cache_root: Path) -> None:
        """Make the Engine and the Linker that every worker inherits."""
        laps = Laps()
        import wasmtime  # noqa: F401 - here, so that it is a phase of its own

        laps("import")
        engine = self._make_engine()
        linker = _linker(engine)
        if self._engine is None:
            # Freed while the bindings still exist; at the very end of an interpreter their destructors only complain.
            atexit.register(self._free)
        self._engine, self._linker = engine, linker
        laps("bind")
        self.prepared = tuple(laps.spans)

    def complete(self) -> None:
        """Import what only components need (6 ms) and make their linker, which can be shared as well."""
        from wasmtime import component

        assert self._engine is not None, "prepare() comes first"
        self._component_linker = component.Linker(self._engine)
        self._component_linker.add_wasip2()

    def _free(self) -> None:
        self._engine = self._linker = self._component_linker = None

    def warm(self) -> None:
        """Say how many threads a worker needs; all that can be shared was made in `prepare`."""
        # wasmtime-wasi writes framed output and waits for clocks by tokio, which would start one thread per CPU.
        os.environ["TOKIO_WORKER_THREADS"] = "1"

    def run(
        self,
        artifact: Path,
        spec: RunSpec,
        stdio: Stdio,
        *,
        cold: bool,
        before_guest: Callable[[], None] | None = None,
    ) -> GuestResult:
        """Run a command module or component; see `Engine.run`."""
        import wasmtime

        laps = Laps()

        if spec.fuel is not None:
            self._count_fuel()
        engine, linker = self._engine, self._linker
        assert engine is not None, "prepare() comes first"
        assert linker is not None, "prepare() comes first"
        hand_over(stdio)
        try:
            with open(spec.module if cold else artifact, "rb") as stream:
                head = stream.read(8)
                wasm = head + stream.read() if cold else b""
            if cold:
                laps("read")
                compiled = self.compile(wasm, "cold", self.variant(spec), laps)
                code = compiled.files[compiled.artifact]
                is_component = head == COMPONENT_MAGIC
            else:
                is_component = str(artifact).endswith(_COMPONENT_SUFFIX)
            if is_component:
                return self._run_component(code if cold else None, artifact, spec, stdio, laps, before_guest)
            if cold:
                module = wasmtime.Module.deserialize(engine, code)
            else:
                module = wasmtime.Module.deserialize_file(engine, str(artifact))
            laps("load")
        except InvalidModule as error:
            return laps.ended(None, "invalid_module", error.message)
        except wasmtime.WasmtimeError as error:
            return laps.ended(None, "invalid_module", f"cannot load the compiled module: {error}")

        if before_guest is not None:
            before_guest()
            laps("confine")
        store = self._store(spec, stdio)
        try:
            instance = _instantiate(linker, store, module, spec.listen)
            exports = instance.exports(store)
            start_function = exports.get("_start")
        except wasmtime.Trap as error:
            return trapped(laps, *_reason(error), 0, spec.memory_bytes)
        except _ProcExit as leave:
            laps("instantiate")
            return laps.ended(*_left(leave))
        except wasmtime.WasmtimeError as error:
            return laps.ended(None, *_not_instantiated(error))
        if not isinstance(start_function, wasmtime.Func):
            return laps.ended(None, "link", NO_START)
        laps("instantiate")
        left: tuple[int, None, str] = (0, None, "")
        try:
            start_function(store)
        except _ProcExit as leave:
            left = _left(leave)
        except wasmtime.Trap as error:
            laps("run")
            memory = exports.get("memory")
            used = memory.data_len(store) if isinstance(memory, wasmtime.Memory) else 0
            return trapped(laps, *_reason(error), used, spec.memory_bytes)
        except wasmtime.WasmtimeError as error:
            laps("run")
            return laps.ended(None, "failed", f"wasmtime failed: {error}")
        laps("run")
        return laps.ended(*left)

    def _count_fuel(self) -> None:
        """Change to an engine that counts, for code that does; made here, since hardly any run wants it."""
        self._engine, self._engine_variant = self._make_engine(FUEL), FUEL
        self._linker, self._component_linker = _linker(self._engine), None

    def _store(self, spec: RunSpec, stdio: Stdio) -> wasmtime.Store:
        import wasmtime

        assert self._engine is not None
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=-1 if spec.memory_bytes is None else spec.memory_bytes,
            table_elements=_MAX_TABLE_ELEMENTS,
        )
        if spec.fuel is not None:
            store.set_fuel(spec.fuel)
        wasi = wasmtime.WasiConfig()
        wasi.argv = list(spec.argv)
        wasi.env = spec.env
        wasi.inherit_stdin()
        if stdio.framed:
            # Called at each write of the guest, so the order between the two streams is the guest's.
            wasi.stdout_custom = lambda data: write_frame(stdio.stdout, STDOUT, data)
            wasi.stderr_custom = lambda data: write_frame(stdio.stdout, STDERR, data)
        else:
            wasi.inherit_stdout()
            wasi.inherit_stderr()
        for one in spec.preopens:
            wasi.preopen_dir(one.host, one.guest, not one.read_only)
        store.set_wasi(wasi)
        return store

    def _run_component(
        self,
        code: bytes | None,
        artifact: Path,
        spec: RunSpec,
        stdio: Stdio,
        laps: Laps,
        before_guest: Callable[[], None] | None,
    ) -> GuestResult:
        import wasmtime
        from wasmtime import component

        if spec.listen:
            return laps.ended(None, "unsupported", f"a component cannot serve: {NO_SERVING_COMPONENTS}")
        engine = self._engine
        assert engine is not None
        try:
            if code is None:
                loaded = component.Component.deserialize_file(engine, str(artifact))
            else:
                loaded = component.Component.deserialize(engine, code)
        except wasmtime.WasmtimeError as error:
            return laps.ended(None, "invalid_module", f"cannot load the compiled component: {error}")
        laps("load")
        if self._component_linker is None:
            self.complete()
        linker = self._component_linker
        assert linker is not None
        if before_guest is not None:
            before_guest()
            laps("confine")
        store = self._store(spec, stdio)
        try:
            instance = linker.instantiate(store, loaded)
        except wasmtime.WasmtimeError as error:
            return laps.ended(None, *_not_instantiated(error))
        run = None
        for minor in range(9, -1, -1):  # the newest 0.2.x that it exports
            interface = instance.get_export_index(store, f"wasi:cli/run@0.2.{minor}")
            if interface is not None:
                run = instance.get_func(store, instance.get_export_index(store, "run", interface) or "run")
                break
        if run is None:
            return laps.ended(
                None, "link", "the component does not export wasi:cli/run@0.2: it is not a command"
            )
        laps("instantiate")
        message = ""
        try:
            value = run(store)
            code_left = 1 if isinstance(value, component.Variant) and value.tag == "err" else 0
        except wasmtime.ExitTrap as leave:
            code_left, message = exit_code_of(leave.code)
        except wasmtime.Trap as error:
            laps("run")
            return trapped(laps, *_reason(error), 0, spec.memory_bytes)
        except wasmtime.WasmtimeError as error:
            laps("run")
            # A component's trap comes without its code: the message is all there is.
            _, mark, reason = str(error).rpartition("wasm trap: ")
            kind = (trap_kind(reason) or "trap") if mark else "failed"
            text = f"wasm trap: {' '.join(reason.split())}" if mark else f"wasmtime failed: {error}"
            return laps.ended(None, kind, text)
        laps("run")
        return laps.ended(code_left, None, message)


def _linker(engine: wasmtime.Engine) -> wasmtime.Linker:
    import wasmtime

    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    # The engine's own proc_exit rejects codes of 126 and more and loses them.
    linker.allow_shadowing = True
    signature = wasmtime.FuncType([wasmtime.ValType.i32()], [])
    for module in ("wasi_snapshot_preview1", "wasi_unstable"):
        linker.define_func(module, "proc_exit", signature, _proc_exit)
    return linker


def _instantiate(
    linker: wasmtime.Linker, store: wasmtime.Store, module: wasmtime.Module, ports: tuple[int, ...]
) -> wasmtime.Instance:
    """Instantiate a module, with sockets if it is to listen. One that wants sockets and has no port gets those that
    refuse, as on wasmer: it may do something else instead."""
    import wasmtime

    if not ports:
        try:
            return linker.instantiate(store, module)
        except wasmtime.WasmtimeError as error:
            if f"`{WASIX}::" not in str(error):
                raise
    Sockets(ports).define(linker, store)
    return linker.instantiate(store, module)


def _left(leave: _ProcExit) -> tuple[int, None, str]:
    code, message = exit_code_of(leave.code)
    return code, None, message


def _reason(error: wasmtime.Trap) -> tuple[str, str]:
    code = error.trap_code
    kind = code.name.lower() if code is not None else "trap"
    # The message is a backtrace: its last line holds the reason, the first says nothing new.
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("wasm trap:")]
    return kind, named[-1] if named else (lines or [kind])[0]


def _not_instantiated(error: Exception) -> tuple[str, str]:
    text = " ".join(str(error).split())
    if "exceeds memory limits" in text:
        return "out_of_memory", f"the module needs more memory to start: {text}"
    return "link", text
