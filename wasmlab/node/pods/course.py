"""The order in which a pod's containers run, and in which they end.

Init containers one after the other, each to its end; a sidecar (an init container with restartPolicy Always) only until
it has started, then it goes on in a task of its own; then the others, side by side. When those have ended the sidecars
are ended. Ephemeral containers (``kubectl debug``) begin when they come, and end with the pod. Whoever ends a pod ends
all of it at once, except that a sidecar waits for the containers that are none, and for the sidecars after it.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go`` (``computeInitContainerActions``),
``kuberuntime_termination_order.go``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wasmlab.node import log
from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.containers.grace import LEAST_S, Grace
from wasmlab.node.containers.pod import Pod
from wasmlab.node.spec import podspec
from wasmlab.node.status import states
from wasmlab.node.status.records import Ended

_KILL_WAIT_S = 10.0  # SIGKILL needs no longer; if it does, the machine has other troubles
# References: k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses).
_INITIALIZED = "Unable to get init container status and pod has been initialized, treat it as exited normally"


class Course:
    """The containers of a pod, from the first to the last.

    Parameters
    ----------
    pod : Pod
        The pod.
    containers : sequence of ContainerTask
        In the order of the spec, init containers first.

    Attributes
    ----------
    grace : Grace or None
        The period within which they are being ended, once they are.
    """

    def __init__(self, pod: Pod, containers: Sequence[ContainerTask]) -> None:
        self.grace: Grace | None = None
        self._pod = pod
        self._containers = containers
        self._mains = [c for c in containers if c.record.main]
        self._beside: list[asyncio.Task[None]] = []  # sidecars and ephemeral containers

    async def run(self) -> None:
        """Run them all; return when none will run any more."""
        # An earlier agent had come past the init containers: none is begun again, and none is waited for.
        initialized = any(c.adopt is not None or c.reported is not None for c in self._mains)
        for container in [c for c in self._containers if c.record.ephemeral]:
            self.add(container)
        for container in self._containers:
            if container.record.init and not await self._initialize(container, initialized):
                break
        else:
            await self._run_mains()
        if self._beside:
            await self._dismiss()

    def add(self, container: ContainerTask) -> asyncio.Task[None]:
        """Let a container run beside the others."""
        task = asyncio.create_task(container.run())
        self._beside.append(task)
        return task

    async def _initialize(self, container: ContainerTask, initialized: bool) -> bool:
        """Run an init container; whether the next one may start."""
        if container.up is not None:
            task = self.add(container)
            if initialized:
                return True
            up = asyncio.create_task(container.up.wait())
            try:
                await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
            return not task.done()
        if initialized and container.adopt is None and container.reported is None:
            began = self._pod.start_time
            container.reported = Ended(0, "Completed", _INITIALIZED, began, began, "")
        await container.run()
        return initialized or (container.record.ended is not None and container.record.ended.exit_code == 0)

    async def _run_mains(self) -> None:
        for container in self._mains:
            if container.record.reason == states.POD_INITIALIZING:
                container.record.move(container.record.state, states.CONTAINER_CREATING)
        if len(self._mains) == 1:  # the usual pod needs no task of its own for its container
            await self._mains[0].run()
            return
        async with asyncio.TaskGroup() as group:
            for container in self._mains:
                group.create_task(container.run())

    async def _dismiss(self) -> None:
        """End what runs beside: what it was there for has ended."""
        for container in self._containers:
            container.dismissed |= not container.record.main
        if not self._pod.stopping:  # else they are being ended already
            await self.end(self._pod.grace_s)
        left_s = self.grace.left_s if self.grace is not None else 0.0
        _, rest = await asyncio.wait(self._beside, timeout=left_s + LEAST_S + _KILL_WAIT_S)
        if rest:
            log.error(
                "a container beside the others does not end",
                pod=podspec.key(self._pod.pod),
                uid=self._pod.uid,
            )
        for task in self._beside:
            if task.done() and not task.cancelled():
                task.result()  # a bug there is one of this pod

    async def end(self, grace_s: float) -> None:
        """Bring all containers to their end; return when those that ran have ended.

        Parameters
        ----------
        grace_s : float
            How long that may take. A period that has begun is only shortened.
        """
        if self.grace is None:
            self.grace = Grace(grace_s)
        else:
            self.grace.shorten(grace_s)
        if len(self._containers) == 1:
            await self._containers[0].end(self.grace)
            return
        ends = []
        before = [c.quiet for c in self._mains]
        for container in reversed(self._containers):
            sidecar = container.record.sidecar
            ends.append(container.end(self.grace, list(before) if sidecar else []))
            if sidecar:
                before.append(container.quiet)
        await asyncio.gather(*ends)

    async def kill(self) -> None:
        """End them at once."""
        for container in self._containers:
            await container.kill()

    async def destroy(self) -> None:
        """End whatever of them runs, after a bug of this agent."""
        for container in self._containers:
            await container.destroy()
        if self._beside:
            await asyncio.wait(self._beside, timeout=_KILL_WAIT_S)

    async def abandon(self) -> None:
        """The agent ends: let go of the sidecars; they run on."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
