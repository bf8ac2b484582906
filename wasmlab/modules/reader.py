"""A cursor over bytes that knows where it is: LEB128 numbers, names, slices, and errors with offsets."""

from __future__ import annotations

from wasmlab.errors import InvalidModule


class Reader:
    """Reads `data` from `at` up to `end`.

    Parameters
    ----------
    data : bytes
        The whole binary: slices share it, so that offsets in errors are offsets in the file.
    name : str
        Whose bytes they are, for error messages.
    """

    def __init__(self, data: bytes, name: str, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.name = name
        self.at = at
        self.end = len(data) if end is None else end

    def error(self, what: str, offset: int, *, remedy: str | None = None) -> InvalidModule:
        """Build the error that names the offset."""
        return InvalidModule(
            f"{self.name} {what} (at byte {offset:,} of {len(self.data):,})",
            remedy=remedy or "get the file again: it is truncated or damaged",
            offset=offset,
        )

    def byte(self, what: str) -> int:
        """Read one byte."""
        if self.at >= self.end:
            raise self.error(f"ends where {what} should be", self.at)
        value = self.data[self.at]
        self.at += 1
        return value

    def _leb(self, what: str, bits: int) -> int:
        start, value, shift = self.at, 0, 0
        while True:
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
            if shift >= bits:
                raise self.error(f"has too long a number for {what}", start)
        if value >> bits:
            raise self.error(f"has too large a number for {what}", start)
        return value

    def u32(self, what: str) -> int:
        """Read an unsigned LEB128 number of at most 32 bits."""
        return self._leb(what, 32)

    def u64(self, what: str) -> int:
        """Read an unsigned LEB128 number of at most 64 bits."""
        return self._leb(what, 64)

    def s33(self, what: str) -> None:
        """Skip a signed LEB128 number of at most 33 bits (a heap type or a component value type)."""
        self._leb(what, 35)

    def text(self, what: str) -> str:
        """Read a name: its length in bytes, then UTF-8."""
        size = self.u32(f"the length of {what}")
        part = self.slice(size, what)
        self.at = part.end
        try:
            return self.data[part.at : part.end].decode()
        except UnicodeDecodeError as error:
            raise self.error(f"has {what} that is not UTF-8", part.at + error.start) from None

    def slice(self, size: int, what: str) -> Reader:
        """Return a reader over the next `size` bytes; this one does not move.

        Raises
        ------
        InvalidModule
            If fewer bytes are left.
        """
        left = self.end - self.at
        if size > left:
            raise self.error(f"ends inside {what}: {size:,} bytes announced, {left:,} there", self.end)
        return Reader(self.data, self.name, self.at, self.at + size)

    def __repr__(self) -> str:
        return f"Reader({self.name!r}, at={self.at}, end={self.end})"
