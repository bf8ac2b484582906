"""What every pod on this node uses, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wasmlab.node.api.events import Recorder
from wasmlab.node.api.kubeapi import KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.inputs.apiobjects import ApiObjects
from wasmlab.node.inputs.images import Images
from wasmlab.node.inputs.serviceview import ServiceView
from wasmlab.node.inputs.volumes import VolumeManager
from wasmlab.node.runtime.cgroups import ContainerGroups
from wasmlab.node.runtime.runs import Runtime
from wasmlab.node.spec import resources
from wasmlab.node.spec.downward import NodeSide
from wasmlab.node.status.spans import SpanLog


@dataclass
class Services:
    """The node, as a pod sees it.

    Parameters
    ----------
    gate : asyncio.Semaphore
        Bounds how many statuses are written at once.
    hold_s : callable
        How long a status that may be overtaken is held back now, in seconds.
    links : ServiceView, optional
        The Services that containers are told of; none if not given.
    allocatable : mapping
        What the node says it can give.
    groups : ContainerGroups
        What holds limits; none if not probed.
    """

    config: NodeConfig
    api: KubeApi
    images: Images
    runtime: Runtime
    recorder: Recorder
    spans: SpanLog
    gate: asyncio.Semaphore
    hold_s: Callable[[], float]
    links: ServiceView | None = None
    allocatable: Mapping[str, str] = field(default_factory=dict)
    groups: ContainerGroups = field(default_factory=lambda: ContainerGroups(""))
    side: NodeSide = field(init=False)
    objects: ApiObjects = field(init=False)
    volumes: VolumeManager = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        # No CNI: the pod's address is the node's.
        self.side = NodeSide(config.node_name, config.address, config.pod_address, self.allocatable)
        self.objects = ApiObjects(self.api)
        self.volumes = VolumeManager(
            self.objects,
            self.side,
            config.pods_dir,
            self.recorder.pod,
            sync_s=config.intervals.volume_sync_s,
            watch_s=config.intervals.volume_watch_s,
        )

    @property
    def memory_bytes(self) -> int:
        """The node's memory, for scores in proportion to it."""
        return resources.amounts(self.allocatable).memory
