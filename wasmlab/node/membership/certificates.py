"""Renew the node's certificates before they expire: the client's, and the endpoint's.

Each is renewed after 70 to 90 % of its life, with a new key, while the old one goes on. The client's is approved by the
controller manager (a node may renew its own name); the endpoint's waits for ``kubectl certificate approve``, as on any
node, for as long as it takes. A kubeconfig with somebody else's credentials (a token, an administrator's certificate,
a file that another program renews) is left alone.

References
----------
``k8s.io/client-go/util/certificate/certificate_manager.go``.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from wasmlab.errors import BootstrapError
from wasmlab.node import log
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, KubeApi
from wasmlab.node.config import NodeConfig
from wasmlab.node.membership import bootstrap, csr
from wasmlab.node.membership.issue import Wish, issue, serving_wish, stored_key
from wasmlab.node.promtext import Family, Sample
from wasmlab.paths import atomic_write

_LOOK_S = 60.0  # sleep no longer without a look at the clock: it may be set, the machine may sleep
_RETRY_S = (2.0, 60.0)
_REMIND_S = 600.0


class Renewal:
    """Keeps one certificate alive.

    Parameters
    ----------
    kind : {"client", "server"}
        For messages and metrics.
    certificate : bytes
        The present one, PEM.
    renew : callable
        Gets the next and puts it to use; returns its PEM.
    shares : pair of float
        Between which shares of its life it is renewed.
    fatal : bool
        Whether nothing can go on once it has expired.
    """

    def __init__(
        self,
        kind: str,
        certificate: bytes,
        renew: Callable[[], Awaitable[bytes]],
        shares: tuple[float, float],
        *,
        fatal: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.kind = kind
        self.errors = 0
        self.certificate = certificate
        self._renew = renew
        self._shares = shares
        self._fatal = fatal
        self._now = now

    @property
    def expires(self) -> datetime:
        """When the present one ends."""
        return csr.expires(self.certificate)

    async def run(self) -> None:
        """Renew it again and again, until cancelled.

        Raises
        ------
        BootstrapError
            It has expired and could not be renewed, and nothing works without it: the next start bootstraps again.
        """
        while True:
            due = csr.rotation_due(self.certificate, random.uniform(*self._shares))
            log.debug("certificate", kind=self.kind, renewed_at=datetime.fromtimestamp(due, UTC))
            while (left_s := due - self._now()) > 0:  # noqa: ASYNC110 (the clock has no event)
                await asyncio.sleep(min(left_s, _LOOK_S))
            self.certificate = await self._renewed()
            log.info("renewed certificate", kind=self.kind, expires=self.expires)

    async def _renewed(self) -> bytes:
        wait_s = _RETRY_S[0]
        while True:
            try:
                return await self._renew()
            except (BootstrapError, ApiError, ApiUnavailable, OSError, ssl.SSLError) as error:
                self.errors += 1
                message = getattr(error, "message", str(error))
                log.warning("cannot renew a certificate; trying on", kind=self.kind, error=message)
            if self._fatal and self._now() >= self.expires.timestamp():
                raise BootstrapError(
                    f"the node's {self.kind} certificate expired ({self.expires:%Y-%m-%d %H:%M} UTC) and could not be "
                    f"renewed: {message}",
                    remedy="start the node again with a valid --bootstrap-kubeconfig",
                )
            await asyncio.sleep(wait_s)
            wait_s = min(_RETRY_S[1], wait_s * 2)


class Certificates:
    """Both certificates of a node.

    Parameters
    ----------
    config : NodeConfig
        Names, directories, shares.
    api : KubeApi
        With the node's credentials; it is given the new ones.
    context : ssl.SSLContext
        Of the endpoint; new connections use what was loaded into it last.
    """

    def __init__(self, config: NodeConfig, api: KubeApi, context: ssl.SSLContext) -> None:
        self._config = config
        self._api = api
        self._context = context
        shares = config.intervals.rotate_at
        serving = bootstrap.serving_file(config).read_bytes()
        self.renewals = [Renewal("server", serving, self._renew_serving, shares)]
        own = bootstrap.own_certificate(config.kubeconfig)
        if own is not None and csr.is_of_node(own, config.node_name):
            self.renewals.append(Renewal("client", own, self._renew_client, shares, fatal=True))
        else:
            log.info("the kubeconfig's credentials are not this node's own to renew", path=config.kubeconfig)

    def families(self) -> list[Family]:
        """For ``/metrics``."""
        expiries = {one.kind: one.expires for one in self.renewals}
        errors = {one.kind: one.errors for one in self.renewals}
        return _families(expiries, errors, time.time())

    async def _renew_serving(self) -> bytes:
        config = self._config
        name = _fresh_name(f"{config.host}-tls", config.pki / "serving-next.key")
        wish = serving_wish(config, name, timeout_s=None, remind_s=_REMIND_S)
        certificate, key = await _issued(self._api, config, wish)
        path = bootstrap.serving_file(config)
        atomic_write(path, certificate + b"\n" + key)
        wish.key_file.unlink(missing_ok=True)
        self._context.load_cert_chain(path)
        return certificate

    async def _renew_client(self) -> bytes:
        config = self._config
        key_file = config.pki / "client-next.key"
        name = _fresh_name(f"{config.node_name}-client", key_file)
        wish = Wish("client", name, csr.CLIENT_SIGNER, key_file, remind_s=_REMIND_S)
        certificate, key = await _issued(self._api, config, wish)
        bootstrap.replace_certificate(config.kubeconfig, certificate, key)
        key_file.unlink(missing_ok=True)
        await self._api.use_certificate(certificate, key, temporary=config.pki)
        return certificate


def _families(expiries: Mapping[str, datetime], errors: Mapping[str, int], now: float) -> list[Family]:
    """How long the node's certificates have to live, and what went wrong in renewing them.

    Parameters
    ----------
    expiries, errors : mapping
        By ``client`` and ``server``.
    """
    result = []
    for kind, expiry in sorted(expiries.items()):
        result.append(
            Family(
                f"kubelet_certificate_manager_{kind}_ttl_seconds",
                "gauge",
                f"Seconds until the node's {kind} certificate expires",
                [Sample(round(expiry.timestamp() - now, 3))],
            )
        )
    names = {"client": "kubelet_certificate_manager_client_expiration_renew_errors",
             "server": "kubelet_server_expiration_renew_errors"}  # fmt: skip
    for kind, count in sorted(errors.items()):
        result.append(
            Family(names[kind], "counter", f"Failures to renew the {kind} certificate", [Sample(count)])
        )
    return result


def _fresh_name(name: str, key_file: Path) -> str:
    """The first request has the plain name; those that follow have their key's fingerprint."""
    return f"{name}-{csr.fingerprint(stored_key(key_file))}"


async def _issued(api: KubeApi, config: NodeConfig, wish: Wish) -> tuple[bytes, bytes]:
    try:
        return await issue(api, config, wish)
    except BootstrapError:
        # Refused or deleted: this key's request will never be answered.
        wish.key_file.unlink(missing_ok=True)
        raise
