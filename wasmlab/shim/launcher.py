"""A module becomes a process: find it, compile it if need be, and put a worker into the container."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab import engines
from wasmlab.engines.spec import RunSpec
from wasmlab.errors import WasmlabError
from wasmlab.shim import bundle as bundles
from wasmlab.shim import layer as layers
from wasmlab.shim.bundle import BundleError, Process
from wasmlab.shim.guestspec import run_spec, surroundings
from wasmlab.shim.prepare import Preparer
from wasmlab.shim.rpc import FAILED_PRECONDITION, UNKNOWN
from wasmlab.shim.stdio import Console, Streams
from wasmlab.shim.worker import UNAVAILABLE, Pause, enters_root

if TYPE_CHECKING:
    from wasmlab.engines import CompileCache
    from wasmlab.sandbox.loop import Loop
    from wasmlab.shim.container import Container, Task
    from wasmlab.shim.events import Publisher
    from wasmlab.shim.spare import Spare
    from wasmlab.shim.verdict import End

Ended = Callable[["Task", "End"], None]
Then = Callable[[tuple[int, str] | None], None]
"""Called with None when the worker has its request, else with (ttrpc code, reason)."""
TROUBLE = (BundleError, WasmlabError, OSError)
"""What can go wrong with a container, as opposed to with the shim."""


class Launcher:
    """Puts workers into containers.

    Parameters
    ----------
    ended : callable
        Called with a task and how it ended.
    """

    def __init__(
        self, loop: Loop, publisher: Publisher, cache: CompileCache, spare: Spare, ended: Ended
    ) -> None:
        self._loop = loop
        self._publisher = publisher
        self._spare = spare
        self._ended = ended
        self._preparer = Preparer(loop, cache)

    def pause(self, task: Task) -> None:
        """Start the process of a pod's sandbox container, which only sleeps.

        Raises
        ------
        OSError
            If it cannot be forked, or has no cgroup.
        """
        bundle = task.container.bundle
        task.container.cgroup.create(bundle.resources)
        task.attach(self._loop, Pause(surroundings(task.container, bundle.process)), self._ended)

    def init(self, task: Task, request: Any, then: Then) -> None:
        """Start the container's first process; `then` is called now or later.

        Raises
        ------
        BundleError, WasmlabError, OSError
            If there is no such module, the engine does not do what the container wants, or the system refuses.
        """
        container = task.container
        if container.engine in UNAVAILABLE:
            raise BundleError(UNAVAILABLE[container.engine])
        engines.get(container.engine)
        path, wasm = self._module(container, request)
        bundle = container.bundle  # the module may have been found in another place than the bundle said
        spec = run_spec(container, bundle.process, path, bundle.process.args, wasm)
        task.streams = self._streams(task)
        container.cgroup.create(bundle.resources)
        self._launch(task, bundle.process, wasm, spec, lambda: 0, then)

    def exec(self, task: Task, process: Process, then: Then) -> None:
        """Start another process of the container; raises as `init` does, `then` is called now or later."""
        container = task.container
        own = container.bundle.process
        if process.args and bundles.names_module(container.bundle, process):
            argv, source = process.args, process
        else:
            argv, source = (*own.args[:1], *process.args), own
        path, wasm = bundles.read_module(container.bundle, source)
        spec = run_spec(container, process, path, argv, wasm)
        task.streams = self._streams(task)

        def mounts_of() -> int:
            if container.init is None or container.init.worker is None:
                raise BundleError("the container has ended")
            return container.init.worker.pid

        self._launch(task, process, wasm, spec, mounts_of, then)

    def _module(self, container: Container, request: Any) -> tuple[str, bytes]:
        bundle = container.bundle
        try:
            return bundles.read_module(bundle, bundle.process)
        except BundleError:
            found = layers.find(
                [text for one in request.rootfs for text in (one.source, *one.options)],
                self._publisher.containerd,
                self._publisher.namespace,
                request.id,
                bundle.annotations.get(layers.IMAGE_NAME),
            )
            if found is None:
                raise
            container.bundle = dataclasses.replace(bundle, layer=found)
            return bundles.read_module(container.bundle, bundle.process)

    def _streams(self, task: Task) -> Streams | Console:
        if task.terminal:
            return Console(self._loop, task.stdin, task.stdout)
        return Streams(self._loop, task.stdin, task.stdout, task.stderr)

    def _launch(
        self,
        task: Task,
        process: Process,
        wasm: bytes,
        spec: RunSpec,
        mounts_of: Callable[[], int],
        then: Then,
    ) -> None:
        def prepared(spec: RunSpec, found: Path | str) -> None:
            if isinstance(found, str):
                then((FAILED_PRECONDITION, found))
                return
            try:
                self._put_to_work(task, process, spec, found, mounts_of())
            except BundleError as error:
                then((FAILED_PRECONDITION, reason(error)))
            except OSError as error:
                then((UNKNOWN, reason(error)))
            else:
                then(None)

        self._preparer.artifact(engines.get(task.container.engine), wasm, spec, prepared)

    def _put_to_work(
        self, task: Task, process: Process, spec: RunSpec, artifact: Path, mounts_of: int
    ) -> None:
        container = task.container
        worker = self._spare.take(container.engine)
        request = {
            **surroundings(container, process),
            "spec": spec.to_json(),
            "artifact": str(artifact),
            "terminal": task.terminal,
            "pivot": enters_root(engines.get(container.engine)),
        }
        if mounts_of:
            request["mount_ns_of"] = mounts_of
            # A new network namespace was the init process's; this one joins it.
            if request["network"] == "":
                request["network"] = f"/proc/{mounts_of}/ns/net"
        assert task.streams is not None
        task.oom_before = container.cgroup.oom_kills()
        task.attach(self._loop, worker, self._ended)
        worker.send(request, task.streams.guest)
        task.streams.handed_over()


def reason(error: Exception) -> str:
    """Return what to tell containerd."""
    if isinstance(error, WasmlabError):
        return error.message + (f" (try: {error.remedy})" if error.remedy else "")
    if isinstance(error, OSError):
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return str(error)
