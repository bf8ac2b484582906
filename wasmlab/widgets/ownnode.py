"""A container node that a widget starts for itself, in a thread that lives as long as the node.

The kernel ends a node's programs together with the thread that has started them, so that nothing outlives a crash; the
thread of a launch ends with the launch.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmlab.cluster import Cluster
    from wasmlab.containerd import ContainerdNode

_STOP_S = 30.0


class OwnNode:
    """Starts a container node when it is first wanted.

    Parameters
    ----------
    cluster : Cluster
        Which it joins.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._node: ContainerdNode | None = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._known, self._unwanted = threading.Event(), threading.Event()

    def get(self) -> ContainerdNode:
        """Return the node; it is started if it does not run.

        Raises
        ------
        WasmlabError
            If it does not start. The next call tries again.
        """
        if self._thread is None or not self._thread.is_alive():
            self._known, self._unwanted, self._error = threading.Event(), threading.Event(), None
            self._thread = threading.Thread(target=self._live, daemon=True, name="wasmlab-container-node")
            self._thread.start()
        self._known.wait()  # starting has deadlines of its own
        if self._error is not None:
            raise self._error
        assert self._node is not None
        return self._node

    def stop(self) -> None:
        """End it, and what runs on it."""
        self._unwanted.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _live(self) -> None:
        from wasmlab.containerd import ContainerdNode

        unwanted = self._unwanted
        try:
            self._node = node = ContainerdNode(self._cluster).start()
        except Exception as error:  # the one who waits for it must be told, whatever it is
            self._error = error
            return
        finally:
            self._known.set()
        unwanted.wait()
        self._node = None
        node.stop()
