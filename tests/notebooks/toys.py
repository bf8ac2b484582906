"""Small notebooks for the tests of the executor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def notebook(*cells: str, parameters: str = 'word: str = "hi"  # a word', **metadata: Any) -> dict[str, Any]:
    """Return a notebook that follows the conventions; `cells` are code cells, a leading ``# `` makes Markdown."""
    head = "# A toy\n\n**Question.** Does it run?\n\n**What it needs.** Nothing."
    footer = "from wasmlab.notebooks import kit\n\nassert word\nkit.footer()"
    sources = [head, parameters, *cells, footer]
    made = []
    for index, text in enumerate(sources):
        markdown = text.startswith("# ")
        cell: dict[str, Any] = {
            "cell_type": "markdown" if markdown else "code",
            "id": f"cell-{index}",
            "metadata": {"tags": ["parameters"]} if index == 1 else {},
            "source": text,
        }
        if not markdown:
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    return {
        "cells": made,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "wasmlab": metadata,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write(directory: Path, **notebooks: dict[str, Any]) -> Path:
    """Write notebooks as ``NN_name.ipynb``; keyword ``n01_good`` becomes ``01_good.ipynb``."""
    directory.mkdir(exist_ok=True)
    for name, document in notebooks.items():
        (directory / f"{name.removeprefix('n')}.ipynb").write_text(json.dumps(document))
    return directory


def outputs(path: Path) -> str:
    """Return everything that the cells of an executed notebook printed or showed as text."""
    texts: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            texts += output.get("text", []) + output.get("data", {}).get("text/plain", [])
    return "".join(texts)
