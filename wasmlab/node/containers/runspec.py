"""From a container's spec to the sandbox's: the I/O around `env`, `podspec` and `volumemounts`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wasmlab.node.api.kubeapi import Json
from wasmlab.node.containers.services import Services
from wasmlab.node.inputs import listening, volumemounts
from wasmlab.node.spec import env, podspec, resources
from wasmlab.node.status import termmessage

if TYPE_CHECKING:
    from pathlib import Path

    from wasmlab.oci.store import StoredModule
    from wasmlab.sandbox import Preopen, RunSpec


async def run_spec(
    services: Services, pod: Json, container: Json, engine: str, module: StoredModule, directory: Path
) -> RunSpec:
    """Return what the sandbox is to run.

    Parameters
    ----------
    engine : str
        Chosen by annotation or default.
    directory : Path
        The pod's own directory on this node.

    Raises
    ------
    NotMounted
        A volume is not ready.
    Refused, ConfigError
        With what cannot be served or is missing.
    ApiError, ApiUnavailable
        The API server could not be asked.
    """
    from wasmlab.sandbox import RunSpec

    engines = services.runtime.names
    if engine not in engines:
        raise podspec.Refused(
            f"this node has no engine {engine!r} (annotation {podspec.ENGINE_ANNOTATION}); it has {', '.join(engines)}"
        )
    podspec.check(pod, container)
    limits = resources.limits(container)
    variables = await _variables(services, pod, container)
    return RunSpec(
        module=str(module.path),
        digest=module.digest,
        argv=env.argv(container, variables, podspec.module_name(container["image"])),
        env=tuple(variables.items()),
        preopens=await _preopens(services, pod, container, variables, module, directory),
        memory_bytes=limits.guest_bytes,
        oom_score_adj=resources.oom_score_adj(pod, container, services.memory_bytes),
        listen=listening.ports(container, str(module.path)),
    )


async def _variables(services: Services, pod: Json, container: Json) -> dict[str, str]:
    namespace = pod["metadata"]["namespace"]
    objects: dict[env.Reference, Json | None] = {}
    for reference, _optional in env.references(container):
        if reference not in objects:
            objects[reference] = await services.objects.get(namespace, reference)
    links = await services.links.all() if services.links is not None else ()
    return env.build(container, pod, services.side, objects, links)


async def _preopens(
    services: Services,
    pod: Json,
    container: Json,
    variables: dict[str, str],
    module: StoredModule,
    directory: Path,
) -> tuple[Preopen, ...]:
    without: set[str] = set()
    if not termmessage.opens_files(str(module.path), module.digest):
        # It could not read the token that every pod is given unasked, and that costs a request each.
        without = podspec.automatic_tokens(pod)
    volumes = await services.volumes.set_up(pod, without)
    mounts = [one for one in podspec.mounts(container, variables) if one.name not in without]
    if not mounts:
        return ()
    aside = directory / "mounts" / container["name"]
    return await asyncio.to_thread(volumemounts.preopens, mounts, volumes.specs, volumes.roots, aside)
