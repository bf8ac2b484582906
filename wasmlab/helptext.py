"""Docstrings as help: paragraphs are wrapped, examples are kept line by line, and brackets mean themselves. Pure.

Without it rich takes ``[wasmtime]`` in an example for a style, and a paragraph keeps the line ends of its source.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

_TAG = re.compile(r"(\\*)\[(?=[a-z#/@])")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^(Examples?|Changes[^:\n]*):", re.MULTILINE)


def prepare(command: Any) -> Any:
    """Make the help of a command, of its parameters and of its subcommands fit for a terminal, in place.

    Parameters
    ----------
    command : typer.core.TyperCommand or typer.core.TyperGroup
        As `typer.main.get_command` returns it.

    Returns
    -------
    typer.core.TyperCommand or typer.core.TyperGroup
        The same.
    """
    command.help = _styled(command.help)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    for one in getattr(command, "commands", {}).values():
        prepare(one)
    return command


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring: those with indented lines as they are, others as one line each."""
    # typer's own mark of a paragraph that is kept as it is: here indented lines are enough.
    found = inspect.cleandoc(re.sub(r"^[ ]*\x08\n", "", text, flags=re.MULTILINE)).split("\n\n")
    return [one if re.search(r"^ ", one, re.MULTILINE) else " ".join(one.split()) for one in found]


def escape(text: str) -> str:
    """Return `text` as rich markup that shows it as it is."""
    # As rich.markup.escape does, without importing rich where only `wasmlab run` was asked for.
    return _TAG.sub(lambda found: f"{found[1] * 2}\\[", text)


def _styled(text: str | None) -> str:
    text = escape("\n\n".join(paragraphs(text or "")))
    return _HEADING.sub(r"[bold]\1:[/bold]", _CODE.sub(r"[cyan]\1[/cyan]", text))
