"""The cluster's Services as this node knows them, for the variables of new containers."""

from __future__ import annotations

import asyncio

from wasmlab.node.api.kubeapi import Json, KubeApi
from wasmlab.node.api.watch import Reflector
from wasmlab.node.spec.env import ConfigError

_PATIENCE_S = 10.0


class ServiceView:
    """Follows all Services that have an address.

    Parameters
    ----------
    api : KubeApi
        With the node's credentials.
    """

    def __init__(self, api: KubeApi) -> None:
        self._found: dict[str, Json] = {}
        self.reflector = Reflector(
            api, "/api/v1/services", "spec.clusterIP!=None", self._listed, self._changed
        )

    async def all(self) -> list[Json]:
        """All Services, once they have been read.

        Raises
        ------
        ConfigError
            They have not been, for longer than is worth waiting: the API server does not answer.
        """
        if not self.reflector.synced.is_set():
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self.reflector.synced.wait()
            except TimeoutError:
                # The kubelet's words.
                raise ConfigError(
                    "services have not yet been read at least once, cannot construct envvars"
                ) from None
        return list(self._found.values())

    def _listed(self, services: list[Json]) -> None:
        self._found = {}
        for service in services:
            self._changed("ADDED", service)

    def _changed(self, kind: str, service: Json) -> None:
        meta, spec = service["metadata"], service["spec"]
        key = f"{meta['namespace']}/{meta['name']}"
        if kind == "DELETED":
            self._found.pop(key, None)
            return
        # Only what the variables need: a cluster may have thousands.
        self._found[key] = {
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "spec": {"clusterIP": spec.get("clusterIP", ""), "ports": spec.get("ports") or []},
        }
