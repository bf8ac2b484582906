"""The variables that tell a container of its namespace's Services. Pure.

``KUBERNETES_SERVICE_HOST`` and ``_PORT`` (the API server) are there always, those of other Services unless the pod's
``enableServiceLinks`` is false. Only Services that exist when the container starts are named, as everywhere.

References
----------
``k8s.io/kubernetes/pkg/kubelet/envvars/envvars.go`` (``FromServices``), ``kubelet_pods.go`` (``getServiceEnvVarMap``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def variables(services: Iterable[Json], namespace: str, links: bool) -> dict[str, str]:
    """The variables of all Services that a pod of `namespace` is told of.

    Parameters
    ----------
    links : bool
        ``spec.enableServiceLinks``.
    """
    chosen: dict[str, Json] = {}
    for service in services:
        meta = service["metadata"]
        if service["spec"].get("clusterIP", "") in ("", "None"):
            continue
        if meta["namespace"] == namespace and links:
            chosen[meta["name"]] = service
        elif meta["namespace"] == "default" and meta["name"] == "kubernetes":
            # A Service of that name in the pod's own namespace counts more.
            chosen.setdefault("kubernetes", service)
    result: dict[str, str] = {}
    for service in chosen.values():
        result |= of_service(service)
    return result


def of_service(service: Json) -> dict[str, str]:
    """The variables of one Service, Docker's old link variables included."""
    spec = service["spec"]
    host, ports = spec["clusterIP"], spec.get("ports") or ()
    name = _name(service["metadata"]["name"])
    result = {f"{name}_SERVICE_HOST": host}
    for index, port in enumerate(ports):
        number, protocol = str(port["port"]), port.get("protocol") or "TCP"
        if index == 0:
            result[f"{name}_SERVICE_PORT"] = number
        if port.get("name"):
            result[f"{name}_SERVICE_PORT_{_name(port['name'])}"] = number
        url = f"{protocol.lower()}://{f'[{host}]' if ':' in host else host}:{number}"
        if index == 0:
            result[f"{name}_PORT"] = url
        prefix = f"{name}_PORT_{number}_{protocol.upper()}"
        result |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": number,
            f"{prefix}_ADDR": host,
        }
    return result


def _name(text: str) -> str:
    return text.replace("-", "_").upper()
