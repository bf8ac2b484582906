"""What the client's methods return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmlab import markup
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

    def _repr_html_(self) -> str:
        return _card(
            self.reference,
            "pushed",
            self.digest,
            self.size_bytes,
            [("module", markup.digest(self.layer_digest))],
        )


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

    def _repr_html_(self) -> str:
        facts = [("runs on", ", ".join(self.platforms))]
        return _card(self.reference, "pushed", self.digest, self.size_bytes, facts)


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

    def _repr_html_(self) -> str:
        facts = [("module", markup.digest(self.layer_digest)), ("file", markup.code(self.path))]
        return _card(self.reference, "pulled", self.manifest_digest, self.size_bytes, facts)


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        what = self.problem or f"module {self.layer.digest if self.layer else ''}"
        return f"<Inspected {self.reference}: {self.layout}, {self.digest}, {what}>"

    def _repr_html_(self) -> str:
        layers = self.manifest.get("layers") or self.manifest.get("manifests") or ()
        title = markup.verdict(self.layer is not None, f"{self.reference}: {self.layout}")
        facts: list[tuple[str, object]] = [
            ("not a module", self.problem),
            ("manifest", markup.digest(self.digest)),
            ("media type", markup.code(self.media_type)),
        ]
        facts += [("holds", _descriptor(one)) for one in layers if isinstance(one, dict)]
        return markup.card(title, facts)


@dataclass(frozen=True)
class Located:
    """A module found in a registry, not yet pulled: what the reference resolves to, and the layer to fetch."""

    reference: Reference
    manifest_digest: str
    layer: Descriptor


def _card(
    reference: Reference, done: str, digest: str, size_bytes: int, more: Sequence[tuple[str, object]]
) -> str:
    title = markup.verdict(True, f"{reference}: {done}, {size_bytes:,} bytes")
    return markup.card(title, [("manifest", markup.digest(digest)), *more])


def _descriptor(one: dict[str, Any]) -> markup.Html:
    # A registry may have sent anything under these names.
    size = f", {one['size']:,} bytes" if isinstance(one.get("size"), int) else ""
    platform = one.get("platform")
    where = f", {platform.get('os')}/{platform.get('architecture')}" if isinstance(platform, dict) else ""
    return markup.Html(
        f"{markup.digest(str(one.get('digest')))} {markup.code(one.get('mediaType'))}{markup.text(size + where)}"
    )
