"""From a container's spec to the sandbox's: the I/O around `env` and `podspec` (ConfigMaps, Secrets, directories)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.node import env, podspec
from wasmlab.node.kubeapi import ApiError, Json, KubeApi
from wasmlab.node.services import Services

if TYPE_CHECKING:
    from wasmlab.oci.store import StoredModule
    from wasmlab.sandbox import Preopen, RunSpec

_FORBIDDEN_TRIES = 5
_PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}


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
    objects: dict[env.Reference, Json | None] = {}
    for reference, _optional in env.references(container):
        if reference not in objects:
            objects[reference] = await _object(services.api, pod["metadata"]["namespace"], reference)
    config = services.config
    # No CNI: the pod's address is the node's.
    side = env.NodeSide(config.node_name, host_ip=config.address, pod_ip=config.address)
    variables = env.build(container, pod, side, objects)
    return RunSpec(
        module=str(module.path),
        digest=module.digest,
        argv=env.argv(container, variables, podspec.module_name(container["image"])),
        env=tuple(variables.items()),
        preopens=tuple(_preopen(mount, directory) for mount in podspec.mounts(pod, container)),
        memory_bytes=podspec.memory_limit(container),
    )


async def _object(api: KubeApi, namespace: str, reference: env.Reference) -> Json | None:
    kind, name = reference
    for attempt in range(_FORBIDDEN_TRIES):
        try:
            return await api.get(f"/api/v1/namespaces/{namespace}/{_PLURALS[kind]}/{name}")
        except ApiError as error:
            if error.context["status"] == 404:
                return None
            # The authorizer lets a node read what its pods refer to, from a moment after it learnt of them.
            if error.context["status"] != 403 or attempt == _FORBIDDEN_TRIES - 1:
                raise
        await asyncio.sleep(0.05 * 2**attempt)
    return None


def _preopen(mount: podspec.Mount, directory: Path) -> Preopen:
    from wasmlab.sandbox import Preopen

    if mount.kind == "emptyDir":
        host = directory / "volumes" / mount.name
        host.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in Path(mount.sub_path).parts:
            host = host / part
            # A module can have put a link there that leads out of its volume (CVE-2017-1002101 of the kubelet).
            if host.is_symlink():
                raise podspec.Refused(
                    f"volume {mount.name}: subPath {mount.sub_path} goes through a symbolic link"
                )
            host.mkdir(exist_ok=True)
    else:
        host = Path(mount.path)
        if mount.host_path_type == "DirectoryOrCreate":
            host.mkdir(parents=True, exist_ok=True)
        host = host / mount.sub_path
    if not host.is_dir():
        raise podspec.Refused(
            f"volume {mount.name}: {host} is not a directory on this node; only directories can be mounted"
        )
    return Preopen(str(host), mount.guest, mount.read_only)
