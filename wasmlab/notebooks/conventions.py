"""What every notebook of the lab must look like, and the parameters it declares. Pure: no file is read here.

A notebook starts with its title and its question. One code cell, tagged ``parameters``, holds literals and nothing
else, one a line: ``name: type = default  # help``. That makes the parameters readable without running anything,
so that a wrong one is refused before the first kernel starts. Outputs are stripped: results belong into reports.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.errors import NotebookError

# A reader should meet the lab and what teachers use, not a zoo of helper libraries.
ALLOWED_IMPORTS = frozenset({"wasmlab", "pandas", "matplotlib", "kubernetes"}) | sys.stdlib_module_names

_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list}


@dataclass(frozen=True)
class Parameter:
    """One line of a ``parameters`` cell.

    Parameters
    ----------
    name, type, help : str
        As written in the notebook; `type` is one of str, int, float, bool, ``list[str]``, ``list[int]``.
    default : object
        The literal.
    """

    name: str
    type: str
    default: Any
    help: str

    def parse(self, text: str) -> Any:
        """Turn what was typed after ``name=`` into a value of this parameter's type.

        Raises
        ------
        NotebookError
            If the text is no such value.
        """
        item = re.fullmatch(r"list\[(\w+)\]", self.type)
        try:
            if item:
                return [_scalar(item[1], piece.strip()) for piece in text.split(",") if piece.strip()]
            return _scalar(self.type, text)
        except ValueError:
            raise NotebookError(
                f"the parameter {self.name} wants {self.type}, and {text!r} is not",
                remedy=f"for example: -p {self.name}={_example(self.default)}",
            ) from None


def _example(value: Any) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _scalar(kind: str, text: str) -> Any:
    if kind == "bool":
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]
    return {"str": str, "int": int, "float": float}[kind](text)


def source(cell: Mapping[str, Any]) -> str:
    """Return the text of a cell (files may hold it as a list of lines)."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def tags(cell: Mapping[str, Any]) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def parameters(notebook: Mapping[str, Any]) -> dict[str, Parameter]:
    """Read the parameters that a notebook declares.

    Raises
    ------
    NotebookError
        If there is not exactly one parameters cell, or a line of it does not follow the convention.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise NotebookError(
            f"a notebook needs exactly one cell tagged `parameters`, this one has {len(cells)}"
        )
    text = source(cells[0])
    helps = _trailing_comments(text)
    found: dict[str, Parameter] = {}
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            raise NotebookError(
                f"line {statement.lineno} of the parameters cell is not `name: type = default  # help`"
            )
        name, kind = statement.target.id, ast.unparse(statement.annotation)
        try:
            default = ast.literal_eval(statement.value) if statement.value else None
        except ValueError:
            default = None
        if type(default) is not _TYPES.get(kind.partition("[")[0]):
            raise NotebookError(f"the default of the parameter {name} is not a literal of type {kind}")
        found[name] = Parameter(name, kind, default, helps.get(statement.end_lineno or 0, ""))
    return found


def _trailing_comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def title(notebook: Mapping[str, Any]) -> str:
    """Return the heading of the first cell, without its mark."""
    first = source(notebook["cells"][0]).splitlines() if notebook["cells"] else []
    return first[0].removeprefix("# ").strip() if first and first[0].startswith("# ") else ""


def problems(notebook: Mapping[str, Any]) -> Iterator[str]:
    """Yield every way in which a notebook breaks the conventions, in words."""
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    if not title(notebook):
        yield "the first cell does not start with `# Title`"
    elif "**Question.**" not in source(cells[0]):
        yield "the first cell does not ask its question (`**Question.** ...`)"
    if not any("**What it needs.**" in source(cell) for cell in cells[:2]):
        yield "it does not say what it needs (`**What it needs.** ...`)"
    try:
        for parameter in parameters(notebook).values():
            if not parameter.help:
                yield f"the parameter {parameter.name} has no help"
    except NotebookError as error:
        yield error.message
    if any(cell.get("outputs") or cell.get("execution_count") is not None for cell in code):
        yield "it holds outputs or execution counts: strip them"
    if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
        yield "it is not in format 4.5"
    if len({cell.get("id") for cell in cells}) != len(cells):
        yield "cell ids are missing or not unique"
    if code and "kit.footer(" not in source(code[-1]):
        yield "the last code cell does not say where and when it ran (`kit.footer()`)"
    if not any(isinstance(node, ast.Assert) for cell in code for node in ast.walk(ast.parse(source(cell)))):
        yield "it asserts nothing: a claim that cannot fail is no claim"
    for name in sorted(_imports(code) - ALLOWED_IMPORTS):
        yield f"it imports {name}: library code belongs into wasmlab"


def _imports(code: list[Mapping[str, Any]]) -> set[str]:
    names: set[str] = set()
    for cell in code:
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    return names
