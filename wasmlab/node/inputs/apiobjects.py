"""Objects that pods refer to (ConfigMaps, Secrets, tokens, claims and their volumes), read with the node's rights.

The Node authorizer lets a node read what the pods bound to it refer to, from a moment after it has learnt of the
binding; until then it says 403, which is waited out. What many pods ask for at one moment is asked for once.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from wasmlab.node.api.kubeapi import ApiError, Json, KubeApi
from wasmlab.node.api.times import parse_time
from wasmlab.node.spec import payload
from wasmlab.node.spec.env import Reference
from wasmlab.node.spec.payload import TokenRequest

_PLURALS = {
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
_FORBIDDEN_TRIES, _FORBIDDEN_WAIT_S = 9, 0.005  # doubled each time: 1.3 s in all
# The ConfigMap that the controller manager puts into every namespace, for the volume of the service account.
ROOT_CA: Reference = ("ConfigMap", "kube-root-ca.crt")
_AUTHORITY_S = 60.0


@dataclass(frozen=True)
class Token:
    """A service account token and when to ask for the next (CLOCK_MONOTONIC, seconds)."""

    value: str
    renew_at: float


class ApiObjects:
    """Reads them.

    Parameters
    ----------
    api : KubeApi
        With the node's credentials.
    """

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._authority: dict[str, tuple[float, Json | None]] = {}
        self._asking: dict[tuple[str, Reference], asyncio.Task[Json | None]] = {}

    async def get(self, namespace: str, reference: Reference) -> Json | None:
        """The object; None if it does not exist.

        Raises
        ------
        ApiError, ApiUnavailable
            The API server could not be asked, or says no.
        """
        if reference == ROOT_CA:
            # In nearly every pod, and the same for the life of a cluster: not a request per start.
            until, found = self._authority.get(namespace, (0.0, None))
            if time.monotonic() >= until:
                found = await self._get(namespace, reference)
                until = time.monotonic() + (_AUTHORITY_S if found is not None else 0.0)
                self._authority[namespace] = until, found
            return found
        key = (namespace, reference)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._get(namespace, reference))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
            # Who asked may have been cancelled; an answer that nobody takes is no programming error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def of_cluster(self, plural: str, name: str) -> Json | None:
        """An object that is in no namespace: a PersistentVolume, the Node; None if it does not exist.

        Raises
        ------
        ApiError, ApiUnavailable
            As `get`.
        """
        return await self._at(f"/api/v1/{plural}/{name}")

    async def _get(self, namespace: str, reference: Reference) -> Json | None:
        kind, name = reference
        return await self._at(f"/api/v1/namespaces/{namespace}/{_PLURALS[kind]}/{name}")

    async def _at(self, path: str) -> Json | None:
        try:
            return await self._patiently("GET", path)
        except ApiError as error:
            if error.context["status"] == 404:
                return None
            raise

    async def token(self, pod: Json, request: TokenRequest) -> Token:
        """A token for the pod's service account, bound to the pod.

        Raises
        ------
        ApiError, ApiUnavailable
            As `get`.

        References
        ----------
        ``k8s.io/kubernetes/pkg/volume/projected/projected.go`` (the request),
        ``authentication.k8s.io/v1`` TokenRequest.
        """
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        spec: Json = {
            "expirationSeconds": request.seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "audiences": [request.audience] if request.audience else [],
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        asked, asked_at = time.time(), time.monotonic()
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        status = (await self._patiently("POST", path, body))["status"]
        life_s = parse_time(status["expirationTimestamp"]) - asked
        return Token(status["token"], asked_at + payload.renew_after(life_s))

    async def _patiently(self, method: str, path: str, body: Json | None = None) -> Json:
        for attempt in range(_FORBIDDEN_TRIES):
            try:
                return await self._api.request(method, path, body=body)
            except ApiError as error:
                if error.context["status"] != 403 or attempt == _FORBIDDEN_TRIES - 1:
                    raise
            await asyncio.sleep(_FORBIDDEN_WAIT_S * 2**attempt)
        raise AssertionError("unreachable")
