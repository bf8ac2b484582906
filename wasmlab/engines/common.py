"""What the adapters do alike, in the same words: a reader who changes the engine should see no other difference."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wasmlab.errors import InvalidModule, Unsupported

if TYPE_CHECKING:
    from wasmlab.engines.base import GuestResult
    from wasmlab.engines.laps import Laps
    from wasmlab.engines.stdio import Stdio

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
NO_START = "the module exports no function _start: it is a library, not a command"
FUEL = "fuel"
"""The variant of compiled code that counts what it executes."""
# A guest that trapped with so much of its limit in use is taken to have run out of memory.
_NEARLY_ALL = 0.9

MEMORY_NOTE = (
    "memory.grow fails at the limit; out_of_memory is reported if the guest then traps with 90 % of the limit in use, "
    "or needs more than the limit to start"
)
DEADLINE_NOTE = "the worker is killed; there is no guest backtrace"
NO_SERVING_COMPONENTS = (
    "wasmtime 50's C API has no switch that lets wasi:sockets make a TCP socket, and no function that hands a request "
    "to wasi:http"
)


def trapped(laps: Laps, kind: str, reason: str, used_bytes: int, limit_bytes: int | None) -> GuestResult:
    """Return the result of a guest that trapped with `used_bytes` of memory."""
    if kind != "out_of_fuel" and limit_bytes is not None and used_bytes >= _NEARLY_ALL * limit_bytes:
        text = f"out of memory: {used_bytes} of {limit_bytes} bytes were in use when the guest gave up ({reason})"
        return laps.ended(None, "out_of_memory", text)
    return laps.ended(None, kind, reason)


def hand_over(stdio: Stdio) -> None:
    """Make the guest's streams descriptors 0 to 2 of this process.

    Engines then use real files, pipes and terminals, and copy nothing; and what the worker had there (the zygote's log,
    say) is nothing that a guest's process should hold.
    """
    os.dup2(stdio.stdin, 0)
    if not stdio.framed:
        os.dup2(stdio.stdout, 1)
        os.dup2(stdio.stderr, 2)


def refuse_other_than_wasm(wasm: bytes) -> None:
    """Raise `InvalidModule` for bytes that are no WASM binary; some engines would take them for the text format."""
    if wasm[:4] != b"\0asm":
        raise InvalidModule(
            f"not a WASM binary: it begins with {wasm[:4].hex(' ') or 'nothing'}, not 00 61 73 6d",
            remedy="compile it to WASM (python -m ziglang cc --target=wasm32-wasi), or check the download",
        )


def refuse_other_than_core(wasm: bytes, why_no_components: str) -> None:
    """Raise `InvalidModule` for what is no WASM binary, `Unsupported` for a component."""
    refuse_other_than_wasm(wasm)
    if wasm[:8] == COMPONENT_MAGIC:
        raise Unsupported(
            f"wasmer cannot run this component: {why_no_components}",
            remedy="run it on engine wasmtime",
            capability="components",
        )


def refused(engine: str, error: Exception) -> InvalidModule:
    """Return what to raise when `engine` refuses a module."""
    text = " ".join(str(error).split())
    if "_start" in text:  # wasmer-sdk looks for it before it compiles; the others when the module shall run
        return InvalidModule(NO_START, remedy="build it as a command, with a main function")
    return InvalidModule(
        f"{engine} refuses the module: {text}",
        remedy="compile it again, or check that the download is complete",
    )
