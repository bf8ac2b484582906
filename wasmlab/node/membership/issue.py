"""Ask the API server for a certificate, and wait until somebody has approved it.

Guarantees: the key is made here, written 0600 before anything is asked for, and never leaves this machine; a restart at
any point goes on with the same key and the same request.

References
----------
Kubernetes documentation, "Certificates and Certificate Signing Requests".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wasmlab.errors import BootstrapError
from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import csr
from wasmlab.paths import atomic_write

_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
# The controller approves a client request within a second, as a rule: wait a little before asking for a hand.
_CLIENT_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Wish:
    """A certificate to ask for.

    Parameters
    ----------
    what : {"client", "serving"}
        For messages.
    name : str
        Of the request object. One that is taken by another key is given the key's fingerprint as a suffix.
    signer : str
        Who is to sign.
    key_file : Path
        Where the key is until the certificate is there.
    addresses, names : sequence of str
        Subject alternative names.
    timeout_s : float, optional
        How long to wait for the approval; for as long as it takes if None.
    remind_s : float
        How often the log says what it waits for.
    """

    what: str
    name: str
    signer: str
    key_file: Path
    addresses: Sequence[str] = ()
    names: Sequence[str] = ()
    timeout_s: float | None = None
    remind_s: float = 60.0


def serving_wish(
    config: NodeConfig, name: str, *, timeout_s: float | None = None, remind_s: float = 60.0
) -> Wish:
    """The endpoint's certificate."""
    return Wish(
        "serving",
        name,
        csr.SERVING_SIGNER,
        config.pki / "serving-next.key",
        addresses=[config.address],
        names=[config.host],
        timeout_s=timeout_s,
        remind_s=remind_s,
    )


async def issue(api: KubeApi, config: NodeConfig, wish: Wish) -> tuple[bytes, bytes]:
    """Return a certificate and its key, both PEM. The key file stays until the caller has them in their place.

    Raises
    ------
    BootstrapError
        The request was denied, deleted, or not approved in time.
    """
    for _ in range(2):
        key = stored_key(wish.key_file)
        request = csr.request(key, config.node_name, addresses=wish.addresses, names=wish.names)
        name = await _submit(api, wish.name, key, request, wish.signer, config.certificate_s)
        certificate = await _decided(api, config, wish, name)
        problem = csr.usable(certificate, key, addresses=wish.addresses)
        if problem is None:
            return certificate, key
        # The request of an earlier life, for another address say, or one that was answered long ago.
        log.info("the certificate of an earlier request cannot be used", request=name, because=problem)
        wish.key_file.unlink(missing_ok=True)
    raise BootstrapError(
        f"the signer's {wish.what} certificate cannot be used: {problem}",
        remedy="check the cluster's signing duration and this machine's clock",
        node=config.node_name,
    )


async def _submit(
    api: KubeApi, name: str, key: bytes, request: bytes, signer: str, life_s: int | None
) -> str:
    """Create the CSR object, or find the one that an earlier start created. Returns its name."""
    for candidate in dict.fromkeys((name, f"{name}-{csr.fingerprint(key)}")):
        try:
            await api.create(_CSRS, csr.csr_object(candidate, request, signer, life_s))
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


async def _decided(api: KubeApi, config: NodeConfig, wish: Wish, name: str) -> bytes:
    clock = asyncio.get_running_loop().time
    began = clock()
    remind_at = began + (0.0 if wish.what == "serving" else _CLIENT_PATIENCE_S)
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
                f"the {wish.what} certificate request {name} of node {config.node_name} was refused: "
                f"{decision.refused}",
                remedy=f"find out why, then `kubectl delete csr {name}` and start the node again",
                node=config.node_name,
            )
        if decision.certificate is not None:
            log.info("received certificate", kind=wish.what, request=name)
            return decision.certificate
        now = clock()
        if wish.timeout_s is not None and now > began + wish.timeout_s:
            raise BootstrapError(
                f"nobody approved the {wish.what} certificate request {name} within {wish.timeout_s:g} s",
                remedy=f"approve it ({command}) and start the node again",
                node=config.node_name,
            )
        if now >= remind_at:
            log.info(f"waiting for: {command}", request=name, kind=wish.what)
            remind_at = now + wish.remind_s
        # A poll and not a watch: a bootstrap token may get its request, and hours may pass.
        await asyncio.sleep(0.25 if now - began < 120 else 2.0)


def stored_key(path: Path) -> bytes:
    """The key in a file; a new one, written there, if there is none."""
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
