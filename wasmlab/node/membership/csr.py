"""Keys, certificate requests and the kubeconfig they lead to: pure (bytes and dicts in, bytes and dicts out).

References
----------
``k8s.io/kubernetes/pkg/apis/certificates/helpers.go``: what the two kubelet signers accept: organization
``system:nodes``, common name ``system:node:<name>``, and subject alternative names for serving only.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Json = dict[str, Any]

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_USAGES = {
    # ECDSA keys sign only; the signers refuse "key encipherment" for them no more, and do not need it.
    CLIENT_SIGNER: ["digital signature", "client auth"],
    SERVING_SIGNER: ["digital signature", "server auth"],
}


def new_key() -> bytes:
    """A fresh P-256 private key, PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def _public_der(key_pem: bytes) -> bytes:
    return (
        _key(key_pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def fingerprint(key_pem: bytes) -> str:
    """Eight hex digits that stand for a key in a request's name."""
    return hashlib.sha256(_public_der(key_pem)).hexdigest()[:8]


def request(key_pem: bytes, node: str, *, addresses: Sequence[str] = (), names: Sequence[str] = ()) -> bytes:
    """A PEM certificate request for ``system:node:<node>``.

    Parameters
    ----------
    key_pem : bytes
        The private key that signs it.
    node : str
        Node name.
    addresses, names : sequence of str
        Subject alternative names; both empty for a client certificate.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(names)]
    alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in dict.fromkeys(addresses)]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def csr_object(name: str, request_pem: bytes, signer: str, life_s: int | None = None) -> Json:
    """The v1.CertificateSigningRequest that carries a request.

    Parameters
    ----------
    life_s : int, optional
        How long the certificate is wished to live; the signer decides. The API wants 600 or more.
    """
    spec: Json = {
        "request": base64.b64encode(request_pem).decode(),
        "signerName": signer,
        "usages": _USAGES[signer],
    }
    if life_s is not None:
        spec["expirationSeconds"] = life_s
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": spec,
    }


def is_for_key(csr: Json, key_pem: bytes) -> bool:
    """Whether an existing CSR object asks for a certificate of this very key."""
    try:
        pem = base64.b64decode(csr["spec"]["request"])
        public = x509.load_pem_x509_csr(pem).public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    except (KeyError, ValueError):
        return False
    return der == _public_der(key_pem)


@dataclass(frozen=True)
class Decision:
    """What became of a CSR: issued (certificate), refused (why), or neither yet."""

    certificate: bytes | None = None
    refused: str | None = None
    approved: bool = False


def decision(csr: Json) -> Decision:
    """Read a CSR object's status."""
    status = csr.get("status") or {}
    approved = False
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed"):
            why = condition.get("message") or condition.get("reason") or "no reason given"
            return Decision(refused=f"{condition['type']}: {why}")
        approved |= condition.get("type") == "Approved"
    if status.get("certificate"):
        return Decision(certificate=base64.b64decode(status["certificate"]), approved=True)
    return Decision(approved=approved)


def usable(
    certificate_pem: bytes, key_pem: bytes, *, now: datetime | None = None, addresses: Sequence[str] = ()
) -> str | None:
    """Why a stored certificate cannot be used with a key, or None if it can.

    Parameters
    ----------
    addresses : sequence of str
        IP addresses it must be valid for (the node's, for a serving certificate).
    """
    now = now or datetime.now(UTC)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        public = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if public != _public_der(key_pem):
            return "it does not belong to the stored key"
    except ValueError as error:
        return f"it cannot be read ({error})"
    if certificate.not_valid_after_utc < now + timedelta(minutes=5):
        return f"it expired or is about to ({certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC)"
    if addresses:
        try:
            have = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return "it names no address"
        known = {str(a) for a in have.get_values_for_type(x509.IPAddress)}
        for address in addresses:
            if str(ipaddress.ip_address(address)) not in known:
                return f"it is not valid for the address {address}"
    return None


def expires(certificate_pem: bytes) -> datetime:
    """When a certificate ends (UTC)."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def rotation_due(certificate_pem: bytes, share: float) -> float:
    """When a certificate is to be renewed (unix seconds): after a share of its life.

    References
    ----------
    ``k8s.io/client-go/util/certificate/certificate_manager.go``: a random share of 70 to 90 %, so that the nodes of a
    cluster that was made in one go do not all ask at once.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    begin = certificate.not_valid_before_utc.timestamp()
    return begin + (certificate.not_valid_after_utc.timestamp() - begin) * share


def is_of_node(certificate_pem: bytes, node: str) -> bool:
    """Whether a client certificate is one of this node's own, which it may renew by itself."""
    try:
        subject = x509.load_pem_x509_certificate(certificate_pem).subject
    except ValueError:
        return False
    names = [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return names == [f"system:node:{node}"] and "system:nodes" in groups


def kubeconfig(server: str, ca_pem: bytes, certificate_pem: bytes, key_pem: bytes, node: str) -> Json:
    """The kubeconfig a node goes on with; it holds the key, so it is written 0600."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "default",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(ca_pem).decode(),
                },
            }
        ],
        "users": [
            {
                "name": f"system:node:{node}",
                "user": {
                    "client-certificate-data": base64.b64encode(certificate_pem).decode(),
                    "client-key-data": base64.b64encode(key_pem).decode(),
                },
            }
        ],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": f"system:node:{node}"}}],
        "current-context": "default",
    }
