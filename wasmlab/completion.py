"""``wasmlab completion``: the script that teaches a shell to complete ``wasmlab``, its options and their values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

PROGRAM = "wasmlab"
#: Set by the script while the shell asks for completions.
VARIABLE = "_WASMLAB_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def register(app: typer.Typer) -> None:
    """Add ``completion`` to `app`."""
    app.command("completion", rich_help_panel="This machine")(completion)


def completion(
    shell: Annotated[
        str, typer.Argument(metavar="|".join(SHELLS), help="Which shell.", autocompletion=lambda: SHELLS)
    ],
) -> None:
    """Print the script that completes commands, options and values in bash, zsh or fish.

    Examples:
      source <(wasmlab completion bash)                                    # this shell
      wasmlab completion bash > ~/.local/share/bash-completion/completions/wasmlab
      wasmlab completion zsh > "${fpath[1]}/_wasmlab"
      wasmlab completion fish > ~/.config/fish/completions/wasmlab.fish

    Changes nothing: it only prints.
    """
    from typer.completion import get_completion_script

    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell!r} is not one of {', '.join(SHELLS)}", param_hint="SHELL")
    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))


def first_word(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the command that is meant, if it is whole already: what was typed, or what a shell wants to complete.

    Parameters
    ----------
    words : sequence of str
        The arguments of this process.
    environment : mapping
        Where a shell's request is.

    Returns
    -------
    str or None
        None if there is none, or it is still being typed.
    """
    if VARIABLE not in environment:
        return words[0] if words else None
    # bash gives the words, zsh and fish the line up to the cursor.
    line = environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS", "")
    typed = line.split()
    whole = len(typed) > 2 or (len(typed) == 2 and line[-1].isspace())
    return typed[1] if whole else None
