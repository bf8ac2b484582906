"""The page of the commands, written from their parsers and docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wasmlab import cli, helptext
from wasmlab.reference import documents

_INTRODUCTION = """\
Every command, its options and what it changes on the machine. `wasmlab COMMAND --help` says the same.

What a command found goes to stdout, everything else to stderr. Most take `--json`: [what they print](json.md).
`wasmlab completion bash` (or zsh, fish) prints a script that completes commands, options and values. Colors and lines
that redraw themselves appear on a terminal only; `NO_COLOR=1` takes the colors away, `TERM=dumb` both. Ctrl-C and
SIGTERM end a command the same way: what it had started is ended too, what it had measured is kept.

## Exit codes

| code | when |
| ---: | --- |
| 0 | done |
| 1 | it failed, and stderr says what was tried, what happened and what to do |
| | `status`: nothing runs; `doctor`: something is missing; `report compare`: `--fail-on` holds |
| | `lab`, `batch`: a notebook or a run failed; `bench`: every run failed |
| 2 | wrong usage; nothing was done |
| 3 | `report compare`: the two must not be compared |
| 130 | ended by Ctrl-C or SIGTERM |
| the module's | `run`: 0 to 255, whatever the module says |
| 124 | `run`: the time of `--timeout` was up |
| 134 | `run`: the module trapped or crashed, or its `--fuel` was used up |
| 137 | `run`: out of memory, or killed |
| kubectl's | `kubectl` |

## Environment

| variable | |
| --- | --- |
| `WASMLAB_DIR` | directory of the lab where `--dir` is not given |
| `KUBECONFIG` | the cluster of `node run`, `node join` and `cluster` |
| `XDG_CACHE_HOME` | compiled modules, pulled modules and built programs are in `wasmlab` below it, else in `~/.cache` |
| `DOCKER_CONFIG` | directory of the `config.json` with credentials for registries, else `~/.docker` |
| `NO_COLOR` | no colors |
| `WASMLAB_NO_INSTALL` | `make lab` and `make test` install no packages as root |
| `WASMLAB_TRACEBACK` | show where in the code the system refused something |
"""


def page() -> str:
    """Return the page."""
    import typer

    root = typer.main.get_command(cli.build_app())
    parts = ["# Commands", _INTRODUCTION.rstrip()]
    for path, command in commands(root):
        parts += _section(path, command)
    return "\n\n".join(parts) + "\n"


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) for every command, groups before what is in them.

    Parameters
    ----------
    command : typer.core.TyperCommand or typer.core.TyperGroup
        Where to begin; itself only if `path` names it.
    path : tuple of str
        The words that lead to it.

    Yields
    ------
    tuple of (tuple of str, TyperCommand)
        The words after ``wasmlab``, and the command.
    """
    if path:
        yield path, command
    for name, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from commands(one, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> list[str]:
    name = " ".join(path)
    is_group = hasattr(command, "commands")
    parts = [f"{'#' * (1 + min(len(path), 2))} wasmlab {name}"]
    for one in helptext.paragraphs(command.help or ""):
        head, _, rest = one.partition("\n")
        if not rest:
            parts.append(one)
        else:
            parts.append(f"{head}\n\n```text\n{_dedented(rest)}\n```")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = [
        "wasmlab",
        *path,
        *([command.options_metavar] if options else []),
        *(_metavar(one) for one in arguments),
    ]
    if not is_group:
        parts.insert(1, f"`{' '.join(usage)}`")
    rows = [(f"`{_metavar(one)}`", "", one.help or "") for one in arguments]
    rows += [(_names(one), _default(one), one.help or "") for one in options]
    if rows:
        table = ["| option | default | |", "| --- | --- | --- |"]
        table += [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
        parts.append("\n".join(table))
    if name in documents.DOCUMENTS:
        parts.append(f"[What --json prints](json.md#wasmlab-{'-'.join(path)})")
    return parts


def _dedented(text: str) -> str:
    import textwrap

    return textwrap.dedent(text)


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if option.secondary_opts:
        names += f" / `{'`, `'.join(option.secondary_opts)}`"
    if option.is_flag:
        return names
    return f"{names} `{option.metavar or option.name.upper()}`"


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.default
    if option.show_default is False or value is None or value in ("", [], ()) or callable(value):
        return ""
    if option.is_flag and not option.secondary_opts:
        return ""
    if option.is_flag:
        return f"`{(option.opts if value else option.secondary_opts)[0]}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
