"""Environment and arguments of a container, as the kubelet makes them. Pure.

What a container refers to (ConfigMaps, Secrets) is named by `references`, fetched by the caller, and handed to `build`.
A source that this node cannot serve raises `ConfigError`: the container is refused with CreateContainerConfigError,
because a module that starts without a variable it was promised is worse than one that does not start.

The order is the kubelet's: ``envFrom``, then ``env`` (which sees what came before it, and the variables of Services),
then those of Services that nothing else has named.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`` (``makeEnvironmentVariables``, ``getServiceEnvVarMap``),
``k8s.io/kubernetes/third_party/forked/golang/expansion`` (``$(VAR)``, ``$$``).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wasmlab.node.spec import downward, servicelinks
from wasmlab.node.spec.downward import NodeSide as NodeSide

Json = dict[str, Any]
Reference = tuple[str, str]  # ("ConfigMap" | "Secret", name)

_SYNTAX = re.compile(r"\$(?:\$|\(([^)]*)\))")
_ENV_NAME = re.compile(r"^[^=\x00]+$")


class ConfigError(Exception):
    """A container's configuration cannot be made; the message goes into the pod's status."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; ``$$`` is a dollar; an unknown name stays as it is written."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _SYNTAX.sub(one, text)


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """As `expand`, but every name must be known (``subPathExpr``).

    Raises
    ------
    ConfigError
        With the first name that is not.
    """
    for match in _SYNTAX.finditer(text):
        if match.group(1) is not None and match.group(1) not in variables:
            raise ConfigError(f"missing value for {match.group(1)!r} in subPathExpr {text!r}")
    return expand(text, variables)


def argv(container: Json, variables: Mapping[str, str], module_name: str) -> tuple[str, ...]:
    """The module's arguments: ``command`` replaces argv[0] (and what follows it), ``args`` come after.

    An artifact has no entry point of its own as a container image has; its argv[0] is the module's name.
    """
    command = [expand(part, variables) for part in container.get("command") or ()] or [module_name]
    return (*command, *(expand(part, variables) for part in container.get("args") or ()))


def references(container: Json) -> list[tuple[Reference, bool]]:
    """Which objects the environment needs, and whether each may be missing."""
    found: list[tuple[Reference, bool]] = []
    for source in container.get("envFrom") or ():
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                found.append(((kind, source[key].get("name", "")), bool(source[key].get("optional"))))
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if key in value_from:
                ref = value_from[key]
                found.append(((kind, ref.get("name", "")), bool(ref.get("optional"))))
    return found


def build(
    container: Json,
    pod: Json,
    side: NodeSide,
    objects: Mapping[Reference, Json | None],
    services: Iterable[Json] = (),
) -> dict[str, str]:
    """The container's variables in order.

    Parameters
    ----------
    container, pod : dict
        As the API has them.
    side : NodeSide
        The node's part of the downward API.
    objects : mapping
        What `references` named; None for one that does not exist.
    services : iterable of dict
        The cluster's Services, as far as the node knows them.

    Raises
    ------
    ConfigError
        Something that is not optional is missing, or a source is not supported here.
    """
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                ref = source[key]
                data = _data(objects, kind, ref.get("name", ""), bool(ref.get("optional")), pod)
                result.update({prefix + k: v for k, v in data.items() if _ENV_NAME.match(prefix + k)})
    namespace = pod["metadata"]["namespace"]
    linked = servicelinks.variables(services, namespace, pod["spec"].get("enableServiceLinks", True))
    for variable in container.get("env") or ():
        name = variable["name"]
        value_from = variable.get("valueFrom")
        if not value_from:
            result[name] = expand(variable.get("value") or "", linked | result)
        elif "fieldRef" in value_from or "resourceFieldRef" in value_from:
            try:
                result[name] = downward.value(value_from, pod, container, side)
            except ValueError as error:
                raise ConfigError(str(error)) from None
        elif "configMapKeyRef" in value_from or "secretKeyRef" in value_from:
            kind = "ConfigMap" if "configMapKeyRef" in value_from else "Secret"
            ref = value_from.get("configMapKeyRef") or value_from["secretKeyRef"]
            optional = bool(ref.get("optional"))
            data = _data(objects, kind, ref.get("name", ""), optional, pod)
            if ref["key"] in data:
                result[name] = data[ref["key"]]
            elif not optional:
                raise ConfigError(
                    f"couldn't find key {ref['key']} in {kind} {namespace}/{ref.get('name', '')}"
                )
        else:
            what = ", ".join(value_from)
            raise ConfigError(f"variable {name}: {what} is not supported by this node")
    return linked | result


def _data(
    objects: Mapping[Reference, Json | None], kind: str, name: str, optional: bool, pod: Json
) -> dict[str, str]:
    found = objects.get((kind, name))
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{kind.lower()} "{name}" not found in namespace {pod["metadata"]["namespace"]}')
    data: Mapping[str, Any] = found.get("data") or {}
    if kind == "ConfigMap":
        return {k: str(v) for k, v in data.items()}
    result = {}
    for key, value in data.items():
        try:
            result[key] = base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f'secret "{name}": the value of {key} is not text') from None
    return result


def pairs(variables: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """As the sandbox wants them."""
    return tuple(variables.items())
