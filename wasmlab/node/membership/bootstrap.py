"""Join a cluster: from a bootstrap token to a kubeconfig and a serving certificate.

Certificates that are still good are used again. `wasmlab.node.membership.certificates` renews them later.

References
----------
Kubernetes documentation, "TLS bootstrapping"; the name of the serving request (``<hostname>-tls``) is Krustlet's.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from wasmlab.errors import BootstrapError, PrerequisiteError
from wasmlab.node import log
from wasmlab.node.api.kubeapi import Json, KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import csr
from wasmlab.node.membership.issue import Wish, issue, serving_wish
from wasmlab.paths import atomic_write

# What reading one that is none can raise.
_NO_KUBECONFIG = (yaml.YAMLError, KeyError, TypeError, IndexError, AttributeError, StopIteration)


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
    wish = Wish(
        "client",
        f"{config.node_name}-client",
        csr.CLIENT_SIGNER,
        config.pki / "client-next.key",
        timeout_s=config.intervals.csr_timeout_s,
    )
    api = await KubeApi.from_kubeconfig(config.bootstrap_kubeconfig, temporary=config.pki)
    try:
        certificate, key = await issue(api, config, wish)
    finally:
        await api.aclose()
    server, ca = _cluster_of(config.bootstrap_kubeconfig)
    content = csr.kubeconfig(server, ca, certificate, key, config.node_name)
    config.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(config.kubeconfig, yaml.safe_dump(content, sort_keys=False))
    wish.key_file.unlink(missing_ok=True)
    log.info("wrote kubeconfig", path=config.kubeconfig)
    return config.kubeconfig


def serving_file(config: NodeConfig) -> Path:
    """The endpoint's certificate and key, in one file: two could not be replaced at once."""
    return config.pki / "serving.pem"


async def serving_certificate(config: NodeConfig, api: KubeApi) -> Path:
    """Return the file with the endpoint's certificate and key, asking for them (and waiting) if need be.

    Raises
    ------
    BootstrapError
        The request was denied or not approved in time.
    """
    path = serving_file(config)
    if path.exists():
        pem = path.read_bytes()
        problem = csr.usable(pem, pem, addresses=[config.address])
        if problem is None:
            return path
        log.info("asking for a new serving certificate", because=problem)
    timeout_s = config.intervals.csr_timeout_s
    wish = serving_wish(config, f"{config.host}-tls", timeout_s=timeout_s, remind_s=60.0)
    certificate, key = await issue(api, config, wish)
    atomic_write(path, certificate + b"\n" + key)
    wish.key_file.unlink(missing_ok=True)
    return path


def cluster_ca(path: Path) -> bytes:
    """The certificate authority named by a kubeconfig, PEM."""
    return _cluster_of(path)[1]


def client_ca(config: NodeConfig) -> bytes:
    """The authority of the client certificates that the endpoint takes, PEM.

    Raises
    ------
    PrerequisiteError
        It cannot be read.
    """
    if config.client_ca is None:
        return cluster_ca(config.kubeconfig)
    try:
        return config.client_ca.read_bytes()
    except OSError as error:
        raise PrerequisiteError(
            f"the authority for client certificates {config.client_ca} cannot be read: {error.strerror}",
            remedy="--client-ca-file takes a file of PEM certificates",
        ) from error


def own_certificate(path: Path) -> bytes | None:
    """The client certificate that is written out in a kubeconfig; None if it has none, or elsewhere."""
    try:
        data = _user_of(yaml.safe_load(path.read_text())).get("client-certificate-data")
        return base64.b64decode(data) if data else None
    except (OSError, ValueError, *_NO_KUBECONFIG):
        return None


def replace_certificate(path: Path, certificate: bytes, key: bytes) -> None:
    """Put another client certificate and key into a kubeconfig, all else unchanged.

    Raises
    ------
    BootstrapError
        It is no kubeconfig any more.
    """
    try:
        content = yaml.safe_load(path.read_text())
        user = _user_of(content)
    except _NO_KUBECONFIG as error:
        raise BootstrapError(
            f"the new certificate cannot be put into {path}: it is no kubeconfig any more ({error!r})",
            remedy="restore the file; the agent tries on",
        ) from error
    user["client-certificate-data"] = base64.b64encode(certificate).decode()
    user["client-key-data"] = base64.b64encode(key).decode()
    atomic_write(path, yaml.safe_dump(content, sort_keys=False))


def _user_of(content: Json) -> Json:
    """The user of the current context; of a file without one, the first."""
    wanted = next(
        (
            c["context"]["user"]
            for c in content.get("contexts") or ()
            if c["name"] == content.get("current-context")
        ),
        content["users"][0]["name"],
    )
    user: Json = next(u["user"] for u in content["users"] if u["name"] == wanted)
    return user


def _stored_problem(path: Path) -> str | None:
    """Why a stored kubeconfig needs a bootstrap, or None. Only what certainly will not work counts."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return "it does not exist"
    try:
        user = _user_of(yaml.safe_load(text))
        data, key = user.get("client-certificate-data"), user.get("client-key-data")
    except _NO_KUBECONFIG:
        return "it is not a kubeconfig"
    if data and key:
        return csr.usable(base64.b64decode(data), base64.b64decode(key))
    return None


def _cluster_of(path: Path) -> tuple[str, bytes]:
    """Server and certificate authority of a kubeconfig's current context."""
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
