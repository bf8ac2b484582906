"""The loop that removes modules when the disk fills; `imagepolicy` says which."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from wasmlab.node import log
from wasmlab.node.api.events import WARNING, Recorder
from wasmlab.node.host.disk import Disk
from wasmlab.node.host.imagepolicy import GcPolicy, victims, wanted_bytes

if TYPE_CHECKING:
    from wasmlab.oci.store import ModuleStore


class ImageGc:
    """Removes modules that nobody uses when the disk fills.

    Parameters
    ----------
    store : ModuleStore
        The modules.
    in_use : callable
        References and digests that pods on this node need.
    disk : callable
        Measures the disk that the modules are on.
    """

    def __init__(
        self,
        store: ModuleStore,
        in_use: Callable[[], Collection[str]],
        disk: Callable[[], Disk],
        recorder: Recorder,
        policy: GcPolicy,
        *,
        period_s: float,
    ) -> None:
        self._store = store
        self._in_use = in_use
        self._disk = disk
        self._recorder = recorder
        self._policy = policy
        self._period_s = period_s

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                self.collect()
            except OSError as error:
                log.warning("cannot collect modules", error=error)

    def collect(self, *, everything: bool = False) -> list[str]:
        """Remove what the policy says, or all that is not in use; return the digests."""
        wanted = wanted_bytes(self._disk(), self._policy)
        if everything:
            wanted = max(wanted, 1 << 62)
        if wanted == 0:
            return []
        # What is chosen is removed before anything else runs here, so nothing can come into use in between.
        found = victims(self._store.entries(), self._in_use(), wanted, self._policy, time.time())
        for entry in found:
            self._store.remove(entry.digest)
            log.info(
                "removed a module", digest=entry.digest, bytes=entry.size_bytes, references=entry.references
            )
        freed = sum(entry.size_bytes for entry in found)
        if freed < wanted and not everything:
            self._recorder.node(
                WARNING,
                "FreeDiskSpaceFailed",
                f"Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only"
                f" found {freed} bytes eligible to free.",
            )
        return [entry.digest for entry in found]
