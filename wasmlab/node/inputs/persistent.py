"""From a pod's claim to a place on this node: the I/O around `claims`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from wasmlab.node.api.kubeapi import Json
from wasmlab.node.inputs import hostpath
from wasmlab.node.inputs.apiobjects import ApiObjects
from wasmlab.node.inputs.notmounted import NotBound, NotMounted
from wasmlab.node.spec import claims


async def place(objects: ApiObjects, node_name: str, pod: Json, volume: Json) -> Path:
    """Return the directory (or file) that a volume with a claim stands for.

    Raises
    ------
    NotMounted
        The claim is not bound, or to something that is not here, or that this node does not serve.
    ApiError, ApiUnavailable
        The API server could not be asked.
    """
    namespace, name = pod["metadata"]["namespace"], claims.name_of(volume, pod)
    try:
        claim = await objects.get(namespace, ("PersistentVolumeClaim", name))
        bound = claims.volume_of(volume, pod, claim)
        persistent = await objects.of_cluster("persistentvolumes", bound)
        kind, body = claims.source_of(volume, claim or {}, bound, persistent)
    except claims.ClaimError as error:
        raise NotBound(volume["name"], f"{namespace}/{name}", str(error)) from None
    node = await objects.of_cluster("nodes", node_name)
    if not claims.is_here(persistent or {}, node or {"metadata": {"name": node_name}}):
        raise NotMounted(bound, "no matching NodeSelectorTerms", step="NodeAffinity check failed")
    path = body.get("path", "")
    try:
        if kind == "hostPath":
            return await asyncio.to_thread(hostpath.prepare, path, body.get("type") or "")
        if kind == "local":
            return await asyncio.to_thread(hostpath.existing, path)
    except (hostpath.WrongType, OSError) as error:
        raise NotMounted(bound, str(error)) from error
    raise NotMounted(
        bound,
        f"a persistent volume of type {kind} is not supported by this node; {' and '.join(claims.SERVED)} are",
    )
