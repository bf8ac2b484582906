"""The pages of the packages, written from docstrings without running the code they describe.

What a package exports is what is public. Each object is described once, on the page of the package it belongs to;
``wasmlab`` itself only points there.

References
----------
numpydoc style guide, "Sections"; parsed by griffe.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wasmlab.reference import docstrings

#: In the order of the index.
PACKAGES = (
    "wasmlab",
    "wasmlab.modules",
    "wasmlab.oci",
    "wasmlab.engines",
    "wasmlab.sandbox",
    "wasmlab.cluster",
    "wasmlab.node",
    "wasmlab.bench",
    "wasmlab.plots",
    "wasmlab.widgets",
    "wasmlab.errors",
)
_CODE = re.compile(r"(``?[^`]+``?)")


def pages() -> dict[str, str]:
    """Return the pages by their file names.

    Raises
    ------
    PrerequisiteError
        If griffe, which is installed for developers only, is missing.
    """
    found = objects()
    homes = {
        one.canonical_path: package for package in PACKAGES[1:] for one in found[package].values()
    }  # the last package that exports something is the one it belongs to
    return {f"{package}.md": _page(package, found[package], homes) for package in PACKAGES}


def objects() -> dict[str, dict[str, Any]]:
    """Return what each package exports: package -> name -> griffe object, aliases resolved."""
    root = _load()
    found: dict[str, dict[str, Any]] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        source = root if package == "wasmlab" else root[package.removeprefix("wasmlab.")]
        names = getattr(module, "__all__", None) or [
            name for name, one in source.members.items() if one.kind.value == "class"
        ]
        found[package] = {
            name: _find(root, source, name, getattr(module, name)) for name in names if name != "__version__"
        }
    return found


def _find(root: Any, package: Any, name: str, value: Any) -> Any:
    """Return the griffe object: by where the value says it is from, since a function may be called as its module."""
    home, path = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if path and home.startswith("wasmlab"):
        return root[f"{home}.{path}".removeprefix("wasmlab.")]
    one = package[name]
    return one.final_target if one.is_alias else one


def members(one: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, griffe object) of a class's public methods and properties, inherited ones of ours included."""
    if one.kind.value != "class":
        return
    for name, member in one.all_members.items():
        if name.startswith("_"):
            continue
        target = member.final_target if member.is_alias else member
        if target.kind.value == "function" or "property" in target.labels:
            yield name, target


def _load() -> Any:
    try:
        import griffe
    except ImportError as error:
        from wasmlab.errors import PrerequisiteError

        raise PrerequisiteError(
            "the reference is written with griffe, which is not installed",
            remedy="pip install griffelib, or use the environment of `make setup`",
        ) from error
    # It warns of annotations that it does not find in signatures: a test looks at those.
    logging.getLogger("griffe").setLevel(logging.ERROR)
    return griffe.load(
        "wasmlab",
        search_paths=[str(Path(__file__).resolve().parents[2])],
        docstring_parser="numpy",
        resolve_aliases=True,
        resolve_external=False,
    )


def _page(package: str, exported: dict[str, Any], homes: dict[str, str]) -> str:
    module = importlib.import_module(package)
    parts = [f"# {package}", *_prose(_introduction(module.__doc__ or ""))]
    here = {name: one for name, one in exported.items() if homes.get(one.canonical_path, package) == package}
    away = {name: one for name, one in exported.items() if name not in here}
    if away:
        rows = ["| name | |", "| --- | --- |"]
        for name, one in away.items():
            home = homes[one.canonical_path]
            rows.append(f"| [`{name}`]({home}.md#{_anchor(name)}) | {_cell(_summary(one))} |")
        parts.append("\n".join(rows))
    for name, one in here.items():
        parts += _object(name, one, 2)
        for member, target in members(one):
            parts += _object(f"{name}.{member}", target, 3)
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(text: str) -> str:
    """Return what of a package's docstring is for its users: up to how it is cut into modules."""
    return re.split(r"\n(?:Modules\n---|Pure \(|How it is cut|What decides is pure)", text)[0]


def _object(name: str, one: Any, level: int) -> list[str]:
    parts = [f"{'#' * level} {name}", _signature(name.rpartition(".")[2], one)]
    if one.docstring is not None:
        for section in one.docstring.parsed:
            parts += _section(section)
    return parts


