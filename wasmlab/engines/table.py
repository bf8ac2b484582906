"""What each engine can do, as one table made from what the adapters say of themselves.

``wasmlab doctor --engines`` prints it, the README holds it, and the tests try every cell of it on every adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasmlab import engines
from wasmlab.engines.base import Capabilities

# Capability -> what the reader gets. A test sees to it that none is forgotten.
TITLES = {
    "memory_limit": "memory limit, enforced inside the guest",
    "deadline": "deadline",
    "fuel": "limit of fuel (WASM operators)",
    "directories": "host directories, writable",
    "read_only_dirs": "host directories, read-only",
    "stdin": "stdin",
    "streaming": "output leaves while the guest runs",
    "stream_order": "a log keeps the order of stdout and stderr",
    "argv0": "argv[0] as given",
    "exit_codes_above_125": "exit codes 126 to 255",
    "trap_reason": "traps with their reason",
    "zero_timeouts": "a sleep of no time ends",
    "components": "WASI 0.2 components",
    "listens": "modules that serve on a TCP port",
    "phases": "all phases timed apart",
}
_COMPILERS = {
    "wasmtime": "cranelift",
    "wasmtime-runner": "cranelift",
    "wasmtime-winch": "winch",
    "wasmer-native": "cranelift",
    "wasmer-singlepass": "singlepass",
    "wasmer-sdk": "cranelift",
}
YES, NO = "yes", "no"


@dataclass(frozen=True)
class Table:
    """The table, and the notes that its cells point at.

    Attributes
    ----------
    head : tuple of str
        First column's name, then the engines as `engines.get` knows them.
    rows : tuple of tuple of str
        The compiler, then the capabilities: ``yes``, ``no``, and the number of a note if there is one: ``yes (2)``.
    notes : tuple of str
        The first has the number 1.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def capabilities(name: str) -> Capabilities:
    """Return what the adapter called `name` can do, whether or not it can be had on this machine."""
    # The classes say it; importing their modules imports no engine.
    if name.startswith("wasmtime"):
        from wasmlab.engines.wasmtime import WasmtimeEngine

        return WasmtimeEngine.capabilities
    if name == "wasmer-sdk":
        from wasmlab.engines.wasmer import WasmerEngine

        return WasmerEngine.capabilities
    from wasmlab.engines.wasmer_native import WasmerNativeEngine

    return WasmerNativeEngine.capabilities


def table() -> Table:
    """Return the table of all adapters."""
    names = engines.variants()
    notes: list[str] = []
    rows = [("compiler", *(_COMPILERS[name] for name in names))]
    for field, title in TITLES.items():
        cells = []
        for name in names:
            can = capabilities(name)
            note = can.notes.get(field, "")
            if note and note not in notes:
                notes.append(note)
            cells.append(
                (YES if getattr(can, field) else NO) + (f" ({notes.index(note) + 1})" if note else "")
            )
        rows.append((title, *cells))
    return Table(("", *names), tuple(rows), tuple(notes))


def markdown() -> str:
    """Return the table and its notes as Markdown."""
    made = table()
    lines = [_row(made.head), "|---|" + ":---:|" * (len(made.head) - 1), *map(_row, made.rows), ""]
    return "\n".join([*lines, *(f"{number}. {note}" for number, note in enumerate(made.notes, 1)), ""])


def text() -> str:
    """Return the table and its notes for a terminal."""
    made = table()
    lines = [made.head, *made.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(made.head))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    notes = [f"({number}) {note}" for number, note in enumerate(made.notes, 1)]
    return "\n".join([*(line.rstrip() for line in shown), "", *notes])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
