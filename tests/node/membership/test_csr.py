from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from wasmlab.node.membership import csr


def issue(key_pem: bytes, *, days: float = 1, addresses: tuple[str, ...] = ()) -> bytes:
    """What a signer would do; self-signed is enough here."""
    import ipaddress

    key = serialization.load_pem_private_key(key_pem, None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
    )
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_the_request_says_what_the_signers_want() -> None:
    key = csr.new_key()
    client = x509.load_pem_x509_csr(csr.request(key, "n1"))
    assert client.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    assert list(client.extensions) == []  # a client request with alternative names is refused
    serving = x509.load_pem_x509_csr(
        csr.request(key, "n1", addresses=["192.0.2.1", "192.0.2.1"], names=["h"])
    )
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["h"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_objects_are_recognised_by_their_key() -> None:
    mine, other = csr.new_key(), csr.new_key()
    made = csr.csr_object("n1-tls", csr.request(mine, "n1", names=["h"]), csr.SERVING_SIGNER)
    assert made["spec"]["usages"] == ["digital signature", "server auth"]
    assert csr.is_for_key(made, mine)
    assert not csr.is_for_key(made, other)
    assert not csr.is_for_key({"spec": {"request": "!"}}, mine)


def test_decisions() -> None:
    assert csr.decision({}) == csr.Decision()
    assert csr.decision({"status": {"conditions": [{"type": "Approved"}]}}) == csr.Decision(approved=True)
    denied = {"status": {"conditions": [{"type": "Denied", "reason": "No", "message": "not you"}]}}
    assert csr.decision(denied).refused == "Denied: not you"
    failed = {
        "status": {
            "conditions": [{"type": "Approved"}, {"type": "Failed", "reason": "SignerValidationFailure"}]
        }
    }
    assert csr.decision(failed).refused == "Failed: SignerValidationFailure"
    issued = {
        "status": {"conditions": [{"type": "Approved"}], "certificate": base64.b64encode(b"pem").decode()}
    }
    assert csr.decision(issued).certificate == b"pem"


def test_which_certificates_can_be_used_again() -> None:
    key = csr.new_key()
    assert csr.usable(issue(key), key) is None
    assert "expired" in (csr.usable(issue(key, days=-1), key) or "")
    assert "key" in (csr.usable(issue(csr.new_key()), key) or "")
    assert "cannot be read" in (csr.usable(b"nonsense", key) or "")
    with_address = issue(key, addresses=("192.0.2.1",))
    assert csr.usable(with_address, key, addresses=["192.0.2.1"]) is None
    assert "192.0.2.9" in (csr.usable(with_address, key, addresses=["192.0.2.9"]) or "")
    assert "no address" in (csr.usable(issue(key), key, addresses=["192.0.2.1"]) or "")


def test_a_broken_stored_key_is_told_apart() -> None:
    with pytest.raises(ValueError):
        csr.fingerprint(b"not a key")


def test_kubeconfig_carries_what_it_was_given() -> None:
    made = csr.kubeconfig("https://192.0.2.1:6443", b"ca", b"cert", b"key", "n1")
    user = made["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]) == b"key"
    assert made["contexts"][0]["context"]["user"] == made["users"][0]["name"] == "system:node:n1"
