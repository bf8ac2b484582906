"""Manifests of WASM artifacts: write the two layouts, read those and what other tools produce. Pure.

``wasm-to-oci``
    The article's layout: an empty config blob and one layer of type ``application/vnd.wasm.content.layer.v1+wasm``;
    the manifest has no ``mediaType`` field (Krustlet refuses one that has).
``cncf``
    The layout of the CNCF TAG Runtime: a config blob that lists the layer digests, one ``application/wasm`` layer.

Both are reproducible: the same module gives the same bytes, hence the same digests.

References
----------
wasm-to-oci, pkg/oci/push.go; CNCF TAG Runtime, wgs/wasm/deliverables/wasm-oci-artifact; OCI image specification 1.1,
manifest.md and image-index.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from wasmlab.errors import OCIError, UnsupportedArtifact
from wasmlab.oci import digest as digests
from wasmlab.oci import media_types as mt
from wasmlab.oci.component import ComponentNames, component_names, kind_of

Layout = Literal["wasm-to-oci", "cncf"]
LAYOUTS: tuple[Layout, ...] = ("wasm-to-oci", "cncf")

#: No manifest of this project comes near it; a registry that sends more is broken or hostile. The distribution
#: specification asks clients and registries to support at least this size.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_EMPTY_CONFIG = b"{}"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Descriptor:
    """A reference to content: media type, digest, size in bytes.

    Attributes
    ----------
    media_type : str
        What it is.
    digest : str
        ``sha256:<hex>``.
    size_bytes : int
        Its size.
    title : str or None
        File name, from ``org.opencontainers.image.title``.
    """

    media_type: str
    digest: str
    size_bytes: int
    title: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the descriptor as the JSON object of the specification."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }
        if self.title is not None:
            value["annotations"] = {mt.TITLE_ANNOTATION: self.title}
        return value

    @classmethod
    def of(cls, value: Any, what: str) -> Descriptor:
        """Read a descriptor from parsed JSON.

        Parameters
        ----------
        value : object
            The parsed JSON.
        what : str
            What it describes, for the message of an error.

        Raises
        ------
        OCIError
            If a field is missing or of the wrong kind.
        """
        if not isinstance(value, dict):
            _malformed(f"{what} is not an object")
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not isinstance(media_type, str) or not isinstance(digest, str) or not digests.is_digest(digest):
            _malformed(f"{what} lacks a media type or a digest")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            _malformed(f"{what} has the size {size!r}")
        annotations = value.get("annotations")
        title = annotations.get(mt.TITLE_ANNOTATION) if isinstance(annotations, dict) else None
        return cls(media_type, digest, size, title if isinstance(title, str) else None)


@dataclass(frozen=True)
class Packed:
    """An artifact ready to push: manifest, config and descriptors; the layer's bytes stay where they are."""

    layout: Layout
    manifest: bytes
    manifest_digest: str
    manifest_media_type: str
    config: bytes
    config_descriptor: Descriptor
    layer: Descriptor


def pack(
    module: bytes, layout: Layout = "wasm-to-oci", *, title: str | None = None, created: str = _EPOCH
) -> Packed:
    """Pack the module `module`.

    Parameters
    ----------
    module : bytes
        A core module or a component.
    layout : {"wasm-to-oci", "cncf"}
        The manifest's layout.
    title : str, optional
        File name for the layer's ``org.opencontainers.image.title``, which oras uses on pull. wasm-to-oci writes it too
        although its documentation shows a manifest without; the default is the documented form.
    created : str
        RFC 3339 time for the CNCF config. Fixed by default, because a clock would make digests irreproducible; present
        at all because the reference implementation refuses a config without it.

    Returns
    -------
    Packed
        Manifest and blobs, ready to be pushed.

    Raises
    ------
    InvalidModule
        If `module` is not WASM.
    """
    names = component_names(module) if kind_of(module[:8]) == "component" else None
    return pack_layer(
        digests.of_bytes(module), len(module), layout, component=names, title=title, created=created
    )


