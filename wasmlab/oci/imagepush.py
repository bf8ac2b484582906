"""Push what `wasmlab.oci.image` builds: blobs first, then manifests, then the index, so that nothing dangles."""

from __future__ import annotations

from dataclasses import dataclass

from wasmlab.errors import InvalidReference
from wasmlab.oci import protocol
from wasmlab.oci.client import AsyncClient, Client
from wasmlab.oci.image import Image, Index
from wasmlab.oci.reference import Reference
from wasmlab.oci.session import Session


@dataclass(frozen=True)
class PushedImage:
    """What was pushed.

    Parameters
    ----------
    reference : Reference
        As given.
    digest : str
        Of the manifest, or of the index.
    size_bytes : int
        Of all blobs together.
    platforms : tuple of str
        What it runs on, e.g. ``("linux/amd64", "wasip1/wasm")``.
    """

    reference: Reference
    digest: str
    size_bytes: int
    platforms: tuple[str, ...]


async def push_image(client: AsyncClient, content: Image | Index, ref: str | Reference) -> PushedImage:
    """Push an image or an index of images.

    Parameters
    ----------
    client : AsyncClient
        With what it takes to reach the registry.
    content : Image or Index
        What to push.
    ref : str or Reference
        Under which tag.

    Raises
    ------
    InvalidReference
        If `ref` names another digest.
    Unauthorized, RegistryError, RegistryUnavailable, RegistryTimeout
        As the registry answers, or does not.
    """
    target = ref if isinstance(ref, Reference) else Reference.parse(ref)
    if target.digest and target.digest != content.digest:
        raise InvalidReference(
            f"cannot push to {target}: what is pushed has the digest {content.digest}", remedy="push to a tag"
        )
    session = client._session(target, None, push=True)
    images = content.images if isinstance(content, Index) else (content,)
    blobs = {descriptor.digest: (descriptor, data) for image in images for descriptor, data in image.blobs}
    for descriptor, data in blobs.values():
        if not await client._has_blob(session, target, descriptor):
            await client._upload_bytes(session, target, descriptor, data)
    if isinstance(content, Index):
        for image in images:
            await _put(session, target.at(image.digest), image)
    await _put(session, target, content)
    return PushedImage(
        target,
        content.digest,
        sum(descriptor.size_bytes for descriptor, _ in blobs.values()),
        tuple(f"{image.os}/{image.architecture}" for image in images),
    )


async def _put(session: Session, ref: Reference, content: Image | Index) -> None:
    request = protocol.put_manifest_request(session.base, ref, content.manifest, content.media_type)
    await session.send(request, 201, 200, 202)


def push_image_sync(client: Client, content: Image | Index, ref: str | Reference) -> PushedImage:
    """Do the same with a `Client`."""
    return client._run(lambda inner: push_image(inner, content, ref))
