"""What installs the shim on every node of a real cluster, as plain dictionaries. Pure."""

from __future__ import annotations

from typing import Any, Literal

from wasmlab.containerd.runtimeclass import runtime_classes

NAMESPACE = "wasmlab-system"
NAME = "wasmlab-shim"
PYTHON = "/opt/wasmlab-shim/python/bin/python"


def installer(
    image: str,
    *,
    action: Literal["install", "uninstall"] = "install",
    host_path: str = "/",
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Return namespace, account, grants, DaemonSet and, to install, the RuntimeClasses.

    Parameters
    ----------
    image : str
        Reference of the image that `wasmlab.containerd.installimage` builds.
    action : {"install", "uninstall"}
        Apply the same manifests with ``uninstall`` to undo what ``install`` did on the nodes; then delete them.
    host_path : str
        Where on the node to install; ``/`` but for tests.
    arguments : tuple of str
        More arguments of the installer.
    environment : dict, optional
        More variables, e.g. ``KUBERNETES_SERVICE_HOST``.
    """
    labels = {"app.kubernetes.io/name": NAME}
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    environment = environment or {}
    container = {
        "name": action,
        "image": image,
        "command": [PYTHON, "-m", "wasmlab.containerd.installer", action, "--host", "/host", *arguments],
        "env": [
            {"name": "PYTHONPATH", "value": "/opt/wasmlab-shim/site"},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            *({"name": name, "value": value} for name, value in environment.items()),
        ],
        # It writes to the node's root file system and restarts the node's containerd: nothing less will do.
        "securityContext": {"privileged": True},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    manifests: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [account],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": NAME,
                        # systemctl on the node talks to the node's processes, and the label must be set even where
                        # the pod network does not work yet.
                        "hostPID": True,
                        "hostNetwork": True,
                        "nodeSelector": {"kubernetes.io/os": "linux"},
                        "tolerations": [
                            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
                        ],
                        "containers": [container],
                        "volumes": [{"name": "host", "hostPath": {"path": host_path, "type": "Directory"}}],
                    },
                },
            },
        },
    ]
    return [*manifests, *runtime_classes()] if action == "install" else manifests
