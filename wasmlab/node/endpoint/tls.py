"""The TLS side of the node's endpoint: its certificate, its socket, and which client certificates it takes.

A client need not have a certificate (it may have a token), but one that it shows must be of the client authority and
made for clients: the handshake refuses any other, where the kubelet answers 401 after it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from wasmlab.errors import PrerequisiteError


def ssl_context(certificate: Path, client_ca_pem: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with the node's certificate (and its key, in one file), verifying the clients'.

    Raises
    ------
    PrerequisiteError
        The client authority cannot be read.
    """
    try:
        # Nothing of the system's own authorities: they would let the whole internet in.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=client_ca_pem)
    except ssl.SSLError as error:
        raise PrerequisiteError(
            f"the authority for client certificates cannot be read: {error}",
            remedy="--client-ca-file takes PEM certificates",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    # A cluster's private CA often lacks the extensions that the strict mode of Python 3.13 asks for.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.load_cert_chain(certificate)
    return context


def bind(address: str, port: int, remembered: Path) -> socket.socket:
    """A listening socket; for port 0 the port of last time if it is free, so that a restart is not seen from outside.

    Raises
    ------
    PrerequisiteError
        The address cannot be bound.
    """
    wanted = [port]
    if port == 0:
        with contextlib.suppress(OSError, ValueError):
            wanted = [int(remembered.read_text()), 0]
    for attempt, one in enumerate(wanted):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, one))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if attempt == len(wanted) - 1:
                raise PrerequisiteError(
                    f"the endpoint cannot listen on {address} port {one}: {error.strerror}",
                    remedy="another program may use the port; choose one with --port, or --port 0 for any",
                ) from error
            continue
        listener.setblocking(False)
        if port == 0:
            remembered.write_text(str(listener.getsockname()[1]))
        return listener
    raise AssertionError("unreachable")
