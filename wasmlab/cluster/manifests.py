"""Manifests as plain dictionaries. Pure: nothing here talks to a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ARCH = "wasm32-wasi"
ARCH_LABEL = "kubernetes.io/arch"
ENGINE_ANNOTATION = "wasmlab.dev/engine"
RESTART_ANNOTATION = "wasmlab.dev/restart-semantics"


def tolerations() -> list[dict[str, str]]:
    """Return the two tolerations without which a pod is not let onto a WASM node."""
    return [
        {"key": ARCH_LABEL, "operator": "Equal", "value": ARCH, "effect": effect}
        for effect in ("NoExecute", "NoSchedule")
    ]


def wasm_pod(
    name: str,
    image: str,
    *,
    engine: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    restart_policy: str = "Never",
    node: str | None = None,
    namespace: str | None = None,
    annotations: Mapping[str, str] | None = None,
    image_pull_policy: str | None = None,
) -> dict[str, Any]:
    """Return a Pod that runs one module on a WASM node.

    Parameters
    ----------
    name : str
        Of the Pod and of its container.
    image : str
        Reference of the artifact in a registry.
    engine : str, optional
        ``"wasmtime"`` or ``"wasmer"``; the node's default if None.
    args : sequence of str
        Arguments of the module, without argv[0].
    env : mapping, optional
        Environment variables.
    restart_policy : str
        ``"Never"``, ``"OnFailure"`` or ``"Always"``.
    node : str, optional
        A node by name, else any WASM node. The scheduler still decides (and checks taints and capacity).
    namespace : str, optional
        Of the Pod; where it is applied if None.
    annotations : mapping, optional
        More annotations.
    image_pull_policy : str, optional
        ``"Always"``, ``"IfNotPresent"`` or ``"Never"``; Kubernetes' default if None.

    Returns
    -------
    dict
        The manifest.
    """
    notes = dict(annotations or {})
    if engine is not None:
        notes[ENGINE_ANNOTATION] = engine
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if notes:
        metadata["annotations"] = notes
    container: dict[str, Any] = {"name": name, "image": image}
    if args:
        container["args"] = list(args)
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    if image_pull_policy:
        container["imagePullPolicy"] = image_pull_policy
    selector = {ARCH_LABEL: ARCH}
    if node is not None:
        selector["kubernetes.io/hostname"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": restart_policy,
            "nodeSelector": selector,
            "tolerations": tolerations(),
            # A module has no use for a token of the API server, and mounting one costs time.
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


def article_pod(name: str = "hello-wasm", image: str = "hello-wasm:v1") -> dict[str, Any]:
    """Return the Pod of the article, as it was applied there: restartPolicy Always and the two tolerations.

    Under Kubernetes' own rules such a pod is restarted for ever. To see it end as it did in the article, either
    start the node with Krustlet's semantics, or add the annotation ``wasmlab.dev/restart-semantics: krustlet``.

    Parameters
    ----------
    image : str
        Reference of the module in a registry.
    name : str
        Of the Pod.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": name, "image": image}],
            "restartPolicy": "Always",
            "tolerations": tolerations(),
        },
    }


def bootstrap_token(token_id: str, secret: str, expires: str, group: str = "") -> dict[str, Any]:
    """Return the Secret that is a bootstrap token.

    Parameters
    ----------
    token_id, secret : str
        Its two parts.
    expires : str
        When it ends, as RFC 3339 writes times.
    group : str
        One more group of whoever uses it.

    References
    ----------
    https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": token_id,
            "token-secret": secret,
            "description": "Lets a WASM node join",
            "expiration": expires,
            "usage-bootstrap-authentication": "true",
        }
        | ({"auth-extra-groups": group} if group else {}),
    }


def kubeconfig(server: str, ca_base64: str, user: Mapping[str, str], namespace: str = "") -> dict[str, Any]:
    """Return a kubeconfig with one cluster and one user.

    Parameters
    ----------
    server : str
        URL of the API server.
    ca_base64 : str
        Its certificate authority, PEM in base64; empty if the system's authorities vouch for it.
    user : mapping
        The credentials, e.g. ``{"token": ...}``.
    namespace : str
        Where its commands work; empty is ``default``.
    """
    cluster = {"server": server}
    context = {"cluster": "wasmlab", "user": "wasmlab"}
    if namespace:
        context["namespace"] = namespace
    if ca_base64:
        cluster["certificate-authority-data"] = ca_base64
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wasmlab", "cluster": cluster}],
        "users": [{"name": "wasmlab", "user": dict(user)}],
        "contexts": [{"name": "wasmlab", "context": context}],
        "current-context": "wasmlab",
    }
