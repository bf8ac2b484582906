"""Let this machine into a cluster that somebody else runs, with nothing but a kubeconfig.

Two kinds of kubeconfig do. One whose user may make bootstrap tokens (an administrator's): the grants and a token are
made with it, the token is removed again, and nothing of the kubeconfig stays here. Any other is taken for a bootstrap
kubeconfig (a token that somebody made with ``kubeadm token create``, say) and is used as it is. What follows is the
same: the node makes its keys, asks for its certificates and waits until they are approved.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from wasmlab.errors import BootstrapError, PrerequisiteError
from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json, KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import bootstrap, csr, grants
from wasmlab.paths import atomic_write, private_dir

# A token lives so much longer than somebody may take to approve.
_SPARE = timedelta(minutes=10)
_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_ROOT_CA = "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"
_POLL_S = 0.2


async def join(
    config: NodeConfig, kubeconfig: Path, *, automatic: bool = True, approve: bool = False
) -> None:
    """Get this node's certificates; afterwards ``wasmlab node run`` with the same directory needs nothing more.

    Parameters
    ----------
    config : NodeConfig
        The node; its ``bootstrap_kubeconfig`` is not looked at.
    kubeconfig : Path
        The credentials for the cluster.
    automatic : bool
        See `grants.bindings`.
    approve : bool
        Approve this node's requests with those credentials, instead of waiting for somebody.

    Raises
    ------
    PrerequisiteError
        The kubeconfig cannot be used.
    BootstrapError
        The cluster refuses, or nobody approves in time.
    """
    private_dir(config.dir)
    private_dir(config.pki)
    own = config.dir / "bootstrap.kubeconfig"
    api = await KubeApi.from_kubeconfig(kubeconfig, temporary=config.pki)
    approving: asyncio.Task[None] | None = None
    token = ""
    try:
        if await may(api, "create", "secrets", namespace="kube-system"):
            token = await _prepare(api, config, kubeconfig, own, automatic=automatic)
            config = dataclasses.replace(config, bootstrap_kubeconfig=own)
        else:
            log.info(
                "these credentials may make no tokens: taken for a bootstrap token", kubeconfig=kubeconfig
            )
            config = dataclasses.replace(config, bootstrap_kubeconfig=kubeconfig)
        if approve:
            await _must(api, "update", "certificatesigningrequests", "approval", group="certificates.k8s.io")
            approving = asyncio.create_task(_approve(api, config))
        await _certificates(config)
    except ApiUnavailable as error:
        raise BootstrapError(
            f"the node {config.node_name} cannot join: {error.message}", remedy=error.remedy
        ) from error
    finally:
        if approving is not None:
            approving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await approving
        if token:  # it has served; what was left of its life is nobody's
            own.unlink(missing_ok=True)
            with contextlib.suppress(ApiError, ApiUnavailable):
                await api.delete(f"{_SECRETS}/{token}")
        await api.aclose()


async def _certificates(config: NodeConfig) -> None:
    kubeconfig = await bootstrap.client_kubeconfig(config)
    api = await KubeApi.from_kubeconfig(kubeconfig, temporary=config.pki)
    try:
        await bootstrap.serving_certificate(config, api)
    finally:
        await api.aclose()


async def may(api: KubeApi, verb: str, resource: str, subresource: str = "", **where: str) -> bool:
    """Whether the API server lets these credentials do that."""
    attributes = {"verb": verb, "resource": resource, "subresource": subresource, **where}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await api.create(_REVIEWS, review)
    except ApiError as error:
        if error.context["status"] == 401:
            raise BootstrapError(
                f"the cluster does not know these credentials: {error.message}",
                remedy="has the token expired? `kubeadm token create`, or give an administrator's kubeconfig",
            ) from error
        return False
    return bool(answer.get("status", {}).get("allowed"))


async def _must(api: KubeApi, verb: str, resource: str, subresource: str, *, group: str) -> None:
    if not await may(api, verb, resource, subresource, group=group):
        raise BootstrapError(
            f"these credentials may not {verb} {resource}/{subresource}",
            remedy="leave out --approve, and have somebody `kubectl certificate approve` what the node asks for",
        )


async def _prepare(
    api: KubeApi, config: NodeConfig, kubeconfig: Path, target: Path, *, automatic: bool
) -> str:
    """Make the grants and a token, and write the bootstrap kubeconfig to `target`; the name of the token's Secret."""
    for binding in grants.bindings(automatic=automatic):
        # Whoever may make tokens but no bindings (`wasmlab cluster grant`) finds them made.
        with contextlib.suppress(ApiError):
            await api.get(f"{_BINDINGS}/{binding['metadata']['name']}")
            continue
        try:
            await api.create(_BINDINGS, binding)
        except ApiError as error:
            if error.context["reason"] == "AlreadyExists":
                continue
            raise BootstrapError(
                f"cannot grant what a node needs to join: {error.message}",
                remedy="have an administrator apply it: `wasmlab node join --print-rbac | kubectl apply -f -`",
            ) from error
    identity, secret = grants.token()
    expires = datetime.now(UTC) + timedelta(seconds=2 * config.intervals.csr_timeout_s) + _SPARE
    made = grants.token_secret(identity, secret, expires, config.node_name)
    try:
        await api.create(_SECRETS, made)
    except ApiError as error:
        raise BootstrapError(
            f"cannot make a bootstrap token: {error.message}",
            remedy="make one yourself (`kubeadm token create`) and join with a kubeconfig that holds it",
        ) from error
    cluster: Json = {"server": api.server}
    authority = await _authority(api, kubeconfig)
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "bootstrap", "user": {"token": f"{identity}.{secret}"}}],
        "contexts": [{"name": "bootstrap", "context": {"cluster": "cluster", "user": "bootstrap"}}],
        "current-context": "bootstrap",
    }
    atomic_write(target, yaml.safe_dump(content, sort_keys=False))
    return str(made["metadata"]["name"])


async def _authority(api: KubeApi, kubeconfig: Path) -> bytes:
    """The cluster's certificate authority: from the kubeconfig, else as the cluster publishes it to its pods."""
    with contextlib.suppress(PrerequisiteError):
        return bootstrap.cluster_ca(kubeconfig)
    with contextlib.suppress(ApiError, KeyError):
        found: str = (await api.get(_ROOT_CA))["data"]["ca.crt"]
        return found.encode()
    raise PrerequisiteError(
        f"{kubeconfig} names no certificate authority, and the cluster publishes none in kube-root-ca.crt",
        remedy="put certificate-authority-data into the kubeconfig's cluster",
    )


async def _approve(api: KubeApi, config: NodeConfig) -> None:
    """Approve what this node asks for, and nothing else: a request counts as its own if it is for its key."""
    keys = (config.pki / "client-next.key", config.pki / "serving-next.key")
    while True:
        own = [path.read_bytes() for path in keys if path.exists()]
        try:
            for request in (await api.get(_CSRS)).get("items") or ():
                conditions = request.get("status", {}).get("conditions") or []
                if conditions or not any(csr.is_for_key(request, key) for key in own):
                    continue
                name = request["metadata"]["name"]
                approval = {
                    "type": "Approved",
                    "status": "True",
                    "reason": "WasmlabJoin",
                    "message": "approved by whoever joined this node with --approve",
                }
                request.setdefault("status", {})["conditions"] = [approval]
                await api.request("PUT", f"{_CSRS}/{name}/approval", body=request)
                log.info("approved", request=name)
        except (ApiError, ApiUnavailable) as error:
            log.warning("cannot approve yet; trying on", error=error.message)
        await asyncio.sleep(_POLL_S)
