"""What a batch is to execute: many notebooks, each with many parameter sets. Pure: no file is read here.

A plan is a mapping, as YAML writes it::

    defaults:                    # for every run that declares the parameter
      runs: 20
    runs:
      - notebook: 07             # number, name or path
        parameters: {engines: [wasmtime]}
      - notebook: 08_execution_latency
        name: engines            # optional; made of the matrix if it is left out
        matrix:                  # every combination is a run of its own
          engines: [[wasmtime], [wasmer]]
          mode: [cold, cached]

Everything that is not understood is refused, before anything runs: a misspelt key would otherwise be a run with
other parameters than its author thinks.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks.conventions import Parameter

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Run:
    """One notebook with one parameter set.

    Parameters
    ----------
    name : str
        Unique in its batch; the name of its directory.
    notebook : str
        As the plan says it: number, name or path.
    parameters : dict
        Name -> value. `defaults` holds those that apply only where the notebook declares them.
    """

    name: str
    notebook: str
    parameters: dict[str, Any]
    defaults: dict[str, Any]

    def values(self, declared: Mapping[str, Parameter]) -> dict[str, Any]:
        """Return the parameters for a notebook that declares these.

        Raises
        ------
        NotebookError
            If it does not declare one, or declares another type.
        """
        chosen = {name: value for name, value in self.defaults.items() if name in declared} | self.parameters
        for name, value in chosen.items():
            if name not in declared:
                raise NotebookError(
                    f"run {self.name}: the notebook {self.notebook} has no parameter {name!r}",
                    remedy=f"{_suggest(name, declared)}it has: {', '.join(declared)}",
                )
            if not _fits(declared[name].type, value):
                raise NotebookError(
                    f"run {self.name}: the parameter {name} wants {declared[name].type}, and {value!r} is not",
                    remedy=f"for example: {name}: {json.dumps(declared[name].default)}",
                )
        return chosen


def parse(document: Any) -> list[Run]:
    """Read a plan.

    Raises
    ------
    NotebookError
        If it is not one; the message names the place.
    """
    if not isinstance(document, Mapping):
        raise NotebookError(
            "a batch plan is a mapping with the key `runs`", remedy="see: wasmlab batch --help"
        )
    _only("the plan", document, ("runs", "defaults"))
    defaults = _mapping("defaults", document.get("defaults"))
    entries = document.get("runs")
    if not isinstance(entries, list) or not entries:
        raise NotebookError("the plan has no runs", remedy="give at least one: `runs: [{notebook: 07}]`")
    runs: list[Run] = []
    for index, entry in enumerate(entries):
        where = f"runs[{index}]"
        if not isinstance(entry, Mapping):
            raise NotebookError(f"{where} is not a mapping", remedy="write: - notebook: 07")
        _only(where, entry, ("notebook", "name", "parameters", "matrix"))
        runs += _expand(where, entry, defaults)
    for index, run in enumerate(runs):
        if run.name in {other.name for other in runs[:index]}:
            raise NotebookError(
                f"two runs are called {run.name}", remedy="give each of them a `name` of its own"
            )
    return runs


def _expand(where: str, entry: Mapping[str, Any], defaults: dict[str, Any]) -> Iterable[Run]:
    notebook = entry.get("notebook")
    if isinstance(notebook, int) and not isinstance(notebook, bool):
        notebook = f"{notebook:02d}"  # YAML reads 07 as a number
    if not isinstance(notebook, str) or not notebook:
        raise NotebookError(f"{where} names no notebook", remedy="write: - notebook: 07")
    fixed = _mapping(f"{where}.parameters", entry.get("parameters"))
    matrix = _mapping(f"{where}.matrix", entry.get("matrix"))
    for name, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise NotebookError(
                f"{where}.matrix.{name} is not a list of values", remedy=f"write: {name}: [1, 2]"
            )
        if name in fixed:
            raise NotebookError(
                f"{where} gives {name} twice", remedy="as a parameter or in the matrix, not both"
            )
    stem = notebook.rpartition("/")[2].removesuffix(".ipynb")
    base = str(entry.get("name") or stem)
    for combination in itertools.product(*matrix.values()):
        chosen = dict(zip(matrix, combination, strict=True))
        name = "-".join([base, *(_part(key, value) for key, value in chosen.items())])
        if not _NAME.fullmatch(name):
            raise NotebookError(
                f"{where}: {name!r} cannot be the name of a directory",
                remedy="give the run a `name` of letters, digits, dots and dashes",
            )
        yield Run(name, notebook, fixed | chosen, defaults)


def digest(notebook: bytes, parameters: Mapping[str, Any]) -> str:
    """Return what identifies a run: the same notebook with the same parameters need not run again."""
    text = json.dumps(parameters, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(notebook).digest() + text).hexdigest()


def _part(key: str, value: Any) -> str:
    """Return what a value adds to a run's name: words speak for themselves, numbers do not."""
    first = value[0] if isinstance(value, list) and value else value
    return _word(value) if isinstance(first, str) else f"{key}-{_word(value)}"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_word(one) for one in value) or "empty"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-") or "empty"


def _fits(kind: str, value: Any) -> bool:
    item = re.fullmatch(r"list\[(\w+)\]", kind)
    if item:
        return isinstance(value, list) and all(_fits(item[1], one) for one in value)
    # True is an int to Python, and hardly what somebody meant by a number.
    return isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))


def _mapping(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise NotebookError(f"{where} is not a mapping of names to values", remedy="write: {runs: 20}")
    return dict(value)


def _only(where: str, given: Mapping[Any, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise NotebookError(
                f"{where} has the unknown key {key!r}",
                remedy=f"{_suggest(str(key), known)}known: {', '.join(known)}",
            )


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}? " if close else ""