def pack_layer(
    digest: str,
    size_bytes: int,
    layout: Layout = "wasm-to-oci",
    *,
    component: ComponentNames | None = None,
    title: str | None = None,
    created: str = _EPOCH,
) -> Packed:
    """Pack a layer that is known by digest and size, so that its bytes need not be in memory. See `pack`."""
    if layout not in LAYOUTS:
        raise OCIError(f"unknown layout {layout!r}", remedy=f"use one of {', '.join(LAYOUTS)}")
    if layout == "wasm-to-oci":
        layer = Descriptor(mt.WASM_TO_OCI_LAYER, digest, size_bytes, title)
        config_type, config = mt.WASM_TO_OCI_CONFIG, _EMPTY_CONFIG
    else:
        layer = Descriptor(mt.CNCF_LAYER, digest, size_bytes, title)
        config_type, config = mt.CNCF_CONFIG, _dump(_cncf_config(digest, component, created))
    config_descriptor = Descriptor(config_type, digests.of_bytes(config), len(config))
    manifest: dict[str, Any] = {"schemaVersion": 2}
    if layout == "cncf":
        manifest["mediaType"] = mt.OCI_MANIFEST
    manifest["config"] = config_descriptor.as_dict()
    manifest["layers"] = [layer.as_dict()]
    raw = _dump(manifest)
    return Packed(layout, raw, digests.of_bytes(raw), mt.OCI_MANIFEST, config, config_descriptor, layer)


def _cncf_config(digest: str, component: ComponentNames | None, created: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "created": created,
        "architecture": "wasm",
        "os": "wasip2" if component else "wasip1",
        "layerDigests": [digest],
    }
    if component:
        config["component"] = {"exports": list(component.exports), "imports": list(component.imports)}
    return config


def _dump(value: Any) -> bytes:
    # Compact and in insertion order, as Go's encoding/json writes structs: byte for byte what wasm-to-oci pushes.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index as received.

    Parameters
    ----------
    raw : bytes
        What the registry sent; its digest is the artifact's.
    digest : str
        sha256 of `raw`.
    media_type : str
        From the document if it says, else from the Content-Type, else guessed by shape.
    document : dict
        The parsed JSON.
    """

    raw: bytes
    digest: str
    media_type: str
    document: dict[str, Any]

    @property
    def is_index(self) -> bool:
        """Whether this is a list of manifests."""
        return self.media_type in mt.INDEXES

    @property
    def config(self) -> Descriptor | None:
        """The config descriptor, if there is one."""
        value = self.document.get("config")
        return None if value is None else Descriptor.of(value, "the manifest's config")

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layer descriptors."""
        value = self.document.get("layers")
        if not isinstance(value, list):
            _malformed("it has no list of layers")
        return tuple(Descriptor.of(item, f"layer {index}") for index, item in enumerate(value))

    @property
    def layout(self) -> str:
        """Which kind of artifact this is, for people: "wasm-to-oci", "cncf", "container image", "index" or "other"."""
        if self.is_index:
            return "index"
        config = self.config
        kind = config.media_type if config else ""
        if kind == mt.WASM_TO_OCI_CONFIG:
            return "wasm-to-oci"
        if kind == mt.CNCF_CONFIG:
            return "cncf"
        return "container image" if kind in mt.CONTAINER_CONFIGS else "other"


