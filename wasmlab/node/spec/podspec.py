"""What of a Pod this node can serve, and what it refuses: pure.

A WASM module is not a container: no users, no network namespace, no second program to exec. What the spec asks for and
this node cannot give is named in the pod's status (CreateContainerConfigError) and never silently left out, with these
exceptions, left out knowingly:

* the service account token that the API server adds to every pod (``kube-api-access-*``), where the module cannot open
  a file (it imports no ``path_open``): nobody could read it, and it would cost a TokenRequest per start;
* ``securityContext``: the sandbox gives a module no user, no capabilities and no devices, which is less than any
  setting asks for;
* ``ports`` of a module that has no sockets: informational in Kubernetes too (`inputs.listening`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.node.api import quantity
from wasmlab.node.spec import env

Json = dict[str, Any]

ENGINE_ANNOTATION = "wasmlab.dev/engine"
SEMANTICS_ANNOTATION = "wasmlab.dev/restart-semantics"


class Refused(Exception):
    """The container asks for something this node does not have; the message says what."""


@dataclass(frozen=True)
class Mount:
    """A volume, or a part of it, in a container."""

    guest: str
    name: str  # the volume's
    sub_path: str = ""
    read_only: bool = False


def key(pod: Json) -> str:
    """namespace/name, for log lines."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def engine_of(pod: Json, container: str, default: str) -> str:
    """The engine by annotation of the container, of the pod, else the node's default."""
    annotations = pod["metadata"].get("annotations") or {}
    return (
        annotations.get(f"{ENGINE_ANNOTATION}.{container}") or annotations.get(ENGINE_ANNOTATION) or default
    )


def semantics_of(pod: Json, default: str) -> str:
    """``kubernetes`` or ``krustlet``: how this pod's end is reported and whether restartPolicy is read."""
    annotations = pod["metadata"].get("annotations") or {}
    value = annotations.get(SEMANTICS_ANNOTATION, default)
    return value if value in ("kubernetes", "krustlet") else default


def closed_gates(pod: Json) -> list[str]:
    """Readiness gates of the pod whose condition is missing or not True."""
    gates = pod["spec"].get("readinessGates") or ()
    given = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
    return [g["conditionType"] for g in gates if given.get(g["conditionType"]) != "True"]


def memory_limit(container: Json) -> int | None:
    """``resources.limits.memory`` in bytes.

    Raises
    ------
    Refused
        It is not a quantity.
    """
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    if limit is None:
        return None
    try:
        return quantity.parse(limit)
    except ValueError as error:
        raise Refused(f"resources.limits.memory: {error}") from None


def module_name(image: str) -> str:
    """argv[0] of a module: the last part of its repository."""
    name = image.split("@", 1)[0].rsplit("/", 1)[-1].split(":", 1)[0]
    return name or "module"


def check(pod: Json, container: Json) -> None:
    """Raise `Refused` for what this node cannot do for this container.

    Raises
    ------
    Refused
        With every reason found.
    """
    problems = [
        f"{probe}.grpc: mode TLS cannot be served; Plaintext can"
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        if ((container.get(probe) or {}).get("grpc") or {}).get("mode") == "TLS"
    ]
    if container.get("workingDir"):
        problems.append("workingDir: WASI preview 1 has no working directory; mount what the module needs")
    if any(
        rule.get("action") == "RestartAllContainers" for rule in container.get("restartPolicyRules") or ()
    ):
        # The node does not declare the feature, so only a pod bound by hand comes here.
        problems.append("restartPolicyRules: the action RestartAllContainers cannot be served")
    if container.get("volumeDevices"):
        problems.append("volumeDevices cannot be served")
    if problems:
        raise Refused("; ".join(problems))
    memory_limit(container)


def automatic_tokens(pod: Json) -> set[str]:
    """The volumes that the API server adds to every pod for its service account (the admission ServiceAccount)."""
    return {
        volume["name"]
        for volume in pod["spec"].get("volumes") or ()
        if volume["name"].startswith("kube-api-access-") and "projected" in volume
    }


def mounts(container: Json, variables: Mapping[str, str]) -> list[Mount]:
    """The container's mounts.

    Parameters
    ----------
    variables : mapping
        The container's environment, for ``subPathExpr``.

    Raises
    ------
    Refused
        A mount cannot be served.
    """
    result = []
    for mount in container.get("volumeMounts") or ():
        sub_path = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            sub_path = env.expand_strictly(mount["subPathExpr"], variables)
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            raise Refused(f"volume {mount['name']}: subPath {sub_path!r} leads out of the volume")
        if mount.get("mountPropagation") == "Bidirectional":
            raise Refused(f"volume {mount['name']}: a module mounts nothing that could propagate to the node")
        read_only = bool(mount.get("readOnly"))
        result.append(Mount(mount["mountPath"], mount["name"], sub_path.strip("/"), read_only))
    return result
