"""How content gets into a registry: blobs in one piece or in several, then the manifest that names them.

References
----------
OCI distribution specification, sections "Pushing Blobs" and "Pushing Manifests".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wasmlab.errors import NotFound, RegistryError
from wasmlab.oci import answers, protocol
from wasmlab.oci import digest as digests
from wasmlab.oci.artifact import Descriptor
from wasmlab.oci.protocol import FilePart
from wasmlab.oci.reference import Reference
from wasmlab.oci.session import Session


async def has_blob(session: Session, ref: Reference, blob: Descriptor) -> bool:
    """Whether the repository has a blob already."""
    try:
        response = await session.send(
            protocol.blob_request(session.base, ref, blob.digest, blob.size_bytes, head=True), 200
        )
    except NotFound:
        return False
    except RegistryError as error:
        if answers.says_nothing(error):
            return False  # the upload that follows will fail too, and say why
        raise
    return response.header("content-length") in ("", str(blob.size_bytes))


async def begin(session: Session, ref: Reference) -> str:
    """Begin an upload; return where it goes on."""
    request = protocol.start_upload_request(session.base, ref)
    return answers.upload_location(await session.send(request, 202), request.what)


async def send_bytes(session: Session, ref: Reference, blob: Descriptor, data: bytes) -> None:
    """Upload a small blob."""
    location = await begin(session, ref)
    await session.send(
        protocol.finish_upload_request(location, ref, blob.digest, data, len(data)), 201, 204, 202
    )


async def send_file(
    session: Session,
    ref: Reference,
    blob: Descriptor,
    path: Path,
    chunk_bytes: int | None,
    count: Callable[[int], None] | None,
) -> None:
    """Upload a file, in pieces of `chunk_bytes` if given; `count` is told how many bytes have gone."""
    location = await begin(session, ref)
    whole = FilePart(path, 0, blob.size_bytes)
    body: bytes | FilePart = whole
    if chunk_bytes:
        for offset in range(0, blob.size_bytes, chunk_bytes):
            part = FilePart(path, offset, min(chunk_bytes, blob.size_bytes - offset))
            request = protocol.chunk_request(location, ref, part)
            response = await session.send(request, 202, progress=count)
            location = answers.upload_location(response, request.what)
        body, count = b"", None
    request = protocol.finish_upload_request(location, ref, blob.digest, body, blob.size_bytes)
    await session.send(request, 201, 204, progress=count)


async def put_manifest(
    session: Session, ref: Reference, manifest: bytes, media_type: str, digest: str
) -> None:
    """Store a manifest under its tag or digest, and compare what the registry says it has stored.

    Raises
    ------
    DigestMismatch
        If that is something else.
    """
    request = protocol.put_manifest_request(session.base, ref, manifest, media_type)
    response = await session.send(request, 201, 200, 202)
    said = response.header("docker-content-digest")
    if said.startswith("sha256:") and said != digest:
        raise digests.mismatch(f"the manifest that the registry stored for {ref}", digest, said)
