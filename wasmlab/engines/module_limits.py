"""Read and lower the limits of a core module's memories, byte for byte.

wasmer's SDK has no memory limit, but every engine honours the maximum that a module declares: lowering that maximum
makes ``memory.grow`` fail inside the guest exactly as a host limit would.

References
----------
WebAssembly core specification 2.0, 5.5 (sections), 5.3.7 (limits).
"""

from __future__ import annotations

from wasmlab.errors import InvalidModule

PAGE_BYTES = 65536
_IMPORTS, _MEMORIES = 2, 5
_MAX_PAGES = 65536


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise InvalidModule(f"the module ends, or holds no number, at offset {at}", offset=at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _encode(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _sections(wasm: bytes) -> list[tuple[int, int, int, int]]:
    """Return (id, offset of the section, offset of its body, offset of its end) of each section."""
    if wasm[:8] != b"\0asm\x01\0\0\0":
        raise InvalidModule("not a core WASM module (version 1)", offset=0)
    found, at = [], 8
    while at < len(wasm):
        size, body = _uleb(wasm, at + 1)
        if body + size > len(wasm):
            raise InvalidModule(
                f"the module is truncated: a section at offset {at} ends beyond it", offset=at
            )
        found.append((wasm[at], at, body, body + size))
        at = body + size
    return found


def _limits(data: bytes, at: int) -> tuple[int, int, int | None, int]:
    """Return (flags, minimum, maximum, next offset) of the limits at `at`."""
    flags = data[at]
    low, at = _uleb(data, at + 1)
    high = None
    if flags & 1:
        high, at = _uleb(data, at)
    return flags, low, high, at


def _patched(data: bytes, at: int, pages: int) -> tuple[bytes, int]:
    flags, low, high, end = _limits(data, at)
    limit = max(low, min(pages, _MAX_PAGES if high is None else high))
    return bytes([flags | 1]) + _encode(low) + _encode(limit), end


def _skip_import(data: bytes, at: int) -> tuple[int, int]:
    """Return (kind, offset of the description) of the import at `at`."""
    for _ in range(2):  # module name, field name
        size, at = _uleb(data, at)
        at += size
    return data[at], at + 1


def initial_bytes(wasm: bytes) -> int:
    """Return the linear memory that the module needs to start, in bytes (imported memories included)."""
    total = 0
    for section, _, body, _ in _sections(wasm):
        if section == _IMPORTS:
            count, at = _uleb(wasm, body)
            for _ in range(count):
                kind, at = _skip_import(wasm, at)
                if kind == 2:
                    _, low, _, at = _limits(wasm, at)
                    total += low
                else:
                    at = _end_of_import(wasm, kind, at)
        elif section == _MEMORIES:
            count, at = _uleb(wasm, body)
            for _ in range(count):
                _, low, _, at = _limits(wasm, at)
                total += low
            break
    return total * PAGE_BYTES


def _end_of_import(data: bytes, kind: int, at: int) -> int:
    if kind == 0:  # function: type index
        return _uleb(data, at)[1]
    if kind == 1:  # table: reference type, limits
        return _limits(data, at + 1)[3]
    if kind == 3:  # global: value type, mutability
        return at + 2
    if kind == 4:  # tag: attribute, type index
        return _uleb(data, at + 1)[1]
    raise InvalidModule(f"an import of unknown kind {kind} at offset {at}", offset=at)


def with_memory_limit(wasm: bytes, limit_bytes: int) -> bytes:
    """Return the module with the maximum of each memory lowered to `limit_bytes` (never below its minimum).

    Raises
    ------
    InvalidModule
        If the bytes are not a core module, with the offset.
    """
    pages = limit_bytes // PAGE_BYTES
    out, copied = [], 0
    for section, start, body, end in _sections(wasm):
        if section not in (_IMPORTS, _MEMORIES):
            continue
        count, at = _uleb(wasm, body)
        parts, kept = [wasm[body:at]], at
        changed = False
        for _ in range(count):
            if section == _IMPORTS:
                kind, at = _skip_import(wasm, at)
                if kind != 2:
                    at = _end_of_import(wasm, kind, at)
                    continue
            limits, after = _patched(wasm, at, pages)
            parts += [wasm[kept:at], limits]
            kept = at = after
            changed = True
        if changed:
            parts.append(wasm[kept:end])
            content = b"".join(parts)
            out += [wasm[copied:start], bytes([section]), _encode(len(content)), content]
            copied = end
        if section == _MEMORIES:
            break
    return b"".join([*out, wasm[copied:]])