def _signature(name: str, one: Any) -> str:
    if one.kind.value == "attribute" or "property" in one.labels:
        kind = f": {_tidy(one.annotation)}" if one.annotation is not None else ""
        return f"```text\n{name}{kind}\n```"
    if one.kind.value == "class":
        if one.docstring is not None and docstrings.MADE_ELSEWHERE.search(one.docstring.value):
            return f"```text\nclass {name}\n```"
        if any(str(base) == "NamedTuple" for base in one.bases):
            fields = [
                each
                for each in one.members.values()
                if each.kind.value == "attribute" and each.name[0] != "_"
            ]
            words = ", ".join(f"{each.name}: {_tidy(each.annotation)}" for each in fields)
            return f"```text\nclass {name}({words})\n```"
        maker = one.all_members.get("__init__")
        maker = maker.final_target if maker is not None and maker.is_alias else maker
        parameters = maker.parameters if maker is not None else one.parameters
        return f"```text\nclass {name}{_arguments(parameters)}\n```"
    labels = "".join(f"@{label}\n" for label in ("classmethod", "staticmethod") if label in one.labels)
    returns = f" -> {_tidy(one.returns)}" if one.returns is not None else ""
    word = "async def " if "async" in one.labels else ""
    return f"```text\n{labels}{word}{name}{_arguments(one.parameters)}{returns}\n```"


def _arguments(parameters: Any) -> str:
    words: list[str] = []
    starred = False
    for one in parameters:
        if one.name in ("self", "cls") or one.name.startswith("_"):
            continue
        kind = one.kind.value
        prefix = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        if kind == "keyword-only" and not starred:
            words.append("*")
        starred = starred or kind in ("keyword-only", "variadic positional")
        text = f"{prefix}{one.name}"
        text += f": {_tidy(one.annotation)}" if one.annotation is not None else ""
        if one.default is not None and not prefix:
            text += f" = {one.default}" if one.annotation is not None else f"={one.default}"
        words.append(text)
    line = f"({', '.join(words)})"
    return line if len(line) < 90 else "(\n    " + ",\n    ".join(words) + ",\n)"


def _tidy(expression: Any) -> str:
    return str(expression).replace("'", "")


def _section(section: Any) -> list[str]:
    kind = section.kind.value
    if kind == "text":
        return _prose(section.value)
    if kind in ("parameters", "other parameters", "attributes"):
        rows = [
            f"| `{one.name}` | {_cell(_kind(one))} | {_cell(_inline(one.description))} |"
            for one in section.value
            if not one.name.startswith("_")
        ]
        return [
            f"**{kind.capitalize()}**",
            "\n".join([f"| {kind[:-1]} | type | |", "| --- | --- | --- |", *rows]),
        ]
    if kind in ("returns", "yields", "raises", "warns"):
        lines = [f"- {_kind(one)}: {_inline(one.description)}".replace("- : ", "- ") for one in section.value]
        return [f"**{kind.capitalize()}**", "\n".join(" ".join(line.split()) for line in lines)]
    if kind == "examples":
        return [
            "**Examples**",
            *[_prose(text)[0] if what.value == "text" else _pycon(text) for what, text in section.value],
        ]
    if kind == "admonition":
        return [f"**{section.title or section.value.kind}**", *_prose(section.value.contents)]
    return []


def _kind(one: Any) -> str:
    return f"`{_tidy(one.annotation)}`" if one.annotation is not None else ""


def _prose(text: str) -> list[str]:
    """Return paragraphs of a docstring as Markdown; sessions (``>>>``) and indented blocks become code."""
    parts = []
    for one in re.split(r"\n\s*\n", text.strip("\n")):
        if one.lstrip().startswith(">>>"):
            parts.append(_pycon(one))
        elif all(line.startswith("    ") for line in one.splitlines()) or "├──" in one:
            parts.append(f"```text\n{one}\n```")
        else:
            parts.append(
                _inline(one.strip().removesuffix(":")) if one.endswith("::") else _inline(one.strip())
            )
    return parts


def _pycon(text: str) -> str:
    kept = re.sub(r"[ ]*# doctest: \+\w+", "", text.strip())
    return f"```pycon\n{kept}\n```"


def _inline(text: str) -> str:
    """Return text in which nothing outside of code is taken for HTML, and code is in single backticks."""
    pieces = _CODE.split(re.sub(r"\\ ", "", text))
    return "".join(
        f"`{piece.strip('`')}`" if piece.startswith("`") else piece.replace("<", "&lt;") for piece in pieces
    )


def _summary(one: Any) -> str:
    text = one.docstring.value if one.docstring is not None else ""
    return _inline(" ".join(text.split("\n\n")[0].split()))


def _anchor(name: str) -> str:
    return re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
