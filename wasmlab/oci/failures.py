"""Say what a failed exchange means, in the words of `wasmlab.errors`: refused, unknown host, TLS, not HTTP, broken."""

from __future__ import annotations

import os
import ssl
from urllib.parse import urlsplit

from wasmlab.errors import OCIError, RegistryUnavailable
from wasmlab.oci.protocol import Request


def host_of(request: Request) -> str:
    """Return the host and port a request goes to."""
    return urlsplit(request.url).netloc.rpartition("@")[2]


def translate(request: Request, error: Exception) -> OCIError:
    """Return the error to raise for an exception of aiohttp."""
    import aiohttp

    host = host_of(request)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return RegistryUnavailable(
            f"cannot {request.what}: the certificate of {host} is not trusted ({_reason(error.certificate_error)})",
            remedy="pass the authority's certificate with --ca-file FILE, or --insecure to skip the check",
            registry=host,
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        reason = str(error)
        if any(mark in reason for mark in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF")):
            return RegistryUnavailable(
                f"cannot {request.what}: {host} does not speak https",
                remedy="if it is a plain http registry, pass --use-http",
                registry=host,
            )
        return RegistryUnavailable(f"cannot {request.what}: TLS with {host} failed ({reason})", registry=host)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return RegistryUnavailable(
            f"cannot {request.what}: the name of {host} cannot be resolved",
            remedy="check the registry's name and this machine's DNS",
            registry=host,
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return RegistryUnavailable(
            f"cannot {request.what}: no connection to {host} ({_os_reason(error.os_error)})",
            remedy="check that the registry runs and that host and port are right",
            registry=host,
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return RegistryUnavailable(
            f"cannot {request.what}: {host} sent something that is not HTTP ({error.message or error})"[:400],
            remedy="check the port; if it is an https registry, leave --use-http off",
            registry=host,
        )
    return RegistryUnavailable(
        f"cannot {request.what}: the connection to {host} broke ({str(error) or type(error).__name__})",
        remedy="try again; if it stays, see the registry's log"
        + (", or pass --no-use-http if it is an https registry" if request.url.startswith("http:") else ""),
        registry=host,
        broken=True,
    )


def _reason(error: Exception) -> str:
    return getattr(error, "verify_message", "") or str(error)


def _os_reason(error: OSError) -> str:
    # asyncio words a refused connection as "Connect call failed (address)"; the system's own word says more.
    return os.strerror(error.errno).lower() if error.errno else str(error)
