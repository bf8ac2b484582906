"""The node agent: bootstrap, register, then follow the pods until told to stop.

A restart is not an event for the modules: they run under their zygotes, their outcomes are on record, and the next
agent takes them up before it starts anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from wasmlab.errors import PrerequisiteError, WasmlabError
from wasmlab.node import log
from wasmlab.node.api.events import NORMAL, Recorder
from wasmlab.node.api.kubeapi import KubeApi
from wasmlab.node.api.watch import Reflector
from wasmlab.node.config import NodeConfig
from wasmlab.node.containers.services import Services
from wasmlab.node.endpoint.server import Endpoint
from wasmlab.node.endpoint.tls import bind, ssl_context
from wasmlab.node.host import machine, pressure
from wasmlab.node.host.imagegc import ImageGc
from wasmlab.node.inputs.images import Images
from wasmlab.node.inputs.serviceview import ServiceView
from wasmlab.node.inputs.volumes import VolumeManager
from wasmlab.node.membership import bootstrap, registration
from wasmlab.node.membership.certificates import Certificates
from wasmlab.node.pods.evictor import Evictor
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.runtime.cgroups import ContainerGroups
from wasmlab.node.runtime.rotation import keep_rotating
from wasmlab.node.runtime.runs import Runtime
from wasmlab.node.status.spans import SpanLog
from wasmlab.paths import file_lock, private_dir

if TYPE_CHECKING:
    from wasmlab.oci.credentials import Credentials

_SETTLE_S = 2.0
_DRAIN_S = 30.0
_STATUS_WRITES = 12
_MAX_HOLD_S = 1.0
_COUNT_EVERY_S = 0.02
_LOADED = 16
_PROBE_S = 10.0
_SHUTDOWN_SLACK_S = 5.0  # for SIGKILL and the last statuses


class NodeAgent:
    """A WASM node.

    Parameters
    ----------
    config : NodeConfig
        What it is told.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.stopping = asyncio.Event()
        self._manager: PodManager | None = None
        self._busy = 0
        self._counted_at = 0.0

    async def run(self) -> None:
        """Join the cluster and run pods until SIGTERM or `stop`.

        Raises
        ------
        BootstrapError
            The node could not join.
        PrerequisiteError
            Something on this machine is missing or in use.
        """
        config = self.config
        private_dir(config.dir)
        private_dir(config.pki)
        private_dir(config.pods_dir)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread can; elsewhere (tests) `stop` does it.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.stop)
        try:
            lock = file_lock(config.dir / "agent.lock", 5.0, what=f"the node directory {config.dir}")
            lock.__enter__()
        except WasmlabError as error:
            raise PrerequisiteError(
                f"another agent runs in {config.dir}", remedy="stop it, or give this one another --dir"
            ) from error
        try:
            await self._until_stopped(self._live())
        finally:
            lock.__exit__(None, None, None)

    def stop(self) -> None:
        """Ask it to end."""
        self.stopping.set()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, but no longer than until `stop`: joining may wait for hours for an approval."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self.stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _live(self) -> None:
        config = self.config
        # Before the zygotes: they are to be in the group that this process may have to move to.
        groups = ContainerGroups(config.node_name, config.dir / "cgroups")
        groups.probe()
        runtime = Runtime(config.dir / "sandbox", workers=config.workers, compiles=config.parallel_compiles)
        # The engine warms up while the certificates are asked for.
        warming = asyncio.create_task(runtime.warm(config.engine))
        api: KubeApi | None = None
        try:
            kubeconfig = await bootstrap.client_kubeconfig(config)
            api = await KubeApi.from_kubeconfig(kubeconfig, temporary=config.pki)
            certificate = await bootstrap.serving_certificate(config, api)
            context = ssl_context(certificate, bootstrap.client_ca(config).decode())
            await warming
            await self._serve(api, runtime, context, groups)
        finally:
            warming.cancel()
            with contextlib.suppress(asyncio.CancelledError, WasmlabError):
                await warming
            ends = config.shutdown_grace_s > 0 and self.stopping.is_set()
            await runtime.aclose(kill=config.drain or ends)
            groups.close()
            if api is not None:
                await api.aclose()

    async def _serve(
        self, api: KubeApi, runtime: Runtime, context: ssl.SSLContext, groups: ContainerGroups
    ) -> None:
        from wasmlab.oci.client import AsyncClient
        from wasmlab.oci.store import ModuleStore

        config = self.config
        client = AsyncClient(plain_http=config.plain_http or None, ca_file=config.registry_ca)
        store = ModuleStore(config.dir / "modules")
        images = Images(
            store,
            client,
            api,
            parallel=config.parallel_pulls,
            own=_own_credentials(),
        )
        recorder = Recorder(api, config.node_name, loaded=lambda: self._busy_now() > _LOADED)
        spans = SpanLog(config.spans_file)
        links = ServiceView(api)
        services = Services(
            config,
            api,
            images,
            runtime,
            recorder,
            spans,
            gate=asyncio.Semaphore(_STATUS_WRITES),
            hold_s=self._hold_s,
            links=links,
            allocatable=machine.resources(config.dir, config.max_pods, config.capacity)[1],
            groups=groups,
        )
        recorded = await runtime.recorded()
        groups.sweep({str(run_id) for run_id in recorded})
        manager = self._manager = PodManager(services, recorded)
        certificates = Certificates(config, api, context)
        listener = bind(config.address, config.port, config.dir / "port")
        port = listener.getsockname()[1]
        collector = ImageGc(
            store,
            manager.images_in_use,
            lambda: machine.disk(config.dir),
            recorder,
            config.image_gc,
            period_s=config.intervals.image_gc_s,
        )

        def pressed(conditions: Mapping[str, str]) -> None:
            manager.account.pressure = tuple(conditions)
            if conditions:
                evictor.notice()

        node = registration.Registration(
            config,
            api,
            registration.facts(config, port, runtime.names),
            probe=lambda: _sandbox_problem(runtime, config.engine),
            pressed=pressed,
        )
        pods = Reflector(
            api, "/api/v1/pods", f"spec.nodeName={config.node_name}", manager.on_list, manager.on_event
        )
        endpoint = Endpoint.of(services, manager, certificates, pods.synced)
        thresholds = pressure.parse(config.eviction_hard)
        evictor = Evictor(
            manager,
            recorder,
            measure=lambda: pressure.shortages(thresholds, machine.signals(config.dir)),
            uses=endpoint.stats.uses,
            reclaim=lambda: collector.collect(everything=True),
        )
        background: list[asyncio.Task[None]] = []
        try:
            await endpoint.start(listener, context)
            await node.register()
            began = time.monotonic()
            background = [
                asyncio.create_task(work)
                for work in (
                    node.keep_lease(),
                    node.keep_node(),
                    recorder.run(),
                    pods.run(),
                    links.reflector.run(),
                    services.volumes.run(),
                    collector.run(),
                    evictor.run(),
                    *(renewal.run() for renewal in certificates.renewals),
                    keep_rotating(
                        manager.live_logs,
                        max_bytes=config.log_max_bytes,
                        period_s=config.intervals.rotation_s,
                    ),
                )
            ]
            log.info("ready", node=config.node_name, engine=config.engine, address=config.address, port=port)
            recorder.node(NORMAL, "Starting", "Starting the WASM node")
            synced = asyncio.create_task(pods.synced.wait())
            await asyncio.wait({synced, *background}, return_when=asyncio.FIRST_COMPLETED)
            synced.cancel()
            log.debug("pods listed", seconds=round(time.monotonic() - began, 3))
            # None of these ends by itself; if one does, it is a bug (or the node's certificate is lost), and that must
            # end the agent, not cripple it.
            done, _ = await asyncio.wait(background, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            if config.shutdown_grace_s > 0 and self.stopping.is_set():
                await self._shut_down(node, manager)
            await self._close(background, manager, endpoint, recorder, client, spans, services.volumes)

    async def _shut_down(self, node: registration.Registration, manager: PodManager) -> None:
        """The node ends with its pods (``--shutdown-grace-period``)."""
        grace_s, critical_s = self.config.shutdown_grace_s, self.config.shutdown_grace_critical_s
        log.info("the node is shutting down", grace_s=grace_s)
        manager.account.shutting_down = True
        try:
            # An API server that does not answer keeps neither the pods nor this agent from ending.
            async with asyncio.timeout(grace_s + _SHUTDOWN_SLACK_S):
                await asyncio.gather(
                    node.leave("node is shutting down"), manager.shut_down(grace_s, critical_s)
                )
        except TimeoutError:
            log.warning("not all that ended could be reported")

    async def _close(
        self,
        background: list[asyncio.Task[None]],
        manager: PodManager,
        endpoint: Endpoint,
        recorder: Recorder,
        client: Any,
        spans: SpanLog,
        volumes: VolumeManager,
    ) -> None:
        if self.config.drain:
            log.info("draining")
            await manager.drain(_DRAIN_S)
        # The watch first: nothing new may begin while the rest is let go.
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await manager.aclose(_SETTLE_S)
        await volumes.aclose()
        await recorder.drain(0.5)
        await endpoint.aclose()
        await client.aclose()
        spans.close()
        log.info("stopped", node=self.config.node_name)

    def _hold_s(self) -> float:
        """How long a status that may be overtaken is held back: longer the more pods are under way, because under load
        an overtaken write costs the most and says the least."""
        return min(_MAX_HOLD_S, self.config.intervals.status_hold_s * (1 + self._busy_now() / 8))

    def _busy_now(self) -> int:
        """How many pods are under way. Counting is linear in pods and asked for several times a pod: not each time."""
        now = time.monotonic()
        if self._manager is not None and now > self._counted_at + _COUNT_EVERY_S:
            self._counted_at, self._busy = now, self._manager.busy
        return self._busy


async def _sandbox_problem(runtime: Runtime, engine: str) -> str:
    """Why modules cannot be run now; empty if they can."""
    try:
        async with asyncio.timeout(_PROBE_S):
            await (await runtime.sandbox(engine)).stats()
    except TimeoutError:
        return f"the sandbox of engine {engine} did not answer within {_PROBE_S:g} s"
    except (WasmlabError, OSError) as error:
        return f"the sandbox of engine {engine} does not work: {getattr(error, 'message', None) or error}"
    return ""


def _own_credentials() -> Credentials | None:
    """What the node itself may pull with; a broken file must not keep the node from running public modules."""
    from wasmlab.oci.credentials import Credentials

    try:
        return Credentials.from_docker_config()
    except WasmlabError as error:
        log.warning("the node's own registry credentials cannot be used", error=error.message)
        return None
