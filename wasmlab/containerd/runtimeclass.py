"""RuntimeClasses, and pods that use them, as plain dictionaries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wasmlab.cluster.manifests import ENGINE_ANNOTATION

#: RuntimeClass and handler by the same name -> runtime type of containerd. ``wasm`` runs the default engine, or the one
#: that the pod's annotation names; the others always run theirs.
HANDLERS = {
    "wasm": "io.containerd.wasm.v1",
    "wasmtime": "io.containerd.wasmtime.v1",
    "wasmer": "io.containerd.wasmer.v1",
}
#: Nodes that have the handlers carry this label; a RuntimeClass with a node selector sends pods only there.
NODE_LABEL = "wasmlab.dev/shim"


def runtime_class(
    name: str, *, handler: str | None = None, selector: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a RuntimeClass.

    Parameters
    ----------
    name : str
        What a pod writes into ``runtimeClassName``.
    handler : str, optional
        The runtime's name in containerd's configuration; the same as `name` if None.
    selector : mapping, optional
        Labels of the nodes that have it.
    """
    manifest: dict[str, Any] = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler or name,
    }
    if selector:
        manifest["scheduling"] = {"nodeSelector": dict(selector)}
    return manifest


def runtime_classes(names: Iterable[str] = HANDLERS) -> list[dict[str, Any]]:
    """Return the RuntimeClasses of our handlers, for nodes that carry `NODE_LABEL`."""
    return [runtime_class(name, selector={NODE_LABEL: "true"}) for name in names]


def container_pod(
    name: str,
    image: str,
    *,
    runtime_class: str | None = None,
    engine: str | None = None,
    command: Sequence[str] = (),
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    restart_policy: str = "Never",
    node: str | None = None,
    namespace: str = "default",
    image_pull_policy: str = "Always",
    resources: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Return a Pod for a container node: under runc, or under one of our RuntimeClasses.

    Parameters
    ----------
    name, namespace : str
        Of the Pod; its container has the same name.
    image : str
        Reference of a container image.
    runtime_class : str, optional
        ``"wasm"``, ``"wasmtime"`` or ``"wasmer"``; runc if None.
    engine : str, optional
        For ``"wasm"``: the engine, as an annotation.
    command, args : sequence of str
        Override the image's entrypoint and command.
    env : mapping, optional
        Environment variables.
    restart_policy : str
        ``"Never"``, ``"OnFailure"`` or ``"Always"``.
    node : str, optional
        A node by name.
    image_pull_policy : str
        ``"Always"``, ``"IfNotPresent"`` or ``"Never"``.
    resources : mapping, optional
        As in Kubernetes, e.g. ``{"limits": {"memory": "64Mi"}}``.
    """
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if engine is not None:
        metadata["annotations"] = {ENGINE_ANNOTATION: engine}
    container: dict[str, Any] = {"name": name, "image": image, "imagePullPolicy": image_pull_policy}
    if command:
        container["command"] = list(command)
    if args:
        container["args"] = list(args)
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    if resources:
        container["resources"] = {kind: dict(values) for kind, values in resources.items()}
    spec: dict[str, Any] = {
        "restartPolicy": restart_policy,
        # A module has no use for a token of the API server, and mounting one costs time.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
    }
    if runtime_class is not None:
        spec["runtimeClassName"] = runtime_class
    if node is not None:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def article_deployment(
    image: str, *, name: str = "hello-wasm", runtime_class: str = "wasm"
) -> dict[str, Any]:
    """Return the article's Deployment: one replica, ``imagePullPolicy: Always``, under the RuntimeClass.

    A Deployment restarts what ends: its pod is Completed, then CrashLoopBackOff, then Completed again.
    """
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "runtimeClassName": runtime_class,
                    "containers": [{"name": name, "image": image, "imagePullPolicy": "Always"}],
                },
            },
        },
    }