def parse_manifest(raw: bytes, content_type: str = "") -> Manifest:
    """Read a manifest or index.

    Raises
    ------
    OCIError
        If it is too large, is not JSON, or is of no known shape (an HTML page, say).
    UnsupportedArtifact
        If it is a Docker schema 1 manifest.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        _malformed(f"it has {len(raw)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        kind = "an HTML page" if raw.lstrip()[:1] == b"<" else "not JSON"
        _malformed(
            f"it is {kind}", "check the address: something other than a registry seems to answer there"
        )
    if not isinstance(document, dict):
        _malformed("it is not a JSON object")
    if document.get("schemaVersion") == 1:
        raise UnsupportedArtifact(
            "this is a Docker schema 1 image, not a WASM artifact",
            remedy="push the module with `wasmlab oci push`",
            media_type=content_type,
        )
    said = document.get("mediaType")
    media_type = said if isinstance(said, str) and said else content_type.partition(";")[0].strip()
    if media_type not in mt.MANIFESTS | mt.INDEXES:
        # The wasm-to-oci layout has no mediaType field, and some registries answer with a vague Content-Type.
        if isinstance(document.get("manifests"), list):
            media_type = mt.OCI_INDEX
        elif isinstance(document.get("layers"), list):
            media_type = mt.OCI_MANIFEST
        else:
            _malformed(f"its type is {media_type!r} and it has neither layers nor manifests")
    return Manifest(raw, digests.of_bytes(raw), media_type, document)


def select_wasm_layer(manifest: Manifest | dict[str, Any]) -> Descriptor:
    """Return the layer that holds the module.

    Parameters
    ----------
    manifest : dict
        The parsed manifest.

    Raises
    ------
    UnsupportedArtifact
        If there is none, or more than one. For a container image the message says so.
    """
    if isinstance(manifest, dict):
        manifest = parse_manifest(_dump(manifest))
    if manifest.is_index:
        raise UnsupportedArtifact(
            "this is an index of several manifests; choose one of them first", media_type=manifest.media_type
        )
    layers, config = manifest.layers, manifest.config
    found = [layer for layer in layers if _holds_wasm(layer, config)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnsupportedArtifact(
            f"the artifact has {len(found)} WASM layers; which one to run is not defined",
            remedy="compose the modules into one and push that",
            media_type=found[0].media_type,
        )
    if manifest.layout == "container image" or any(_is_container_layer(layer) for layer in layers):
        raise UnsupportedArtifact(
            "this is a container image, not a WASM artifact",
            remedy="run it on a container node, or push the module itself with `wasmlab oci push FILE REF`",
            media_type=config.media_type if config else manifest.media_type,
        )
    types = ", ".join(sorted({layer.media_type for layer in layers})) or "no layers"
    raise UnsupportedArtifact(
        f"the artifact holds no WASM module (it has {types})",
        remedy=f"push the module with `wasmlab oci push`, or give its layer the type {mt.CNCF_LAYER}",
        media_type=types,
    )


def _holds_wasm(layer: Descriptor, config: Descriptor | None) -> bool:
    if layer.media_type in mt.WASM_LAYERS:
        return True
    # `oras push REF hello.wasm` types the plain file as a tar layer; only its name and the empty config tell.
    undeclared = config is None or config.media_type in (mt.OCI_EMPTY, mt.ORAS_UNKNOWN_CONFIG)
    return undeclared and bool(layer.title) and str(layer.title).endswith(".wasm")


def _is_container_layer(layer: Descriptor) -> bool:
    return layer.media_type.startswith((mt.OCI_LAYER_PREFIX, mt.DOCKER_LAYER_PREFIX))


# In order of preference: the engines take preview 1 modules best.
_WASM_OS = ("wasip1", "wasi", "wasip2")
_WASM_ARCHITECTURES = ("wasm", "wasm32")


def select_platform(index: Manifest) -> Descriptor:
    """Return the WASM manifest of an index.

    Raises
    ------
    UnsupportedArtifact
        If no entry is for a WASM platform; the message lists the platforms there are.
    """
    entries = index.document.get("manifests")
    if not isinstance(entries, list):
        _malformed("the index has no list of manifests")
    offers: list[tuple[int, Descriptor]] = []
    seen: list[str] = []
    for number, entry in enumerate(entries):
        descriptor = Descriptor.of(entry, f"manifest {number} of the index")
        platform = entry.get("platform")
        platform = platform if isinstance(platform, dict) else {}
        system, architecture = platform.get("os"), platform.get("architecture")
        seen.append(f"{system or '?'}/{architecture or '?'}")
        if system in _WASM_OS and architecture in _WASM_ARCHITECTURES:
            offers.append((_WASM_OS.index(system), descriptor))
    if not offers:
        raise UnsupportedArtifact(
            f"the index offers no WASM platform, only {', '.join(seen) or 'nothing'}: "
            "this is a container image, not a WASM artifact",
            remedy="refer to a WASM artifact, or push the module with `wasmlab oci push FILE REF`",
            media_type=index.media_type,
        )
    return min(offers, key=lambda offer: offer[0])[1]


def _malformed(why: str, remedy: str = "push the artifact again with a current client") -> NoReturn:
    raise OCIError(f"the registry sent a manifest that cannot be used: {why}", remedy=remedy)
