"""Get a container's module: pull policy, pull secrets, and what a failure means to the pod.

Back-off is the worker's: this module tries once and says how it went. The store below it verifies digests.

References
----------
``k8s.io/kubernetes/pkg/kubelet/images/image_manager.go``: policies, reasons, messages.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wasmlab.errors import InvalidReference, NotFound, UnsupportedArtifact, WasmlabError
from wasmlab.node.api import events
from wasmlab.node.api.kubeapi import Json, KubeApi
from wasmlab.node.inputs.apiobjects import ApiObjects
from wasmlab.node.status import states

if TYPE_CHECKING:
    from wasmlab.oci.client import AsyncClient
    from wasmlab.oci.credentials import Credentials
    from wasmlab.oci.store import ModuleStore, Policy, StoredModule

Emit = Callable[[str, str, str], None]  # type, reason, message


class PullFailed(Exception):
    """The module could not be had.

    Attributes
    ----------
    reason : str
        The waiting reason: ErrImagePull, ErrImageNeverPull, InvalidImageName.
    hopeless : bool
        No retry will mend it (it is a container image, say): wait long and stay quiet.
    """

    def __init__(self, reason: str, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hopeless = hopeless


class Progress:
    """Tells of a pull that takes long, now and then.

    Parameters
    ----------
    tell : callable
        Takes a message.
    every_s : float
        How far apart messages are, and how long a pull may take before the first one.
    clock : callable
        Seconds.
    """

    def __init__(
        self, image: str, tell: Callable[[str], None], every_s: float, clock: Callable[[], float]
    ) -> None:
        self._image = image
        self._tell = tell
        self._every_s = every_s
        self._clock = clock
        self._began = self._told = clock()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Take note of how far it has come."""
        now = self._clock()
        if now - self._told < self._every_s or done_bytes >= total_bytes:
            return
        self._told = now
        rate = done_bytes / (now - self._began) / 1e6
        self._tell(
            f'Pulling image "{self._image}": {done_bytes * 100 // max(1, total_bytes)}%'
            f" ({done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, {rate:.1f} MB/s)"
        )


class Images:
    """The node's modules.

    Parameters
    ----------
    store : ModuleStore
        Where they are kept.
    client : AsyncClient
        How they are fetched.
    api : KubeApi
        For pull secrets.
    parallel : int
        How many pulls at once.
    own : Credentials, optional
        The node's (``~/.docker/config.json``), asked after the pod's.
    progress_s : float
        How far apart the events of one long pull are.
    """

    def __init__(
        self,
        store: ModuleStore,
        client: AsyncClient,
        api: KubeApi,
        *,
        parallel: int,
        own: Credentials | None = None,
        progress_s: float = 10.0,
    ) -> None:
        self._progress_s = progress_s
        self._own = own
        self._store = store
        self._client = client
        self._objects = ApiObjects(api)
        self._gate = asyncio.Semaphore(parallel)
        # Weak: a lock lives as long as somebody holds or awaits it.
        self._pulling: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def ensure(self, pod: Json, container: Json, emit: Emit) -> StoredModule:
        """Return the container's module, pulled if its policy says so.

        Raises
        ------
        PullFailed
            With the reason that the pod's status is to show.
        """
        image = container["image"]
        policy: Policy = container.get("imagePullPolicy") or "IfNotPresent"
        if policy != "Always":
            found = await self._find(image)
            if found is not None:
                emit(events.NORMAL, "Pulled", f'Container image "{image}" already present on machine')
                return found
            if policy == "Never":
                message = f'Container image "{image}" is not present with pull policy of Never'
                emit(events.WARNING, "ErrImageNeverPull", message)
                raise PullFailed(states.ERR_IMAGE_NEVER_PULL, message)
        asked = time.monotonic()
        if policy == "Always":
            async with self._gate:  # pods that ask at the same moment share one request below
                return await self._pull(pod, image, policy, emit, asked)
        async with self._pulling.setdefault(image, asyncio.Lock()):
            found = await self._find(image)
            if found is not None:
                emit(events.NORMAL, "Pulled", f'Container image "{image}" already present on machine')
                return found
            async with self._gate:
                return await self._pull(pod, image, policy, emit, asked)

    async def _find(self, image: str) -> StoredModule | None:
        try:
            return await self._store.get(image)
        except InvalidReference as error:
            raise _invalid(image, error) from error

    async def _pull(self, pod: Json, image: str, policy: Policy, emit: Emit, asked: float) -> StoredModule:
        from wasmlab.oci.reference import Reference

        try:
            reference = Reference.parse(image)
        except InvalidReference as error:
            raise _invalid(image, error) from error
        emit(events.NORMAL, "Pulling", f'Pulling image "{image}"')
        began = time.monotonic()
        try:
            credentials = await self._credentials(pod, emit)
            progress = Progress(
                image, lambda said: emit(events.NORMAL, "Pulling", said), self._progress_s, time.monotonic
            )
            module = await self._store.ensure(
                reference, policy, self._client, credentials=credentials, progress=progress
            )
        except UnsupportedArtifact as error:
            raise PullFailed(states.ERR_IMAGE_PULL, _text(error), hopeless=True) from error
        except NotFound as error:
            raise PullFailed(states.ERR_IMAGE_PULL, f"not found: {_text(error)}") from error
        except (WasmlabError, OSError) as error:  # the registry, the API server (secrets), the disk
            raise PullFailed(states.ERR_IMAGE_PULL, _text(error)) from error
        now = time.monotonic()
        emit(
            events.NORMAL,
            "Pulled",
            f'Successfully pulled image "{image}" in {_duration(now - began)} '
            f"({_duration(now - asked)} including waiting). Image size: {module.size_bytes} bytes.",
        )
        return module

    async def _credentials(self, pod: Json, emit: Emit) -> Credentials | None:
        from wasmlab.oci.credentials import Credentials

        found, missing = self._own, []
        for reference in pod["spec"].get("imagePullSecrets") or ():
            name = reference.get("name", "")
            secret = await self._objects.get(pod["metadata"]["namespace"], ("Secret", name))
            if secret is None:
                missing.append(name)  # pull without it; the registry will say if that does not do
            else:
                one = Credentials.from_pull_secret(secret)
                # The pod's own first: they are for exactly this.
                found = one if found is None else one | found
        if missing:
            emit(
                events.WARNING,
                "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); attempting to pull the image"
                " may not succeed.",
            )
        return found


def _invalid(image: str, error: InvalidReference) -> PullFailed:
    return PullFailed(
        states.INVALID_IMAGE_NAME,
        f'Failed to apply default image tag "{image}": {error.message}',
        hopeless=True,
    )


def _text(error: Any) -> str:
    return str(getattr(error, "message", error))


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.2f}s"
