"""A registry as a child process, for a lab whose cluster is somebody else's: loopback only, gone with the lab."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from wasmlab.cluster import binary
from wasmlab.process import Child

_READY_S = 30.0
_GRACE_S = 5.0


class LocalRegistry:
    """The registry of the lab's own program, started at once.

    Attributes
    ----------
    address : str
        ``host:port``.

    Raises
    ------
    ProcessError
        If it does not start.
    """

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="wasmlab-registry-"))
        try:
            said = self._root / "address.json"
            with said.open("wb") as out:
                self._child = Child(
                    [str(binary.ensure()), "registry", "--root", str(self._root / "blobs")],
                    log=self._root / "log",
                    stdout=out.fileno(),
                )
            self._child.wait_ready(lambda: said.read_bytes().endswith(b"\n"), _READY_S, what="the registry")
            self.address = str(json.loads(said.read_bytes())["registry"])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and remove what it held."""
        child = self.__dict__.get("_child")
        if child is not None:
            child.stop(_GRACE_S)
        shutil.rmtree(self._root, ignore_errors=True)
