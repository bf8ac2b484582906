"""The downward API: what a pod may know of itself, for variables and for files. Pure.

References
----------
``k8s.io/kubernetes/pkg/fieldpath/fieldpath.go`` (``ExtractFieldPathAsString``, ``FormatMap``),
``k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`` (``podFieldSelectorRuntimeValue``),
``k8s.io/kubernetes/pkg/api/v1/resource/helpers.go`` (``ExtractContainerResourceValue``,
``MergeContainerResourceLimits``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wasmlab.node.api import quantity

Json = dict[str, Any]

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True)
class NodeSide:
    """What the downward API knows beyond the pod.

    Attributes
    ----------
    allocatable : mapping
        Of the node: the limits of a container that has none.
    """

    node_name: str
    host_ip: str
    pod_ip: str
    allocatable: Mapping[str, str] = field(default_factory=dict)


def value(source: Json, pod: Json, container: Json, side: NodeSide) -> str:
    """The value of a ``valueFrom`` (or of an item of a downwardAPI volume): its ``fieldRef`` or ``resourceFieldRef``.

    Raises
    ------
    ValueError
        The downward API has no such thing.
    """
    if "fieldRef" in source:
        return field_value(source["fieldRef"].get("fieldPath", ""), pod, side)
    return resource_value(source["resourceFieldRef"], pod, container, side)


def field_value(path: str, pod: Json, side: NodeSide) -> str:
    """The value of a ``fieldRef``.

    Raises
    ------
    ValueError
        There is no such field.
    """
    meta, spec = pod["metadata"], pod["spec"]
    simple: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: meta["name"],
        "metadata.namespace": lambda: meta["namespace"],
        "metadata.uid": lambda: meta["uid"],
        "metadata.labels": lambda: format_map(meta.get("labels") or {}),
        "metadata.annotations": lambda: format_map(meta.get("annotations") or {}),
        "spec.nodeName": lambda: side.node_name,
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.hostIP": lambda: side.host_ip,
        "status.hostIPs": lambda: side.host_ip,
        "status.podIP": lambda: side.pod_ip,
        "status.podIPs": lambda: side.pod_ip,
    }
    if path in simple:
        return simple[path]()
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return (meta.get(subscript.group(1)) or {}).get(subscript.group(2), "")
    raise ValueError(f"fieldRef {path!r} is not a field that the downward API has")


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as a file shows them: ``key="value"`` a line, sorted."""
    # Go quotes as JSON does, but for characters that are not ASCII, which it leaves as they are, as this does.
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource_value(ref: Json, pod: Json, container: Json, side: NodeSide) -> str:
    """The value of a ``resourceFieldRef``: in units of its divisor, rounded up.

    Raises
    ------
    ValueError
        There is no such resource or container, or something is not a quantity.
    """
    name = ref.get("containerName")
    if name and name != container.get("name"):
        all_containers = (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))
        found = next((c for c in all_containers if c["name"] == name), None)
        if found is None:
            raise ValueError(f"resourceFieldRef: the pod has no container {name!r}")
        container = found
    kind, _, resource = str(ref.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not (
        resource in _RESOURCES or resource.startswith("hugepages-")
    ):
        raise ValueError(f"resourceFieldRef: {ref.get('resource')!r} is not a resource of a container")
    amount = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if amount is None and kind == "limits":
        of_pod = ((pod["spec"].get("resources") or {}).get("limits") or {}).get(resource)
        amount = of_pod if of_pod is not None else side.allocatable.get(resource)
    divisor = quantity.exact(ref.get("divisor") or "1")
    return str(quantity.ceil(quantity.exact(amount or "0") / (divisor or quantity.exact("1"))))
