"""What the client's methods return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmlab.oci.artifact import Descriptor
from wasmlab.oci.reference import Reference


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Parameters
    ----------
    reference : Reference
        As given.
    digest : str
        Of the manifest; what wasm-to-oci prints as Digest after a push.
    size_bytes : int
        Of the module.
    layer_digest : str
        Of the module.
    """

    reference: Reference
    digest: str
    size_bytes: int
    layer_digest: str


@dataclass(frozen=True)
class PushedImage:
    """An image or index that was pushed.

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


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Parameters
    ----------
    reference : Reference
        As given.
    manifest_digest : str
        What the reference resolved to (the index, if it is one).
    layer_digest : str
        Of the module; what wasm-to-oci prints as Digest after a pull.
    size_bytes : int
        Of the module.
    path : Path
        Where it is now.
    kind : str
        "core" or "component".
    """

    reference: Reference
    manifest_digest: str
    layer_digest: str
    size_bytes: int
    path: Path
    kind: str = "core"


@dataclass(frozen=True)
class Inspected:
    """What a reference points at.

    Parameters
    ----------
    reference : Reference
        As given.
    digest : str
        Of the manifest.
    media_type : str
        Of the manifest.
    manifest : dict
        The parsed manifest (or index).
    raw : bytes
        As the registry sent it.
    layout : str
        "wasm-to-oci", "cncf", "container image", "index" or "other".
    layer : Descriptor or None
        The module's layer; None if this is no WASM artifact.
    problem : str or None
        Why it is not, if it is not.
    """

    reference: Reference
    digest: str
    media_type: str
    manifest: dict[str, Any]
    raw: bytes
    layout: str
    layer: Descriptor | None
    problem: str | None = None


@dataclass(frozen=True)
class Located:
    """A module found in a registry, not yet pulled: what the reference resolves to, and the layer to fetch."""

    reference: Reference
    manifest_digest: str
    layer: Descriptor
