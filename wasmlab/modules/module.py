"""Read a WASM binary far enough to say what it is, what it wants and what it offers.

Pure: bytes in, facts out. Function bodies are not validated (an engine does that); what is read here is checked
strictly, and every error names the offset at which reading stopped.

References
----------
WebAssembly Core Specification 3.0, section 5.5 "Modules" (binary format).
Component model, design/mvp/Binary.md ("preamble", "Import and Export Definitions").
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wasmlab.modules.reader import Reader

MAGIC = b"\0asm"
PAGE_BYTES = 65536
# The 32-bit word after the magic: a 16-bit version and a 16-bit layer. Layer 0 is a core module, 1 a component.
_KINDS: dict[bytes, Literal["core", "component"]] = {
    b"\x01\x00\x00\x00": "core",
    b"\x0d\x00\x01\x00": "component",
}
_CORE_SECTIONS = {
    0: "custom",
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    10: "code",
    11: "data",
    12: "data count",
    13: "tag",
}
# Sections come in this order, which is not that of their ids: data count and tag were added later.
_CORE_ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
_COMPONENT_SECTIONS = {
    0: "custom",
    1: "core module",
    2: "core instance",
    3: "core type",
    4: "component",
    5: "instance",
    6: "alias",
    7: "type",
    8: "canonical function",
    9: "start",
    10: "import",
    11: "export",
    12: "value",
}
_EXTERNAL_KINDS = ("function", "table", "memory", "global", "tag")


@dataclass(frozen=True)
class Section:
    """One section of a binary: its `id` and `name`, and where it is (`offset` and `size_bytes` in the file)."""

    id: int
    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Module:
    """A WASM binary and what its header and sections say.

    Parameters
    ----------
    data : bytes
        The binary.
    name : str
        What to call it; the file name without its ending, for `from_file`.

    Attributes
    ----------
    digest : str
        ``"sha256:..."`` of the bytes: what registries and the compile cache know it by.
    size_bytes : int
        Length of the binary.
    kind : {"core", "component"}
        A core module, or a component of the component model.
    imports, exports : tuple of str
        What it needs (``"wasi_snapshot_preview1.fd_write"``) and offers (``"_start"``), in file order.
    sections : tuple of Section
        All sections in file order.
    functions : int
        How many functions it defines (core modules).
    memory_bytes, memory_limit_bytes : int or None
        Size of its first own linear memory at the start, and the most it may grow to (None: no such thing).

    Raises
    ------
    InvalidModule
        If the bytes are no WASM binary or end too early; ``offset`` says where.

    Examples
    --------
    >>> Module(b"\\0asm\\1\\0\\0\\0", name="empty").kind
    'core'
    """

    data: bytes = field(repr=False)
    name: str = "module"
    digest: str = field(init=False)
    size_bytes: int = field(init=False)
    kind: Literal["core", "component"] = field(init=False)
    sections: tuple[Section, ...] = field(init=False, repr=False)
    imports: tuple[str, ...] = field(init=False, repr=False)
    exports: tuple[str, ...] = field(init=False, repr=False)
    functions: int = field(init=False, repr=False)
    memory_bytes: int | None = field(init=False, repr=False)
    memory_limit_bytes: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        facts = _parse(self.data, self.name)
        facts["digest"] = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
        facts["size_bytes"] = len(self.data)
        for attribute, value in facts.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def from_file(cls, path: str | Path) -> Module:
        """Read a binary from a file.

        Parameters
        ----------
        path : path
            A ``.wasm`` file.

        Raises
        ------
        InvalidModule
            If it is none.
        OSError
            If the file cannot be read.
        """
        path = Path(path)
        return cls(path.read_bytes(), name=path.stem)

    @property
    def is_command(self) -> bool:
        """Whether it is a program: it exports ``_start`` (core) or the WASI ``run`` interface (component)."""
        return "_start" in self.exports or any(name.startswith("wasi:cli/run@") for name in self.exports)

    def _repr_html_(self) -> str:
        return _as_html(self)


def _parse(data: bytes, name: str) -> dict[str, object]:
    reader = Reader(data, name)
    if data[:4] != MAGIC:
        if not data:
            raise reader.error("is empty", 0)
        if len(data) < 4 and MAGIC.startswith(data):
            raise reader.error("ends inside its magic number", len(data))
        hint = _what_is_it(data)
        raise reader.error(
            f"does not start with the magic number \\0asm but with {data[:4]!r}{hint}",
            0,
            remedy="give the path of a .wasm binary; text (.wat) and C must be compiled first",
        )
    word = data[4:8]
    if len(word) < 4:
        raise reader.error("ends inside its version word", len(data))
    if word not in _KINDS:
        raise reader.error(
            f"has the unknown version word {word.hex(' ')}; known are 01 00 00 00 (core) and 0d 00 01 00 (component)",
            4,
        )
    kind = _KINDS[word]
    reader.at = 8
    facts: dict[str, object] = {
        "kind": kind,
        "imports": (),
        "exports": (),
        "functions": 0,
        "memory_bytes": None,
        "memory_limit_bytes": None,
    }
    names = _CORE_SECTIONS if kind == "core" else _COMPONENT_SECTIONS
    sections: list[Section] = []
    place = -1
    while reader.at < len(data):
        start = reader.at
        section_id = reader.byte("a section id")
        if section_id not in names:
            raise reader.error(f"has a section with the unknown id {section_id}", start)
        size = reader.u32(f"the size of the {names[section_id]} section")
        content = reader.slice(size, f"the {names[section_id]} section")
        if kind == "core" and section_id:
            position = _CORE_ORDER.index(section_id)
            if position <= place:
                raise reader.error(f"has its {names[section_id]} section twice or out of order", start)
            place = position
        sections.append(Section(section_id, names[section_id], content.at, size))
        _read_section(kind, section_id, content, facts)
        reader.at = content.end
    facts["sections"] = tuple(sections)
    return facts


def _read_section(kind: str, section_id: int, content: Reader, facts: dict) -> None:
    if kind == "component":
        if section_id == 10:
            facts["imports"] += _component_imports(content)
        elif section_id == 11:
            facts["exports"] += _component_exports(content)
        return
    if section_id == 2:
        facts["imports"] = _imports(content)
    elif section_id == 3:
        facts["functions"] = content.u32("the number of functions")
    elif section_id == 5 and content.u32("the number of memories"):
        least, most = _limits(content)
        facts["memory_bytes"] = least * PAGE_BYTES
        facts["memory_limit_bytes"] = None if most is None else most * PAGE_BYTES
    elif section_id == 7:
        facts["exports"] = _exports(content)


def _imports(content: Reader) -> tuple[str, ...]:
    found = []
    for _ in range(content.u32("the number of imports")):
        module = content.text("an import's module name")
        field_name = content.text("an import's name")
        start = content.at
        external = content.byte("an import's kind")
        if external == 0:
            content.u32("an import's type")
        elif external == 1:
            _reference_type(content)
            _limits(content)
        elif external == 2:
            _limits(content)
        elif external == 3:
            _value_type(content)
            content.byte("an imported global's mutability")
        elif external == 4:
            content.byte("an imported tag's attribute")
            content.u32("an imported tag's type")
        else:
            raise content.error(f"imports {module}.{field_name} with the unknown kind {external}", start)
        found.append(f"{module}.{field_name}")
    return tuple(found)


def _exports(content: Reader) -> tuple[str, ...]:
    found = []
    for _ in range(content.u32("the number of exports")):
        name = content.text("an export's name")
        start = content.at
        if content.byte("an export's kind") >= len(_EXTERNAL_KINDS):
            raise content.error(f"exports {name!r} with an unknown kind", start)
        content.u32("an export's index")
        found.append(name)
    return tuple(found)


def _limits(content: Reader) -> tuple[int, int | None]:
    flags = content.byte("a limit's flags")
    least = content.u64("a lower limit")
    return least, content.u64("an upper limit") if flags & 1 else None


def _value_type(content: Reader) -> None:
    # 0x63 and 0x64 are (ref null ht) and (ref ht): a heap type follows.
    if content.byte("a value type") in (0x63, 0x64):
        content.s33("a heap type")


_reference_type = _value_type


def _component_name(content: Reader) -> str:
    form = content.byte("a name's form")
    name = content.text("a name")
    if form == 2:  # a name with options (added after 0x01): (byte, string) pairs
        for _ in range(content.u32("the number of a name's options")):
            content.byte("a name option")
            content.text("a name option's text")
    return name


def _component_description(content: Reader) -> None:
    start = content.at
    sort = content.byte("an extern description")
    if sort == 0x00:
        content.byte("a core sort")
        content.u32("a type index")
    elif sort in (0x01, 0x04, 0x05):
        content.u32("a type index")
    elif sort in (0x02, 0x03):
        bound = content.byte("a bound")
        if bound == 0 or sort == 0x02:
            content.s33("a bound's type")
    else:
        raise content.error(f"has an extern description of the unknown sort {sort}", start)


def _component_imports(content: Reader) -> tuple[str, ...]:
    found = []
    for _ in range(content.u32("the number of imports")):
        found.append(_component_name(content))
        _component_description(content)
    return tuple(found)


def _component_exports(content: Reader) -> tuple[str, ...]:
    found = []
    for _ in range(content.u32("the number of exports")):
        found.append(_component_name(content))
        if content.byte("an export's sort") == 0x00:
            content.byte("an export's core sort")
        content.u32("an export's index")
        if content.byte("whether an export has a type"):
            _component_description(content)
    return tuple(found)


def _what_is_it(data: bytes) -> str:
    """Return a guess at what was given in place of a module, for the error message."""
    for start, what in (
        (b"\x7fELF", "a native Linux program"),
        (b"\x1f\x8b", "gzip data"),
        (b"PK\x03\x04", "a zip archive"),
        (b"(module", "WebAssembly text, which must be compiled first"),
        (b"(component", "WebAssembly text, which must be compiled first"),
        (b"{", "JSON"),
        (b"<", "HTML or XML"),
        (b"#!", "a script"),
    ):
        if data.lstrip()[: len(start)] == start:
            return f" (it looks like {what})"
    return ""


_COLORS = {"code": "#0072B2", "data": "#E69F00", "custom": "#999999", "core module": "#0072B2"}


def _as_html(module: Module) -> str:
    bar: list[str] = []
    legend: list[str] = []
    for section in sorted(module.sections, key=lambda one: -one.size_bytes):
        share = 100 * section.size_bytes / max(1, module.size_bytes)
        if share < 1:
            continue
        color = _COLORS.get(section.name, "#56B4E9")
        title = f"{section.name}: {section.size_bytes:,} bytes"
        bar.append(f'<span title="{title}" style="background:{color};width:{share:.1f}%"></span>')
        if len(legend) < 4:
            legend.append(f'<span style="color:{color}">■</span> {section.name} {section.size_bytes:,}')
    shown = [html.escape(name) for name in module.imports[:12]]
    if len(module.imports) > len(shown):
        shown.append(f"… {len(module.imports) - len(shown)} more")
    rows = [
        ("digest", f"<code>{module.digest[:19]}…</code>"),
        ("sections", f'<div class="b">{"".join(bar)}</div>{" &nbsp; ".join(legend)} bytes'),
        ("imports", "<br>".join(f"<code>{name}</code>" for name in shown) or "none"),
        ("exports", ", ".join(f"<code>{html.escape(name)}</code>" for name in module.exports[:12]) or "none"),
    ]
    if module.memory_bytes is not None:
        rows.append(("memory", f"{module.memory_bytes // 1024:,} KiB at the start"))
    style = (
        "<style scoped>.wasmlab-module .b{display:flex;height:10px;width:360px;max-width:100%;border-radius:3px;"
        "overflow:hidden;margin:3px 0}.wasmlab-module td,.wasmlab-module th{text-align:left!important;"
        "vertical-align:top}</style>"
    )
    what = "component" if module.kind == "component" else "core module"
    size = f"{module.size_bytes:,} bytes, {module.functions:,} functions"
    head = f"<b>{html.escape(module.name)}</b>: WASM {what}, {size}"
    body = "".join(f"<tr><th>{label}</th><td>{value}</td></tr>" for label, value in rows)
    return f'<div class="wasmlab-module">{style}{head}<table style="color:inherit">{body}</table></div>'
