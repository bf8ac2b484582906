"""What the notebooks of the lab look like, and that the conventions can be broken."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import toys
from wasmlab.errors import NotebookError
from wasmlab.notebooks import conventions

# Those that the lab executes; the others are to be clicked on, and tests/ui does that.
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text())


def test_the_lab_is_complete() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(11)]


def test_every_notebook_follows_the_conventions(notebook: dict[str, Any]) -> None:
    assert list(conventions.problems(notebook)) == []


def test_presets_only_name_parameters_that_exist(notebook: dict[str, Any]) -> None:
    declared = conventions.parameters(notebook)
    for preset in ("quick", "full"):
        values = notebook["metadata"].get("wasmlab", {}).get(preset, {})
        assert set(values) <= set(declared)
        assert all(type(value) is type(declared[name].default) for name, value in values.items())


def test_cells_are_short_and_narrow(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "hide-input" not in conventions.tags(cell):
            lines = conventions.source(cell).splitlines()
            assert len(lines) <= 20, conventions.source(cell)
            assert max(map(len, lines)) <= 105, conventions.source(cell)


def test_no_number_of_a_measurement_is_written_into_the_text() -> None:
    # What a plot says is computed from the results: prose with milliseconds in it would be wrong elsewhere.
    for path in NOTEBOOKS:
        if path.stem[:2] not in ("06", "07", "08", "09", "10"):
            continue
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                assert " ms" not in conventions.source(cell), conventions.source(cell)


GOOD = toys.notebook("import pandas")


def broken(change: str) -> dict[str, Any]:
    made = copy.deepcopy(GOOD)
    cells = made["cells"]
    match change:
        case "title":
            cells[0]["source"] = "no heading"
        case "question":
            cells[0]["source"] = "# A toy\n\n**What it needs.** Nothing."
        case "needs":
            cells[0]["source"] = "# A toy\n\n**Question.** Why?"
        case "outputs":
            cells[2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
        case "execution counts":
            cells[2]["execution_count"] = 1
        case "format":
            made["nbformat_minor"] = 4
        case "ids":
            cells[2]["id"] = cells[3]["id"]
        case "footer":
            cells[-1]["source"] = "assert word"
        case "assert":
            cells[-1]["source"] = "kit.footer()"
        case "numpy":
            cells[2]["source"] = "from numpy import array"
        case "help":
            cells[1]["source"] = 'word: str = "x"'
        case "literal":
            cells[1]["source"] = "import os\nword: str = os.getcwd()  # where"
        case "type":
            cells[1]["source"] = 'word: int = "x"  # a word'
        case "parameters":
            cells[1]["metadata"] = {}
    return made


def test_the_good_one_is_good() -> None:
    assert list(conventions.problems(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("title", "does not start with"),
        ("question", "ask its question"),
        ("needs", "what it needs"),
        ("outputs", "holds outputs"),
        ("execution counts", "execution counts"),
        ("format", "format 4.5"),
        ("ids", "ids are missing or not unique"),
        ("footer", "where and when it ran"),
        ("assert", "asserts nothing"),
        ("numpy", "imports numpy"),
        ("help", "has no help"),
        ("literal", "not `name: type = default"),
        ("type", "not a literal of type int"),
        ("parameters", "exactly one cell"),
    ],
)
def test_breaking_a_convention_is_noticed(change: str, says: str) -> None:
    found = list(conventions.problems(broken(change)))
    assert any(says in problem for problem in found), found


@pytest.mark.parametrize(
    ("kind", "default", "text", "value"),
    [
        ("str", "a", "b=c, d", "b=c, d"),
        ("int", 1, "-7", -7),
        ("float", 1.0, "2", 2.0),
        ("bool", True, "no", False),
        ("list[str]", ["a"], "x, y", ["x", "y"]),
        ("list[int]", [1], "1,2", [1, 2]),
        ("list[str]", ["a"], "", []),
    ],
)
def test_parameters_get_their_type(kind: str, default: Any, text: str, value: Any) -> None:
    document = toys.notebook(parameters=f"it: {kind} = {default!r}  # help")
    assert conventions.parameters(document)["it"].parse(text) == value


def test_a_wrong_list_item_is_refused() -> None:
    document = toys.notebook(parameters="it: list[int] = [1, 2]  # help")
    with pytest.raises(NotebookError, match=r"list\[int\]") as caught:
        conventions.parameters(document)["it"].parse("1,x")
    assert "it=1,2" in str(caught.value)


def test_code_cells_parse(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            ast.parse(conventions.source(cell))
