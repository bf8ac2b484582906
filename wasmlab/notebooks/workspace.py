"""The JupyterLab workspace of the lab: which tabs are open when somebody comes to it for the first time.

The README beside the first notebook, the live board, and a terminal in which ``wasmlab`` is a command. A person's own
arrangement is never overwritten: JupyterLab keeps that in the same place, and what is there stays.

``python -m wasmlab.notebooks.workspace`` lays it down as the default one, which is what Binder's ``start`` does.
JupyterLab's question about its news, which would be the first thing that anybody sees, is not asked.

References
----------
JupyterLab, "Managing workspaces"; its source ``application/src/layoutrestorer.ts`` (the layout) and
``apputils/src/windowresolver.ts`` (the name ``default``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: What JupyterLab opens at ``/lab``.
DEFAULT = "default"
FIRST = "notebooks/00_start_here.ipynb"
BOARD = "notebooks/live.ipynb"
README = "README.md"
_NEWS = "@jupyterlab/apputils-extension:announcements"


def document(name: str, *, readme: bool = True) -> dict[str, Any]:
    """Return the workspace as JupyterLab reads it.

    Parameters
    ----------
    name : str
        The workspace's own name; it has to say it itself.
    readme : bool
        Whether there is a README to show: an installed package has none.
    """
    first, board, terminal = f"notebook:{FIRST}", f"notebook:{BOARD}", "terminal:lab"
    about = f"markdownviewer-widget:{README}"
    tabs = [first, board, *([about] if readme else []), terminal]
    return {
        "metadata": {"id": name},
        "data": {
            "layout-restorer:data": {
                "main": {
                    "dock": {"type": "tab-area", "currentIndex": 0, "widgets": tabs},
                    "current": first,
                },
                "left": {
                    "collapsed": False,
                    "visible": True,
                    "current": "filebrowser",
                    "widgets": ["filebrowser"],
                },
                "right": {"collapsed": True, "visible": True, "widgets": []},
                "relativeSizes": [0.2, 0.8, 0],
            },
            "file-browser-filebrowser:cwd": {"path": "notebooks"},
            first: {"data": {"path": FIRST, "factory": "Notebook"}},
            board: {"data": {"path": BOARD, "factory": "Notebook"}},
            terminal: {"data": {"name": "lab"}},
            **({about: {"data": {"path": README, "factory": "Markdown Preview"}}} if readme else {}),
        },
    }


def save(directory: Path, name: str, *, readme: bool = True, reset: bool = False) -> Path:
    """Lay the workspace into a directory of JupyterLab's and return its file; one that is there stays.

    Parameters
    ----------
    directory : Path
        JupyterLab's ``workspaces_dir``; it is created.
    name, readme
        See `document`.
    reset : bool
        Take the place of one that is there.
    """
    from jupyterlab_server.workspaces_handler import WORKSPACE_EXTENSION, WorkspacesManager, slugify

    there = directory / f"{slugify(name)}{WORKSPACE_EXTENSION}"
    if there.exists() and not reset:
        return there
    saved: Path = WorkspacesManager(str(directory)).save(name, json.dumps(document(name, readme=readme)))
    return saved


def without_news(config: Path) -> Path:
    """Let JupyterLab not ask about its news, in a directory of Jupyter's configuration; what is set there stays."""
    page = config / "labconfig" / "page_config.json"
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(json.dumps({"disabledExtensions": {_NEWS: True}}))
    return config


def main() -> None:
    """Lay down what a first session finds, and print the file."""
    from jupyter_core.paths import jupyter_config_dir

    config = Path(jupyter_config_dir())
    without_news(config)
    directory = Path(os.environ.get("JUPYTERLAB_WORKSPACES_DIR") or config / "lab" / "workspaces")
    print(save(directory, DEFAULT, readme=Path(README).exists()))


if __name__ == "__main__":
    main()
