"""The registry API as plain data and plain functions: requests to send, what an answer means, when to try again. Pure.

Six endpoints: HEAD and GET of manifests, PUT of manifests, HEAD and GET of blobs, and the upload of blobs
(POST, PATCH, PUT).

References
----------
OCI distribution specification 1.1: "Pulling", "Pushing", "Error codes". RFC 9110: 10.2.3 (Retry-After),
15.4 (redirects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from wasmlab.oci import media_types as mt
from wasmlab.oci.reference import Reference

#: Error bodies and token answers: more than this is not read.
MAX_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Timeouts:
    """Deadlines of one registry operation, in seconds.

    Parameters
    ----------
    connect_s : float
        Name resolution, TCP and TLS together.
    read_s : float
        The longest silence while an answer is awaited or read.
    total_s : float
        One exchange as a whole, redirects and repeated attempts apart. Blobs get more, by size: see `for_size`.
    min_rate_bytes_per_s : float
        A blob may take as long as this rate makes it, on top of `total_s`.
    """

    connect_s: float = 5.0
    read_s: float = 15.0
    total_s: float = 120.0
    min_rate_bytes_per_s: float = 256 * 1024

    def for_size(self, size_bytes: int) -> float:
        """Return the deadline for moving `size_bytes`, in seconds."""
        return self.total_s + size_bytes / self.min_rate_bytes_per_s


@dataclass(frozen=True)
class FilePart:
    """A part of a file as a request body: read while it is sent, and again if the request must be repeated."""

    path: Path
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Request:
    """One HTTP exchange to make.

    Parameters
    ----------
    what : str
        The purpose, for messages: "fetch manifest v1 of 127.0.0.1:5000/hello".
    idempotent : bool
        Whether it may be sent again when the outcome is unknown.
    size_bytes : int
        How much content moves, for the deadline.
    max_body_bytes : int
        More answer than this is refused (not used when the answer goes to a sink).
    """

    method: str
    url: str
    what: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | FilePart | None = field(default=None, repr=False)
    idempotent: bool = True
    size_bytes: int = 0
    max_body_bytes: int = MAX_ANSWER_BYTES

    def with_headers(self, **headers: str) -> Request:
        """Return the request with `headers` added."""
        return replace(self, headers={**self.headers, **headers})


@dataclass(frozen=True)
class Response:
    """An answer. Header names are in lower case; values of repeated headers are joined by newlines."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def header(self, name: str) -> str:
        """Return a header's (first) value, or an empty string."""
        return self.headers.get(name.lower(), "").partition("\n")[0]

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header."""
        value = self.headers.get(name.lower(), "")
        return value.split("\n") if value else []


# Requests --------------------------------------------------------------------------------------------------------


def base_url(ref: Reference, *, plain_http: bool) -> str:
    """Return the repository's base URL."""
    return f"{'http' if plain_http else 'https'}://{ref.api_host}/v2/{ref.repository}"


def manifest_request(
    base: str, ref: Reference, target: str, *, head: bool = False, max_bytes: int
) -> Request:
    """HEAD or GET the manifest `target` (a tag or digest)."""
    verb = "resolve" if head else "fetch the manifest of"
    shown = ref if target in (ref.target,) else f"{ref.name}@{target}"
    return Request(
        "HEAD" if head else "GET",
        f"{base}/manifests/{target}",
        f"{verb} {shown}",
        {"Accept": mt.ACCEPT_MANIFEST},
        max_body_bytes=max_bytes,
    )


def put_manifest_request(base: str, ref: Reference, manifest: bytes, media_type: str) -> Request:
    """PUT a manifest under the reference's tag or digest."""
    return Request(
        "PUT",
        f"{base}/manifests/{ref.target}",
        f"write the manifest of {ref}",
        {"Content-Type": media_type},
        body=manifest,
        size_bytes=len(manifest),
    )


def blob_request(base: str, ref: Reference, digest: str, size_bytes: int, *, head: bool = False) -> Request:
    """HEAD or GET a blob."""
    verb = "look for" if head else "fetch"
    return Request(
        "HEAD" if head else "GET",
        f"{base}/blobs/{digest}",
        f"{verb} the blob {digest} of {ref.name}",
        size_bytes=0 if head else size_bytes,
    )


def start_upload_request(base: str, ref: Reference) -> Request:
    """POST for an upload session. A lost session is harmless (registries purge them), so it may be repeated."""
    return Request(
        "POST", f"{base}/blobs/uploads/", f"begin an upload to {ref.name}", {"Content-Length": "0"}, body=b""
    )


def cancel_upload_request(location: str, ref: Reference) -> Request:
    """DELETE that gives an upload session up."""
    return Request("DELETE", location, f"give up an upload to {ref.name}", {"Content-Length": "0"}, body=b"")


def chunk_request(location: str, ref: Reference, part: FilePart) -> Request:
    """PATCH one chunk. Not idempotent: the registry has moved on if it was received."""
    last = part.offset_bytes + part.size_bytes - 1
    return Request(
        "PATCH",
        location,
        f"upload bytes {part.offset_bytes}-{last} to {ref.name}",
        {"Content-Type": "application/octet-stream", "Content-Range": f"{part.offset_bytes}-{last}"},
        body=part,
        idempotent=False,
        size_bytes=part.size_bytes,
    )


def finish_upload_request(
    location: str, ref: Reference, digest: str, body: bytes | FilePart, size_bytes: int
) -> Request:
    """PUT that closes an upload session, with the content (monolithic) or without (after chunks)."""
    # The Location is opaque: its query goes back exactly as it came.
    url = f"{location}{'&' if urlsplit(location).query else '?'}{urlencode({'digest': digest})}"
    return Request(
        "PUT",
        url,
        f"upload the blob {digest} to {ref.name}",
        {"Content-Type": "application/octet-stream"},
        body=body,
        idempotent=False,
        size_bytes=size_bytes,
    )
