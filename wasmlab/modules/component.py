"""Make a WASI 0.2 command (a component) of a core module.

The usual toolchain for this is a program of its own with an adapter module. Nothing of it is needed here: the kernels
use so little of WASI that ``data/wasm/components/wasip2.c`` (linked with them) puts that on WASI 0.2, and
``command.wat`` describes the component around the module. The text is assembled by the package ``wasmtime``; the
module it holds is a stand-in, for text cannot include a binary, and is replaced here.

References
----------
Component model, design/mvp/Binary.md ("Component Definitions": a core module is section 1) and CanonicalABI.md.
"""

from __future__ import annotations

from wasmlab.errors import InvalidModule
from wasmlab.modules.module import Module

_CUSTOM, _CORE_MODULE = 0, 1


def wrap(core: Module, template: str) -> Module:
    """Return the component that `template` describes, with `core` as its first core module.

    Parameters
    ----------
    core : Module
        A core module with exactly the imports and exports of the stand-in.
    template : str
        A component in the text format; the first core module in it is the stand-in.

    Raises
    ------
    InvalidModule
        If `core` imports or exports something else than the stand-in.
    """
    import wasmtime

    outer = Module(bytes(wasmtime.wat2wasm(template)), name=core.name)
    stand_in, *_ = (section for section in outer.sections if section.id == _CORE_MODULE)
    expected = Module(_content(outer, stand_in.offset, stand_in.size_bytes), name="the stand-in")
    for what in ("imports", "exports"):
        wanted, got = set(getattr(expected, what)), set(getattr(core, what))
        if what == "exports":
            got &= wanted  # more exports do no harm
        if wanted != got:
            raise InvalidModule(
                f"{core.name} {what} {sorted(got)}, the component needs {sorted(wanted)}",
                remedy="link it with data/wasm/components/wasip2.c, which provides what the kernels use of WASI",
            )
    parts = [outer.data[:8]]
    for section in outer.sections:
        if section.id == _CUSTOM:  # names of the text: of no use, and another assembler may write others
            continue
        content = _content(outer, section.offset, section.size_bytes)
        if section is stand_in:
            content = core.data
        parts += [bytes([section.id]), _uleb(len(content)), content]
    return Module(b"".join(parts), name=core.name)


def _content(module: Module, offset: int, size_bytes: int) -> bytes:
    return module.data[offset : offset + size_bytes]


def _uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)
