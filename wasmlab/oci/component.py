"""Read the top-level import and export names of a WASM component, which the CNCF artifact's config must list.

Only what that needs: the section headers of the binary and the two sections with names. Pure; never raises anything
but `InvalidModule` on bad bytes.

References
----------
WebAssembly component model, design/mvp/Binary.md (sections 10 ``import`` and 11 ``export``).
"""

from __future__ import annotations

from dataclasses import dataclass

from wasmlab.errors import InvalidModule

MAGIC = b"\0asm"
_CORE_VERSION = b"\x01\x00\x00\x00"
_COMPONENT_LAYER = b"\x01\x00"
_IMPORT, _EXPORT = 10, 11


@dataclass(frozen=True)
class ComponentNames:
    """Top-level names of a component, in the order of the binary."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]


def kind_of(header: bytes, what: str = "the file") -> str:
    """Tell a core module from a component by the first eight bytes.

    Returns
    -------
    str
        ``"core"`` or ``"component"``.

    Raises
    ------
    InvalidModule
        If it is neither.
    """
    if header[:4] != MAGIC:
        hint = "compile it first (wasmlab's build, or clang --target=wasm32-wasi)"
        if header[:7] == b"(module" or header[:10] == b"(component":
            hint = "this is the text format: translate it with wat2wasm or wasm-tools parse"
        elif header[:4] == b"\x7fELF":
            hint = "this is a native program: compile its source for wasm32-wasi"
        raise InvalidModule(f"{what} is not a WASM module: it begins with {header[:4]!r}", remedy=hint)
    if header[4:8] == _CORE_VERSION:
        return "core"
    if header[6:8] == _COMPONENT_LAYER:
        return "component"
    raise InvalidModule(
        f"{what} is WASM of the unknown version {header[4:8].hex(' ')}",
        remedy="rebuild it with a toolchain that writes version 1 modules",
    )


def component_names(data: bytes) -> ComponentNames:
    """Return the import and export names of the component `data`.

    Raises
    ------
    InvalidModule
        If the bytes are no component or a section is damaged.
    """
    if kind_of(data[:8]) != "component":
        raise InvalidModule("this is a core module, not a component")
    imports: list[str] = []
    exports: list[str] = []
    reader = _Reader(data, 8, len(data))
    while reader.offset < reader.end:
        section = reader.byte()
        body = reader.sub(reader.u32())
        if section == _IMPORT:
            for _ in range(body.u32()):
                imports.append(body.name())
                body.extern()
        elif section == _EXPORT:
            for _ in range(body.u32()):
                exports.append(body.name())
                if body.byte() == 0:  # a core sort has a second byte
                    body.byte()
                body.u32()
                if body.byte():
                    body.extern()
    return ComponentNames(tuple(imports), tuple(exports))


class _Reader:
    def __init__(self, data: bytes, offset: int, end: int) -> None:
        self.data, self.offset, self.end = data, offset, end

    def fail(self, why: str) -> InvalidModule:
        return InvalidModule(
            f"damaged component: {why} at byte {self.offset}", remedy="build the component again"
        )

    def byte(self) -> int:
        if self.offset >= self.end:
            raise self.fail("it ends too early")
        self.offset += 1
        return self.data[self.offset - 1]

    def u32(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self.fail("a number is too long")

    def sub(self, size: int) -> _Reader:
        if self.offset + size > self.end:
            raise self.fail("a section is cut off")
        start = self.offset
        self.offset += size
        return _Reader(self.data, start, self.offset)

    def text(self) -> str:
        part = self.sub(self.u32())
        try:
            return self.data[part.offset : part.end].decode()
        except UnicodeDecodeError:
            raise self.fail("a name is not UTF-8") from None

    def name(self) -> str:
        form = self.byte()
        if form not in (0, 1):  # plain name, interface name
            raise self.fail(f"unknown kind of name {form}")
        return self.text()

    def extern(self) -> None:
        kind = self.byte()
        if kind == 0:
            self.byte()
            self.u32()
        elif kind in (1, 4, 5):
            self.u32()
        elif kind == 2:
            self.byte()
            self.u32()
        elif kind == 3:
            if self.byte() == 0:
                self.u32()
        else:
            raise self.fail(f"unknown kind of import {kind}")
