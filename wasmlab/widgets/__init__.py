"""The lab to click on: live boards of a cluster, and measurements that grow while one watches.

>>> from wasmlab.widgets import Board, Launcher
>>> Board(cluster)                                                  # doctest: +SKIP

Both show themselves in JupyterLab. Where nobody can click (papermill, an exported page) they show what they would show
at that moment, as a table or a figure.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {"Board": "wasmlab.widgets.board", "Launcher": "wasmlab.widgets.launcher"}

__all__ = ["Board", "Launcher"]

if TYPE_CHECKING:
    from wasmlab.widgets.board import Board as Board
    from wasmlab.widgets.launcher import Launcher as Launcher


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
