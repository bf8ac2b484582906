"""Join a cluster: from a bootstrap token to a kubeconfig and a serving certificate.

Guarantees: keys are made here, written 0600 before anything is asked for, and never leave this machine; a restart at
any point goes on with the same key and the same request; certificates that are still good are used again.

References
----------
Kubernetes documentation, "TLS bootstrapping"; the name of the serving request (``<hostname>-tls``) is Krustlet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import yaml

from wasmlab.errors import BootstrapError, PrerequisiteError
from wasmlab.node import csr, log
from wasmlab.node.config import NodeConfig
from wasmlab.node.kubeapi import ApiError, ApiUnavailable, Json, KubeApi
from wasmlab.paths import atomic_write

_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_REMIND_S = 60.0


async def client_kubeconfig(config: NodeConfig) -> Path:
    """Return the node's kubeconfig, made from the bootstrap kubeconfig if it is missing or its certificate has expired.

    Raises
    ------
    PrerequisiteError
        There is neither a kubeconfig nor a bootstrap kubeconfig.
    BootstrapError
        The request was denied or not decided in time.
    """
    problem = _stored_problem(config.kubeconfig)
    if problem is None:
        return config.kubeconfig
    if config.bootstrap_kubeconfig is None:
        raise PrerequisiteError(
            f"the kubeconfig {config.kubeconfig} cannot be used: {problem}",
            remedy="give a bootstrap kubeconfig (--bootstrap-kubeconfig FILE), or a working --kubeconfig",
        )
    log.info("bootstrapping", node=config.node_name, because=problem)
    if config.kubeconfig.exists():
        (config.pki / "client.key").unlink(missing_ok=True)  # as for the serving certificate below
    key = _stored_key(config.pki / "client.key")
    request = csr.request(key, config.node_name)
    api = await KubeApi.from_kubeconfig(config.bootstrap_kubeconfig, temporary=config.pki)
    try:
        certificate = await _issue(
            api, f"{config.node_name}-client", key, request, csr.CLIENT_SIGNER, config, what="client"
        )
    finally:
        await api.aclose()
    server, ca = _cluster_of(config.bootstrap_kubeconfig)
    content = csr.kubeconfig(server, ca, certificate, key, config.node_name)
    config.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(config.kubeconfig, yaml.safe_dump(content, sort_keys=False))
    log.info("wrote kubeconfig", path=config.kubeconfig)
    return config.kubeconfig


async def serving_certificate(config: NodeConfig, api: KubeApi) -> tuple[Path, Path]:
    """Return paths of the endpoint's certificate and key, asking for them (and waiting for approval) if need be.

    Raises
    ------
    BootstrapError
        The request was denied or not approved in time.
    """
    certificate_file, key_file = config.pki / "serving.crt", config.pki / "serving.key"
    key = _stored_key(key_file)
    if certificate_file.exists():
        problem = csr.usable(certificate_file.read_bytes(), key, addresses=[config.address])
        if problem is None:
            return certificate_file, key_file
        log.info("asking for a new serving certificate", because=problem)
        # With a new key: the old key's request may still exist, approved, and would hand out the same certificate.
        key_file.unlink()
        certificate_file.unlink()
        key = _stored_key(key_file)
    request = csr.request(key, config.node_name, addresses=[config.address], names=[config.host])
    certificate = await _issue(
        api, f"{config.host}-tls", key, request, csr.SERVING_SIGNER, config, what="serving"
    )
    atomic_write(certificate_file, certificate)
    return certificate_file, key_file


def cluster_ca(path: Path) -> bytes:
    """The certificate authority named by a kubeconfig, PEM."""
    return _cluster_of(path)[1]


async def _issue(
    api: KubeApi, name: str, key: bytes, request: bytes, signer: str, config: NodeConfig, *, what: str
) -> bytes:
    name = await _submit(api, name, key, request, signer)
    began = asyncio.get_running_loop().time()
    deadline = began + config.intervals.csr_timeout_s
    remind_at = began if what == "serving" else began + 3.0
    command = f"kubectl certificate approve {name}"
    while True:
        try:
            found = await api.get(f"{_CSRS}/{name}")
        except ApiError as error:
            if error.context["status"] != 404:
                raise
            raise BootstrapError(
                f"the certificate request {name} was deleted before it was decided",
                remedy="start the node again; it asks again",
                node=config.node_name,
            ) from error
        except ApiUnavailable as error:
            log.warning("waiting for the API server", error=error.message)
            found = {}
        decision = csr.decision(found)
        if decision.refused is not None:
            raise BootstrapError(
                f"the {what} certificate request {name} of node {config.node_name} was refused: {decision.refused}",
                remedy=f"find out why, then `kubectl delete csr {name}` and start the node again",
                node=config.node_name,
            )
        if decision.certificate is not None:
            log.info("received certificate", kind=what, request=name)
            return decision.certificate
        now = asyncio.get_running_loop().time()
        if now > deadline:
            raise BootstrapError(
                f"nobody approved the {what} certificate request {name} within {config.intervals.csr_timeout_s:g} s",
                remedy=f"approve it ({command}) and start the node again",
                node=config.node_name,
            )
        # The controller approves a client request within a second, as a rule: wait a little before asking for a hand.
        if now >= remind_at:
            log.info(f"waiting for: {command}", request=name, kind=what)
            remind_at = now + _REMIND_S
        # A poll and not a watch: a bootstrap token may get its request, and hours may pass.
        await asyncio.sleep(0.25 if now - began < 120 else 2.0)


async def _submit(api: KubeApi, name: str, key: bytes, request: bytes, signer: str) -> str:
    """Create the CSR object, or find the one that an earlier start created. Returns its name."""
    for candidate in (name, f"{name}-{csr.fingerprint(key)}"):
        try:
            await api.create(_CSRS, csr.csr_object(candidate, request, signer))
            return candidate
        except ApiError as error:
            if error.context["reason"] != "AlreadyExists":
                raise BootstrapError(
                    f"cannot ask for a certificate: {error.message}",
                    remedy="check the bootstrap token (expired?) and its rights (system:node-bootstrapper)",
                ) from error
        existing = await api.get(f"{_CSRS}/{candidate}")
        if csr.is_for_key(existing, key) and csr.decision(existing).refused is None:
            return candidate
        # Somebody else's (an earlier life of this node): a node may not delete requests, so ours takes another name.
        log.info("a request of this name exists for another key", request=candidate)
    raise BootstrapError(
        f"the certificate request {candidate} exists and was refused",
        remedy=f"kubectl delete csr {candidate}, then start the node again",
    )


def _stored_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
        csr.fingerprint(key)
        return key
    except FileNotFoundError:
        pass
    except ValueError as error:
        log.warning("the stored key cannot be read; making a new one", path=path, error=error)
    key = csr.new_key()
    atomic_write(path, key)
    return key


def _stored_problem(path: Path) -> str | None:
    """Why a stored kubeconfig needs a bootstrap, or None. Only what certainly will not work counts."""
    import base64

    try:
        text = path.read_text()
    except FileNotFoundError:
        return "it does not exist"
    try:
        users = yaml.safe_load(text)["users"]
        data = users[0]["user"].get("client-certificate-data")
        key = users[0]["user"].get("client-key-data")
    except (yaml.YAMLError, KeyError, TypeError, IndexError, AttributeError):
        return "it is not a kubeconfig"
    if data and key:
        return csr.usable(base64.b64decode(data), base64.b64decode(key))
    return None


def _cluster_of(path: Path) -> tuple[str, bytes]:
    """Server and certificate authority of a kubeconfig's current context."""
    import base64

    try:
        content: Json = yaml.safe_load(path.read_text())
        contexts = {c["name"]: c["context"] for c in content["contexts"]}
        clusters = {c["name"]: c["cluster"] for c in content["clusters"]}
        cluster = clusters[contexts[content["current-context"]]["cluster"]]
        if "certificate-authority-data" in cluster:
            return cluster["server"], base64.b64decode(cluster["certificate-authority-data"])
        return cluster["server"], (path.parent / cluster["certificate-authority"]).read_bytes()
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PrerequisiteError(
            f"{path} names no cluster with a certificate authority: {error!r}",
            remedy="a bootstrap kubeconfig needs server, certificate-authority(-data) and a token",
        ) from error


def names(config: NodeConfig) -> Sequence[str]:
    """Names of the two requests, for messages and for who approves them."""
    return f"{config.node_name}-client", f"{config.host}-tls"
