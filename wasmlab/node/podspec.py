"""What of a Pod this node can serve, and what it refuses: pure.

A WASM module is not a container: no processes to exec into, no users, no network namespace. What the spec asks for and
this node cannot give is named in the pod's status (CreateContainerConfigError) and never silently left out, with these
exceptions, left out knowingly:

* the service account token volume that the API server adds to every pod (``kube-api-access-*``): a module that wants it
  mounts a projected volume of its own name, and is then refused; serving it to every pod would cost a TokenRequest per
  start for modules that, under WASI preview 1, cannot open a connection to use it;
* ``securityContext``: the sandbox gives a module no user, no capabilities and no devices, which is less than any
setting
  asks for;
* ``ports``: informational in Kubernetes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wasmlab.node import quantity

Json = dict[str, Any]

ENGINE_ANNOTATION = "wasmlab.dev/engine"
SEMANTICS_ANNOTATION = "wasmlab.dev/restart-semantics"
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


class Refused(Exception):
    """The container asks for something this node does not have; the message says what."""


@dataclass(frozen=True)
class Mount:
    """A directory to preopen. ``source`` is where its content comes from."""

    guest: str
    kind: str  # "emptyDir" | "hostPath"
    name: str  # the volume's
    path: str  # hostPath: the path on the host
    sub_path: str
    read_only: bool
    host_path_type: str = ""


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
        f"{probe} cannot be served (a module offers no endpoint and no process to run it in)"
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        if container.get(probe)
    ]
    if container.get("lifecycle"):
        problems.append("lifecycle hooks cannot be served")
    if container.get("workingDir"):
        problems.append("workingDir: WASI preview 1 has no working directory; mount what the module needs")
    if container.get("volumeDevices"):
        problems.append("volumeDevices cannot be served")
    if container.get("restartPolicy"):
        problems.append("a restartPolicy of a container's own (sidecars) is not supported")
    if problems:
        raise Refused("; ".join(problems))
    memory_limit(container)
    mounts(pod, container)


def mounts(pod: Json, container: Json) -> Sequence[Mount]:
    """The container's mounts.

    Raises
    ------
    Refused
        A mount of a volume type that this node does not serve.
    """
    volumes = {v["name"]: v for v in pod["spec"].get("volumes") or ()}
    result = []
    for mount in container.get("volumeMounts") or ():
        volume = volumes.get(mount["name"], {})
        if mount["mountPath"] == _TOKEN_PATH and "projected" in volume:
            continue  # see the module docstring
        kind = next((k for k in volume if k != "name"), "nothing")
        if kind not in ("emptyDir", "hostPath"):
            raise Refused(
                f"volume {mount['name']} ({kind}) mounted at {mount['mountPath']} is not supported by this node;"
                " emptyDir and hostPath are"
            )
        if kind == "emptyDir" and (volume["emptyDir"] or {}).get("medium"):
            raise Refused(
                f"volume {mount['name']}: emptyDir medium {volume['emptyDir']['medium']} is not supported"
            )
        if mount.get("subPathExpr") or ".." in (mount.get("subPath") or "").split("/"):
            raise Refused(f"volume {mount['name']}: subPathExpr, and '..' in subPath, are not supported")
        host = volume.get("hostPath") or {}
        result.append(
            Mount(
                guest=mount["mountPath"],
                kind=kind,
                name=mount["name"],
                path=host.get("path", ""),
                sub_path=mount.get("subPath") or "",
                read_only=bool(mount.get("readOnly")),
                host_path_type=host.get("type") or "",
            )
        )
    return result
