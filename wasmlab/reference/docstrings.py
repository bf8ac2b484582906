"""What a docstring of the public interface must say; `problems` says what one lacks.

A small set of numpydoc's rules, chosen so that a reader never has to open the source: a summary of one sentence; every
parameter of the signature described, and no other; what is returned; every exception that the body raises. A short
function may say it in its summary instead of in sections: "Return the digest of `ref`."; and one that passes everything
on may send the reader there: "See `AsyncClient.push`."

References
----------
numpydoc style guide; its checks SS03, PR01, PR02, RT01 and (pydoclint's) DOC501.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from typing import Any

_SAYS_WHAT_IT_RETURNS = re.compile(r"\b[Rr]eturns? |^Yield |^Whether |\b[Ss]ay whether ")
#: How a class says that nobody calls it.
MADE_ELSEWHERE = re.compile(r"(?:Use|Make it with) `.*?(?: to get one|`\.)")
# Not said again by every class: what the language or the dataclass decorator makes of it.
_NOT_DESCRIBED = ("self", "cls")


def problems(name: str, one: Any) -> Iterator[str]:
    """Yield what is wrong with a docstring.

    Parameters
    ----------
    name : str
        How the object is called in the message.
    one : griffe.Object
        A class, function, property or constant.

    Yields
    ------
    str
        One sentence each.
    """
    if one.kind.value == "attribute" and "property" not in one.labels:
        return
    if one.docstring is None:
        yield f"{name} has no docstring"
        return
    sections = {section.kind.value: section.value for section in one.docstring.parsed}
    summary = " ".join(str(one.docstring.value).split("\n\n")[0].split())
    if not summary.endswith((".", ":", "...")):
        yield f"{name}: the summary is not a sentence: {summary!r}"
    if "property" in one.labels or re.search(r"\bSee `[\w.]+`", one.docstring.value):
        return
    described = _described(sections)
    wanted = _wanted(one)
    # Half a list would read as a whole one: a summary may name parameters only where there is no list.
    named = set() if described else set(re.findall(r"`(\w+)", one.docstring.value))
    for missing in sorted(wanted - described - named - _inherited(one)):
        yield f"{name}: the parameter {missing} is not described"
    if one.kind.value == "function":
        for extra in sorted(described - wanted):
            yield f"{name}: {extra} is described and is no parameter"
        yield from _returns_and_raises(name, one, sections, one.docstring.value)


def _described(sections: dict[str, Any]) -> set[str]:
    rows = [
        one for kind in ("parameters", "other parameters", "attributes") for one in sections.get(kind, ())
    ]
    return {name.strip().lstrip("*") for one in rows for name in one.name.split(",")}


def _inherited(one: Any) -> set[str]:
    """Return what the docstrings of a class's bases describe."""
    found: set[str] = set()
    for base in one.mro() if one.kind.value == "class" else ():
        if base.docstring is not None:
            found |= _described({section.kind.value: section.value for section in base.docstring.parsed})
    return found


def _wanted(one: Any) -> set[str]:
    parameters = one.parameters
    if one.kind.value == "class":
        if one.docstring is not None and MADE_ELSEWHERE.search(one.docstring.value):
            return set()
        maker = one.members.get("__init__")
        parameters = one.parameters if maker is None or maker.is_alias else maker.parameters
    return {
        parameter.name
        for parameter in parameters
        if parameter.name not in _NOT_DESCRIBED and not parameter.name.startswith("_")
    }


def _returns_and_raises(name: str, one: Any, sections: dict[str, Any], text: str) -> Iterator[str]:
    returns = str(one.returns) if one.returns is not None else "None"
    says = "returns" in sections or "yields" in sections or _SAYS_WHAT_IT_RETURNS.search(text)
    if returns not in ("None", "NoReturn", "Self", one.parent.name) and not says:
        yield f"{name}: it returns {returns} and does not say what that is"
    told = " ".join(f"{entry.annotation} {entry.description}" for entry in sections.get("raises", ()))
    for error in sorted(raised(one.source)):
        if error not in told:
            yield f"{name}: it raises {error} and does not say when"


def raised(source: str) -> set[str]:
    """Return the names of the exceptions that a function's own body raises, functions within it excluded.

    Parameters
    ----------
    source : str
        The function, decorators included.
    """
    function = ast.parse(textwrap.dedent(source)).body[0]
    found = set()
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
        ):
            found.add(node.exc.func.id)
        waiting += ast.iter_child_nodes(node)
    # A function that makes the error is no name; and these tell programmers of a wrong call, not of the world.
    return {name for name in found if name[0].isupper()} - {
        "TypeError",
        "NotImplementedError",
        "AttributeError",
    }
