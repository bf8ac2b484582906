"""The asynchronous client: push, pull, inspect and resolve WASM artifacts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path

from wasmlab.errors import (
    InvalidReference,
    OCIError,
    RegistryError,
    SizeMismatch,
    UnsupportedArtifact,
)
from wasmlab.oci import answers, artifact, protocol, upload
from wasmlab.oci import digest as digests
from wasmlab.oci.artifact import Layout, Manifest
from wasmlab.oci.credentials import Credentials
from wasmlab.oci.digest import Verifier
from wasmlab.oci.image import Image, Index
from wasmlab.oci.progress import ProgressCallback, counter
from wasmlab.oci.protocol import Timeouts
from wasmlab.oci.reference import Reference
from wasmlab.oci.results import Inspected, Located, Pulled, Pushed, PushedImage
from wasmlab.oci.session import Session, TokenCache
from wasmlab.oci.transfer import Landing, pack_file
from wasmlab.oci.transport import AiohttpTransport, Transport

#: A module larger than this is not pulled: a registry must not be able to fill a node's disk.
MAX_MODULE_BYTES = 2 * 1024**3


class AsyncClient:
    """A client for any number of registries. Use it in one event loop; close it, or use it with ``async with``.

    Parameters
    ----------
    credentials : Credentials, optional
        Asked when a registry demands authentication. Each method also takes `credentials` for one call.
    plain_http : bool or collection of str, optional
        True: http everywhere. False: https everywhere. A collection: http for these registries. By default (and for
        registries not in the collection) http for this machine, https for all others, as containerd does.
    insecure : bool
        Do not check certificates.
    ca_file : path, optional
        More certificate authorities, PEM.
    timeout : Timeouts
        Deadlines.
    """

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        plain_http: bool | Collection[str] | None = None,
        insecure: bool = False,
        ca_file: str | Path | None = None,
        timeout: Timeouts | None = None,
        _transport: Transport | None = None,
        _tokens: TokenCache | None = None,
    ) -> None:
        self._credentials = credentials
        self._plain_http = plain_http
        self._insecure = insecure
        self._timeout = timeout or Timeouts()
        self._transport: Transport = _transport or AiohttpTransport(
            self._timeout, insecure=insecure, ca_file=Path(ca_file) if ca_file else None
        )
        self._tokens = _tokens if _tokens is not None else TokenCache()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def _session(self, ref: Reference, credentials: Credentials | None, *, push: bool = False) -> Session:
        return Session(
            self._transport,
            ref,
            credentials if credentials is not None else self._credentials,
            self._tokens,
            plain_http=self._is_plain(ref),
            push=push,
            insecure=self._insecure,
        )

    def _is_plain(self, ref: Reference) -> bool:
        if isinstance(self._plain_http, bool):
            return self._plain_http
        if self._plain_http is not None and ref.registry in self._plain_http:
            return True
        return ref.is_loopback

    # Reading ---------------------------------------------------------------------------------------------------

    async def resolve(self, ref: str | Reference, *, credentials: Credentials | None = None) -> str:
        """Return the digest that `ref` stands for now, with one HEAD request.

        Parameters
        ----------
        credentials : Credentials, optional
            Instead of those of the client, for this call.
        ref : str or Reference
            Tag or digest.

        Raises
        ------
        NotFound, Unauthorized, RegistryError, RegistryUnavailable, RegistryTimeout
            As `pull`.
        """
        ref = _reference(ref)
        session = self._session(ref, credentials)
        request = protocol.manifest_request(
            session.base, ref, ref.target, head=True, max_bytes=artifact.MAX_MANIFEST_BYTES
        )
        try:
            response = await session.send(request, 200)
        except RegistryError as error:
            if answers.says_nothing(error):
                return (await self._fetch(session, ref, ref.target)).digest
            raise
        digest = response.header("docker-content-digest")
        if not digests.is_digest(digest):
            return (await self._fetch(session, ref, ref.target)).digest
        if ref.digest and digest.startswith("sha256:") and digest != ref.digest:
            raise digests.mismatch(f"the manifest of {ref}", ref.digest, digest)
        return digest

    async def inspect(self, ref: str | Reference, *, credentials: Credentials | None = None) -> Inspected:
        """Fetch what `ref` points at: a WASM artifact of any layout, or something else (then `problem` says what).

        Parameters
        ----------
        credentials : Credentials, optional
            Instead of those of the client, for this call.
        ref : str or Reference
            Tag or digest.

        Returns
        -------
        Inspected
            Manifest, digest and layout.

        Raises
        ------
        NotFound, Unauthorized, RegistryError, RegistryUnavailable, RegistryTimeout, DigestMismatch
            As `pull`.
        """
        ref = _reference(ref)
        session = self._session(ref, credentials)
        top = await self._fetch(session, ref, ref.target)
        layer, problem = None, None
        try:
            layer = artifact.select_wasm_layer(await self._resolve_index(session, ref, top))
        except UnsupportedArtifact as error:
            problem = error.message
        return Inspected(ref, top.digest, top.media_type, top.document, top.raw, top.layout, layer, problem)

    async def locate(self, ref: str | Reference, *, credentials: Credentials | None = None) -> Located:
        """Find the module that `ref` stands for, without fetching it.

        Parameters
        ----------
        credentials : Credentials, optional
            Instead of those of the client, for this call.
        ref : str or Reference
            Tag or digest.

        Returns
        -------
        Located
            What `fetch` takes.

        Raises
        ------
        UnsupportedArtifact
            If it is no WASM artifact; and all that `inspect` raises.
        """
        ref = _reference(ref)
        session = self._session(ref, credentials)
        return await self._locate(session, ref)

    async def pull(
        self,
        ref: str | Reference,
        out: str | Path,
        progress: ProgressCallback | None = None,
        *,
        credentials: Credentials | None = None,
    ) -> Pulled:
        """Fetch the module that `ref` stands for into the file `out`.

        The content streams into a hidden file beside `out`, is verified and made durable, and only then takes its name;
        whatever goes wrong, an existing `out` stays as it was.

        Parameters
        ----------
        ref : str or Reference
            Tag or digest.
        out : path
            The file to write.
        progress : callable, optional
            Called with (bytes so far, bytes in all).
        credentials : Credentials, optional
            Instead of those of the client, for this call.

        Returns
        -------
        Pulled
            Digests, size, and where it is.

        Raises
        ------
        InvalidReference
            If `ref` is not a reference.
        NotFound, Unauthorized, RegistryError
            As the registry answers, with its code.
        RegistryUnavailable, RegistryTimeout
            If it does not answer.
        DigestMismatch, SizeMismatch
            If the content is not what the digest says, or is cut.
        UnsupportedArtifact
            If there is no WASM module in it.
        OCIError
            If `out` cannot be written.
        """
        ref = _reference(ref)
        session = self._session(ref, credentials)
        return await self._land(session, await self._locate(session, ref), Path(out), progress)

    async def fetch(
        self,
        located: Located,
        out: str | Path,
        progress: ProgressCallback | None = None,
        *,
        mode: int = 0o666,
        credentials: Credentials | None = None,
    ) -> Pulled:
        """Fetch a module that `locate` found. Raises what `pull` raises.

        Parameters
        ----------
        located : Located
            What `locate` returned.
        out : path
            The file to write.
        progress : callable, optional
            Called with (bytes so far, bytes in all).
        credentials : Credentials, optional
            Instead of those of the client, for this call.
        mode : int
            Permissions of the file.

        Returns
        -------
        Pulled
            What was fetched, and where it is.
        """
        session = self._session(located.reference, credentials)
        return await self._land(session, located, Path(out), progress, mode=mode)

    async def _locate(self, session: Session, ref: Reference) -> Located:
        top = await self._fetch(session, ref, ref.target)
        try:
            layer = artifact.select_wasm_layer(await self._resolve_index(session, ref, top))
        except UnsupportedArtifact as error:
            raise UnsupportedArtifact(
                f"cannot use {ref}: {error.message}", remedy=error.remedy, **error.context
            ) from error
        return Located(ref, top.digest, layer)

    async def _resolve_index(self, session: Session, ref: Reference, top: Manifest) -> Manifest:
        if not top.is_index:
            return top
        chosen = artifact.select_platform(top)
        manifest = await self._fetch(session, ref, chosen.digest)
        if manifest.is_index:
            raise UnsupportedArtifact(
                "it is an index within an index",
                remedy="push the module itself",
                media_type=manifest.media_type,
            )
        return manifest

    async def _fetch(self, session: Session, ref: Reference, target: str) -> Manifest:
        request = protocol.manifest_request(session.base, ref, target, max_bytes=artifact.MAX_MANIFEST_BYTES)
        response = await session.send(request, 200)
        what = f"the manifest {target} of {ref.name}"
        if digests.is_digest(target):
            verifier = Verifier(target, None, what)
            verifier.update(response.body)
            verifier.finish()
        said = response.header("docker-content-digest")
        if digests.is_digest(said):
            verifier = Verifier(said, None, what)
            verifier.update(response.body)
            verifier.finish()
        try:
            manifest = artifact.parse_manifest(response.body, response.header("content-type"))
        except OCIError as error:
            raise type(error)(
                f"cannot use {ref}: {error.message}", remedy=error.remedy, **error.context
            ) from error
        return manifest

    async def _land(
        self,
        session: Session,
        located: Located,
        out: Path,
        progress: ProgressCallback | None,
        *,
        mode: int = 0o666,
    ) -> Pulled:
        ref, layer = located.reference, located.layer
        what = f"the module {layer.digest} of {ref.name}"
        if layer.size_bytes > MAX_MODULE_BYTES:
            raise SizeMismatch(
                f"{what} has {layer.size_bytes} bytes; more than {MAX_MODULE_BYTES} are not pulled",
                remedy="check that the manifest is right",
                expected=MAX_MODULE_BYTES,
                actual=layer.size_bytes,
            )
        count = counter(progress, layer.size_bytes)
        with Landing(out, Verifier(layer.digest, layer.size_bytes, what), mode=mode) as landing:
            request = protocol.blob_request(session.base, ref, layer.digest, layer.size_bytes)
            await session.send(request, 200, sink=landing.write, progress=count)
            # The fsync may take long: not in the event loop.
            kind = await asyncio.to_thread(landing.commit)
        return Pulled(ref, located.manifest_digest, layer.digest, layer.size_bytes, Path(out), kind)

    # Writing ---------------------------------------------------------------------------------------------------

    async def push(
        self,
        path: str | Path,
        ref: str | Reference,
        layout: Layout = "wasm-to-oci",
        progress: ProgressCallback | None = None,
        *,
        title: str | None = None,
        chunk_bytes: int | None = None,
        credentials: Credentials | None = None,
    ) -> Pushed:
        """Push the module in the file `path` as `ref`.

        Parameters
        ----------
        path : path
            A core module or component; its bytes are read from disk while they are sent.
        ref : str or Reference
            Under which tag.
        layout : {"wasm-to-oci", "cncf"}
            The manifest's layout; see `wasmlab.oci.artifact`.
        progress : callable, optional
            Called with (bytes so far, bytes in all).
        title : str, optional
            File name to write into the manifest.
        chunk_bytes : int, optional
            Send the module in pieces of this size, for proxies that limit the size of a request.
        credentials : Credentials, optional
            Instead of those of the client, for this call.

        Returns
        -------
        Pushed
            Digests and size.

        Raises
        ------
        InvalidReference
            If `ref` names a digest: that follows from the content.
        InvalidModule
            If the file is not WASM.
        OCIError
            If it cannot be read; and all that `pull` raises about registries.
        """
        ref, path = _reference(ref), Path(path)
        packed = await asyncio.to_thread(pack_file, path, layout, title)
        if ref.digest and ref.digest != packed.manifest_digest:
            raise InvalidReference(
                f"cannot push to {ref}: the manifest of {path} would have the digest {packed.manifest_digest}",
                remedy="push to a tag",
            )
        session = self._session(ref, credentials, push=True)
        layer = packed.layer
        count = counter(progress, layer.size_bytes)
        if not await upload.has_blob(session, ref, layer):
            await upload.send_file(session, ref, layer, path, chunk_bytes, count)
        elif count:
            count(layer.size_bytes)
        if not await upload.has_blob(session, ref, packed.config_descriptor):
            await upload.send_bytes(session, ref, packed.config_descriptor, packed.config)
        await upload.put_manifest(
            session, ref, packed.manifest, packed.manifest_media_type, packed.manifest_digest
        )
        return Pushed(ref, packed.manifest_digest, layer.size_bytes, layer.digest)

    async def check_push(self, ref: str | Reference, *, credentials: Credentials | None = None) -> None:
        """See whether pushing to `ref` would be allowed: an upload is begun and given up, nothing is stored.

        Parameters
        ----------
        credentials : Credentials, optional
            Instead of those of the client, for this call.
        ref : str or Reference
            Tag or digest.

        Raises
        ------
        Unauthorized, RegistryError, RegistryUnavailable, RegistryTimeout
            As `push`.
        """
        ref = _reference(ref)
        session = self._session(ref, credentials, push=True)
        location = await upload.begin(session, ref)
        # Not every registry knows how to; they all forget an upload that does not go on.
        with contextlib.suppress(RegistryError):
            await session.send(protocol.cancel_upload_request(location, ref), 204, 202, 200)

    async def push_image(
        self, content: Image | Index, ref: str | Reference, *, credentials: Credentials | None = None
    ) -> PushedImage:
        """Push what `wasmlab.oci.image` builds: an image, or an index of several.

        Parameters
        ----------
        content : Image or Index
            What to push: blobs first, then manifests, then the index, so that nothing dangles.
        ref : str or Reference
            Under which tag.
        credentials : Credentials, optional
            Instead of those of the client, for this call.

        Returns
        -------
        PushedImage
            Digest, size and platforms.

        Raises
        ------
        InvalidReference
            If `ref` names another digest.
        Unauthorized, RegistryError, RegistryUnavailable, RegistryTimeout, DigestMismatch
            As `push`.
        """
        ref = _reference(ref)
        if ref.digest and ref.digest != content.digest:
            raise InvalidReference(
                f"cannot push to {ref}: what is pushed has the digest {content.digest}",
                remedy="push to a tag",
            )
        session = self._session(ref, credentials, push=True)
        images = content.images if isinstance(content, Index) else (content,)
        blobs = {descriptor.digest: (descriptor, data) for one in images for descriptor, data in one.blobs}
        for descriptor, data in blobs.values():
            if not await upload.has_blob(session, ref, descriptor):
                await upload.send_bytes(session, ref, descriptor, data)
        children = [(ref.at(one.digest), one) for one in images] if isinstance(content, Index) else []
        for target, one in (*children, (ref, content)):
            await upload.put_manifest(session, target, one.manifest, one.media_type, one.digest)
        return PushedImage(
            ref,
            content.digest,
            sum(descriptor.size_bytes for descriptor, _ in blobs.values()),
            tuple(f"{one.os}/{one.architecture}" for one in images),
        )


def _reference(ref: str | Reference) -> Reference:
    return ref if isinstance(ref, Reference) else Reference.parse(ref)
