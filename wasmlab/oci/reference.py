"""References to artifacts: ``registry/repository[:tag][@digest]``, read as containerd and the kubelet read them.

Guarantees: ``Reference.parse(str(ref)) == ref``; what is accepted is safe to put into a URL path, because the grammar
has no ``%``, ``..``, ``?`` or ``#``.

References
----------
distribution/reference, reference.go (the grammar); OCI distribution specification 1.1, section "Pulling manifests".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from wasmlab.errors import InvalidReference
from wasmlab.oci import digest as digests

_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(
    rf"(?P<host>{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_NAME = 255

DOCKER_HUB = "docker.io"
# The name users write and the host that serves the API differ for Docker Hub only.
_DOCKER_HUB_API = "registry-1.docker.io"


@dataclass(frozen=True, order=True)
class Reference:
    """Where an artifact is.

    Parameters
    ----------
    registry : str
        Host and optional port.
    repository : str
        The name within the registry.
    tag : str or None
        Kept beside a digest for people to read; the digest then decides.
    digest : str or None
        ``sha256:...``; pins the content.
    """

    registry: str
    repository: str
    tag: str | None = "latest"
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        Parameters
        ----------
        text : str
            ``HOST[:PORT]/NAME[:TAG]`` or ``HOST[:PORT]/NAME@sha256:...``.

        Raises
        ------
        InvalidReference
            With what is wrong and how to write it.
        """
        if not isinstance(text, str) or not text:
            raise _invalid(text, "it is empty")
        if "://" in text:
            raise _invalid(
                text,
                "it starts with a URL scheme",
                "leave the scheme off; use --use-http for a plain http registry",
            )
        if text != text.strip() or any(ch.isspace() for ch in text):
            raise _invalid(text, "it contains white space")
        name, at, digest = text.partition("@")
        if at and not digests.is_digest(digest):
            raise _invalid(
                text, f"{digest!r} is not a digest", "write sha256: and 64 lower-case hexadecimal digits"
            )
        # A colon after the last slash begins the tag; one before it belongs to the registry's port.
        slash, colon = name.rfind("/"), name.rfind(":")
        tag: str | None = None
        if colon > slash and not (slash < 0 and name.startswith("[")):
            name, tag = name[:colon], name[colon + 1 :]
            if not _TAG.fullmatch(tag):
                raise _invalid(
                    text,
                    f"{tag!r} is not a tag",
                    "a tag has up to 128 letters, digits, underscores, dots and dashes",
                )
        registry, repository = _split_registry(name)
        _check(text, registry, repository)
        if tag is None and not at:
            tag = "latest"
        return cls(registry, repository, tag, digest if at else None)

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def name(self) -> str:
        """Registry and repository, with neither tag nor digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def api_host(self) -> str:
        """Host and port that serve the registry's API."""
        return _DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, by name or address."""
        return is_loopback(self.registry)

    def at(self, digest: str) -> Reference:
        """Return this reference pinned to `digest`."""
        return Reference(self.registry, self.repository, self.tag, digest)

    def __str__(self) -> str:
        text = self.name
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text


def is_loopback(registry: str) -> bool:
    """Say whether `registry` (host and optional port) is this machine, as containerd does to default to plain http."""
    match = _REGISTRY.fullmatch(registry)
    host = match["host"] if match else registry
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if slash and looks_like_host:
        registry, repository = first, rest
    else:
        registry, repository = DOCKER_HUB, name
    if registry in ("index.docker.io", _DOCKER_HUB_API):
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check(text: str, registry: str, repository: str) -> None:
    match = _REGISTRY.fullmatch(registry)
    if not match:
        raise _invalid(text, f"{registry!r} is not a registry host")
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise _invalid(text, f"{match['port']} is not a port")
    if match["host"].startswith("["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1])
        except ValueError:
            raise _invalid(text, f"{match['host']} is not an IPv6 address") from None
    if not repository:
        raise _invalid(text, "it names no repository")
    for segment in repository.split("/"):
        if not _SEGMENT.fullmatch(segment):
            hint = (
                "repository names are lower case"
                if _SEGMENT.fullmatch(segment.lower())
                else "use lower-case letters and digits, separated by single dots, underscores or dashes"
            )
            raise _invalid(text, f"{segment!r} is not allowed in a repository name", hint)
    if len(registry) + 1 + len(repository) > _MAX_NAME:
        raise _invalid(text, f"registry and repository have more than {_MAX_NAME} characters")


def _invalid(text: object, why: str, hint: str | None = None) -> InvalidReference:
    shown = repr(text) if len(repr(text)) < 200 else f"{repr(text)[:200]}..."
    return InvalidReference(
        f"{shown} is not an artifact reference: {why}",
        remedy=hint or "write HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@sha256:...",
    )
