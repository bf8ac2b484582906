"""`wasmlab jupyter`: the notebooks, to be clicked on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Measure and tell")(jupyter)


def jupyter(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
    reset: Annotated[
        bool, typer.Option("--reset", help="Open the lab's own tabs, whatever was arranged last.")
    ] = False,
) -> None:
    """Start JupyterLab with the first notebook, the live board, the README and a terminal open.

    Prints its address on stdout. Ctrl-C ends it, with its kernels and the clusters that they started.

    Examples:
      wasmlab jupyter
      wasmlab jupyter --no-browser --port 8888

    Changes: nothing of your own JupyterLab; what you arrange is kept in the cache. Without a checkout it copies the
    notebooks into ./notebooks.
    """
    from wasmlab.notebooks.jupyter import run

    raise typer.Exit(run(Path.cwd(), port=port, browser=browser, reset=reset))
