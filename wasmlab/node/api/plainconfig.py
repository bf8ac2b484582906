"""Kubeconfigs as nodes have them: certificates or a token, and nothing to be run or renewed.

The client library knows every form, but to read one it imports all that it is: 20 MB, a quarter of an agent. What is
not exactly of the forms here is left to it.

References
----------
``k8s.io/client-go/tools/clientcmd/api/v1`` (Config).
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_CLUSTER = frozenset(
    {"server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"}
)
_USER = frozenset({"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token"})


@dataclass(frozen=True)
class PlainConfig:
    """A server, and what to show it.

    Attributes
    ----------
    server : str
        Its address.
    authority, certificate, key : bytes or None
        PEM.
    token : str or None
        A bearer token.
    verify : bool
        Whether the server's certificate is looked at.
    """

    server: str
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None
    verify: bool = True

    def context(self, temporary: Path) -> ssl.SSLContext | None:
        """Return how to talk TLS to it; None if it does not.

        Parameters
        ----------
        temporary : Path
            A private directory: ssl reads keys from files only.

        Raises
        ------
        OSError, ValueError
            The certificates cannot be used (`ssl.SSLError` is an OSError).
        """
        if not self.server.startswith("https"):
            return None
        authority = self.authority.decode() if self.authority is not None else None
        context = ssl.create_default_context(cadata=authority)
        if self.certificate is not None:
            fd, name = tempfile.mkstemp(dir=temporary, prefix="tmp")
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(self.certificate + b"\n" + (self.key or b""))
                context.load_cert_chain(name)
            finally:
                os.unlink(name)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return relaxed(context)


def relaxed(context: ssl.SSLContext) -> ssl.SSLContext:
    """Take what a cluster's private authority often lacks for optional: Python 3.13's strict mode asks for it."""
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def read(path: Path) -> PlainConfig | None:
    """Return what a kubeconfig's current context says; None if it is of another form, damaged or not there."""
    try:
        content = yaml.safe_load(path.read_text())
        context = _named(content["contexts"], content["current-context"])["context"]
        cluster = _named(content["clusters"], context["cluster"])["cluster"]
        user = _named(content["users"], context["user"])["user"]
        if not _CLUSTER.issuperset(cluster) or not _USER.issuperset(user):
            return None
        return PlainConfig(
            str(cluster["server"]),
            _pem(cluster, "certificate-authority", path.parent),
            _pem(user, "client-certificate", path.parent),
            _pem(user, "client-key", path.parent),
            str(user["token"]) if user.get("token") else None,
            not cluster.get("insecure-skip-tls-verify"),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration, binascii.Error):
        return None


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _pem(entry: dict[str, Any], key: str, base: Path) -> bytes | None:
    if entry.get(f"{key}-data"):
        return base64.b64decode(entry[f"{key}-data"])
    return (base / entry[key]).read_bytes() if entry.get(key) else None
