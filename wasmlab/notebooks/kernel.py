"""The engine under papermill: this interpreter as the kernel, a callback per cell, nothing of the user's profile.

Whatever kernel is called ``python3`` on a machine may be another Python, without wasmlab. So the kernel is not
looked up: it is started from `sys.executable`. It gets an empty IPython profile, so that start-up files of the
person who runs the lab cannot change what a notebook shows.

References
----------
nbclient ``client.py`` (`setup_kernel`), papermill ``engines.py`` (`NBClientEngine`), ipykernel ``parentpoller.py``:
the kernel ends by itself within a second when the process that started it is gone, and the children it started
with a parent-death signal end with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.log import logger
from traitlets.config import Config

ENGINE = "wasmlab"
# What the kernel itself has to say; what cells print goes into the notebook.
LOG = "kernel.log"
CellCallback = Callable[[int, int], None]


class ThisInterpreter(AsyncKernelManager):
    """A kernel manager whose kernel is always the interpreter that runs this code."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The one specification there is."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python of wasmlab",
            language="python",
        )


class LabEngine(Engine):
    """Execute a notebook in a kernel of this interpreter."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        env: Mapping[str, str] | None = None,
        kernel_cwd: Path | None = None,
        scratch: Path | None = None,
        cell_timeout_s: float = 600.0,
        on_cell: CellCallback | None = None,
        **ignored: Any,
    ) -> None:
        """Run every cell, telling `on_cell(index, count)` before each."""
        total = len(nb_man.nb.cells)
        cell_start = nb_man.cell_start

        def announce(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
            if on_cell and cell_index is not None:
                on_cell(cell_index, total)
            cell_start(cell, cell_index, **kwargs)

        nb_man.cell_start = announce
        client = PapermillNotebookClient(
            nb_man,
            kernel_manager_class=ThisInterpreter,
            kernel_name=kernel_name,
            timeout=cell_timeout_s,
            startup_timeout=60,
            log=logger,
            config=_connection(scratch),
        )
        with open(os.devnull, "wb") if scratch is None else open(scratch / LOG, "ab") as log:
            client.execute(
                env=dict(env) if env else None,
                cwd=str(kernel_cwd) if kernel_cwd else None,
                stdout=log,
                stderr=log,
            )


def _connection(scratch: Path | None) -> Config:
    # Unix sockets in a private directory: nobody else on the machine can talk to the kernel. Their paths may not be
    # longer than 107 bytes; where the directory is too deep for that, the kernel's default (TCP with a key) remains.
    if scratch is None or len(str(scratch)) > 80:
        return Config()
    return Config({"ThisInterpreter": {"transport": "ipc", "connection_file": str(scratch / "kernel.json")}})


papermill_engines.register(ENGINE, LabEngine)
