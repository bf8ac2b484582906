"""What ends a widget's threads and watches: a cell that is run again, and the end of the kernel.

A widget that is shown a second time by the same cell has lost its place on the page, but ipywidgets keeps it, and its
threads would go on following the cluster. So each run of a cell closes what earlier runs of that cell have made.
"""

from __future__ import annotations

import atexit
import contextlib
from typing import Any, NamedTuple, Protocol


class Closable(Protocol):
    """What can be ended: `close` for good, `abandon` without waiting when the process ends."""

    def close(self) -> None:
        """End it, and take it from the page."""

    def abandon(self) -> None:
        """End it, without a page and without waiting."""


class Run(NamedTuple):
    """One execution of a cell."""

    cell: str
    request: str


_open: list[tuple[Run | None, Closable]] = []


def this_run() -> Run | None:
    """Return which cell is executed; None outside JupyterLab, where cells have no identity."""
    with contextlib.suppress(ImportError, AttributeError, KeyError, TypeError):
        from IPython.core.getipython import get_ipython

        parent: Any = get_ipython().kernel.get_parent()  # type: ignore[union-attr]
        return Run(parent["metadata"]["cellId"], parent["header"]["msg_id"])
    return None


def opened(one: Closable) -> None:
    """Remember something, and close what an earlier run of the same cell has opened."""
    run = this_run()
    earlier = [
        other
        for when, other in _open
        if run and when and when.cell == run.cell and when.request != run.request
    ]
    if not _open:
        atexit.register(_abandon_all)
    _open.append((run, one))
    for other in earlier:
        other.close()


def closed(one: Closable) -> None:
    """Forget something that was closed; twice is once."""
    _open[:] = [entry for entry in _open if entry[1] is not one]
    if not _open:
        atexit.unregister(_abandon_all)


def _abandon_all() -> None:
    for _, one in list(_open):
        with contextlib.suppress(Exception):  # the process ends, whatever one of them has to say
            one.abandon()
