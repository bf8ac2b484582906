"""What is in a volume that the API fills: configMap, secret, downwardAPI, projected. Pure.

`references` and `token_requests` name what a volume needs; the caller fetches it; `files` puts it together. The
messages are the kubelet's: they end up in FailedMount events, which people search for.

References
----------
``k8s.io/kubernetes/pkg/volume/{configmap,secret,downwardapi,projected}`` (``MakePayload``, ``collectData``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.node.spec import downward
from wasmlab.node.spec.downward import NodeSide
from wasmlab.node.spec.env import Reference

Json = dict[str, Any]

KINDS = ("configMap", "secret", "downwardAPI", "projected")
_DEFAULT_MODE = 0o644
_OWNER, _READABLE = 0o700, 0o400
# projected.go: what the API server fills in, too.
_TOKEN_SECONDS = 3600


class PayloadError(Exception):
    """The volume cannot be filled; the message says what is missing."""


@dataclass(frozen=True)
class File:
    """One file of a volume."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class TokenRequest:
    """A service account token that a volume wants."""

    audience: str
    seconds: int


def kind_of(volume: Json) -> str:
    """The volume's type: the one key beside its name."""
    return next((key for key in volume if key != "name"), "nothing")


def sources(volume: Json) -> Iterator[tuple[str, Json, int]]:
    """(kind, source, default mode) of each thing that the volume shows."""
    kind = kind_of(volume)
    body = volume[kind] or {}
    mode = body.get("defaultMode")
    mode = _DEFAULT_MODE if mode is None else int(mode)
    if kind != "projected":
        yield kind, body, mode
        return
    for one in body.get("sources") or ():
        for inner, source in one.items():
            yield inner, source or {}, mode


def _name(kind: str, source: Json) -> str:
    # A secret volume says secretName, a secret in a projected one says name.
    return source.get("secretName") or source.get("name") or ""


def references(volume: Json) -> list[Reference]:
    """Which ConfigMaps and Secrets it needs."""
    names = {"configMap": "ConfigMap", "secret": "Secret"}
    return [(names[kind], _name(kind, source)) for kind, source, _ in sources(volume) if kind in names]


def token_requests(volume: Json) -> list[TokenRequest]:
    """Which tokens it needs."""
    return [_request(source) for kind, source, _ in sources(volume) if kind == "serviceAccountToken"]


def _request(source: Json) -> TokenRequest:
    return TokenRequest(source.get("audience") or "", int(source.get("expirationSeconds") or _TOKEN_SECONDS))


def files(
    volume: Json,
    pod: Json,
    side: NodeSide,
    objects: Mapping[Reference, Json | None],
    tokens: Mapping[TokenRequest, str],
) -> dict[str, File]:
    """All files by path.

    Parameters
    ----------
    volume, pod : dict
        As the API has them.
    side : NodeSide
        The node's part of the downward API.
    objects : mapping
        What `references` named; None for one that does not exist.
    tokens : mapping
        What `token_requests` named.

    Raises
    ------
    PayloadError
        Something that is not optional is missing, or the volume shows what this node does not have.
    """
    result: dict[str, File] = {}
    for kind, source, mode in sources(volume):
        if kind == "configMap":
            result |= _keyed("configmap", source, mode, objects.get(("ConfigMap", _name(kind, source))))
        elif kind == "secret":
            # Only the module's own user may read it; the directory around it is as private.
            keyed = _keyed("secret", source, mode, objects.get(("Secret", _name(kind, source))))
            result |= {path: File(one.data, one.mode & _OWNER | _READABLE) for path, one in keyed.items()}
        elif kind == "downwardAPI":
            for item in source.get("items") or ():
                result[item["path"]] = File(_field(item, pod, side), _mode(item, mode))
        elif kind == "serviceAccountToken":
            token = tokens[_request(source)]
            result[source["path"]] = File(token.encode(), mode & _OWNER | _READABLE)
        else:
            raise PayloadError(f"a projected volume's source {kind} is not supported by this node")
    return result


def _field(item: Json, pod: Json, side: NodeSide) -> bytes:
    named = (item.get("resourceFieldRef") or {}).get("containerName")
    containers = (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))
    container = next((c for c in containers if c["name"] == named), pod["spec"]["containers"][0])
    try:
        return downward.value(item, pod, container, side).encode()
    except ValueError as error:
        raise PayloadError(str(error)) from None


def _mode(item: Json, default: int) -> int:
    return default if item.get("mode") is None else int(item["mode"])


def _keyed(what: str, source: Json, mode: int, found: Json | None) -> dict[str, File]:
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise PayloadError(f'{what} "{_name(what, source)}" not found')
    data = _data(what, found)
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    result = {}
    for item in items:
        if item["key"] in data:
            result[item["path"]] = File(data[item["key"]], _mode(item, mode))
        elif not optional:
            key = "config key" if what == "configmap" else "secret key"
            raise PayloadError(f"{what} references non-existent {key}: {item['key']}")
    return result


def _data(what: str, found: Json) -> dict[str, bytes]:
    plain: Json = found.get("data") or {}
    encoded = {**plain} if what == "secret" else {**(found.get("binaryData") or {})}
    try:
        result = {key: base64.b64decode(value) for key, value in encoded.items()}
    except binascii.Error:
        raise PayloadError(f"a value of {what} {found['metadata']['name']} is not base64") from None
    if what == "configmap":
        result |= {key: str(value).encode() for key, value in plain.items()}
    return result


def renew_after(life_s: float) -> float:
    """After how many seconds of a token's life to ask for another: 80 % of them, or a day.

    References
    ----------
    ``k8s.io/kubernetes/pkg/kubelet/token/token_manager.go`` (``requiresRefresh``).
    """
    return min(0.8 * life_s, 24 * 3600.0)
