"""What every pod on this node uses, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from wasmlab.node.config import NodeConfig
from wasmlab.node.events import Recorder
from wasmlab.node.images import Images
from wasmlab.node.kubeapi import KubeApi
from wasmlab.node.runtime import Runtime
from wasmlab.node.spans import SpanLog


@dataclass
class Services:
    """The node, as a pod sees it.

    Parameters
    ----------
    gate : asyncio.Semaphore
        Bounds how many statuses are written at once.
    hold_s : callable
        How long a status that may be overtaken is held back now, in seconds.
    """

    config: NodeConfig
    api: KubeApi
    images: Images
    runtime: Runtime
    recorder: Recorder
    spans: SpanLog
    gate: asyncio.Semaphore
    hold_s: Callable[[], float]
