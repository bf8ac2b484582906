"""What those who see to a pod's containers know of the pod itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wasmlab.node.api.kubeapi import Json
from wasmlab.node.status.spans import PodSpans
from wasmlab.node.status.statuswriter import Urgency

if TYPE_CHECKING:
    from wasmlab.node.containers.grace import Grace


class Pod(Protocol):
    """What a container needs of its pod."""

    pod: Json
    uid: str
    spans: PodSpans
    policy: str | None

    @property
    def leaving(self) -> bool:
        """Whether nothing may be started any more."""

    @property
    def stopping(self) -> bool:
        """Whether what runs is being ended."""

    @property
    def grace_s(self) -> float:
        """Its termination grace period."""

    @property
    def ending(self) -> Grace:
        """The grace period within which its containers are being ended."""

    @property
    def start_time(self) -> float:
        """When the pod began, unix seconds."""

    @property
    def directory(self) -> Path:
        """The pod's own directory."""

    def starts(self) -> None:
        """A container is about to be started."""

    def changed(self, urgency: Urgency) -> None:
        """Write the status."""
