"""Find the credentials for an artifact: the docker configuration, its helpers, and Kubernetes pull secrets.

Nothing is asked of a helper before a registry demands authentication, and no secret appears in a repr or a message.

References
----------
docker CLI, docs/reference/commandline/login (``auths``, ``credHelpers``, ``credsStore``); Kubernetes,
pkg/credentialprovider/keyring.go (how a key matches an image) and config.go (``.dockercfg``).
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from wasmlab.errors import CredentialError
from wasmlab.oci.auth import Secret
from wasmlab.oci.reference import DOCKER_HUB, Reference

HELPER_TIMEOUT_S = 15.0
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# docker-credential-helpers, credentials/error.go: the one failure that means "there are none".
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True)
class _Source:
    """One configuration: where it came from, plain entries by normalised key, helpers by registry."""

    origin: str
    entries: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None


class Credentials:
    """Credentials from any number of sources, asked in order.

    Use `from_docker_config`, `from_pull_secret` or `of` to get one; join several with ``|``.
    """

    def __init__(self, sources: Iterable[_Source] = ()) -> None:
        self._sources = tuple(sources)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(source.origin for source in self._sources) or 'none'})"

    def __or__(self, other: Credentials) -> Credentials:
        return Credentials(self._sources + other._sources)

    def __bool__(self) -> bool:
        return any(source.entries or source.helpers or source.store for source in self._sources)

    def fingerprint(self) -> str:
        """Return a digest of all that is in here, to tell one set of credentials from another."""
        parts = []
        for source in self._sources:
            entries = sorted((key, *astuple(secret)) for key, secret in source.entries.items())
            parts.append((source.origin, entries, sorted(source.helpers.items()), source.store))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @classmethod
    def of(cls, registry: str, username: str, password: str) -> Credentials:
        """Return the credentials of one registry.

        Parameters
        ----------
        registry : str
            ``host:port``.
        username : str
            Who logs in.
        password : str
            Or a token.
        """
        return cls([_Source("given", {_normalise(registry): Secret(username, password)})])

    @classmethod
    def from_docker_config(cls, path: Path | None = None) -> Credentials:
        """Read docker's configuration: `path`, else ``$DOCKER_CONFIG/config.json``, else ``~/.docker/config.json``.

        A file that does not exist means no credentials.

        Raises
        ------
        CredentialError
            If the file cannot be read or understood. The message never quotes it.
        """
        if path is None:
            base = os.environ.get("DOCKER_CONFIG")
            path = (Path(base) if base else Path.home() / ".docker") / "config.json"
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise CredentialError(
                f"cannot read {path}: {error.strerror}",
                remedy="fix the file's permissions or set DOCKER_CONFIG",
            ) from error
        return cls([_read_config(_parse(raw, str(path)), str(path))])

    @classmethod
    def from_pull_secret(cls, secret: Mapping[str, Any]) -> Credentials:
        """Read a Kubernetes pull secret.

        Parameters
        ----------
        secret : mapping
            A whole Secret object of type ``kubernetes.io/dockerconfigjson`` or ``kubernetes.io/dockercfg``, or the
            already decoded content of either.

        Raises
        ------
        CredentialError
            If it holds neither, or is damaged.
        """
        data = secret.get("data")
        if isinstance(data, Mapping) or "type" in secret or secret.get("kind") == "Secret":
            meta = secret.get("metadata")
            name = (
                f"pull secret {meta.get('name', '?')!r}" if isinstance(meta, Mapping) else "the pull secret"
            )
            for key in (".dockerconfigjson", ".dockercfg"):
                if isinstance(data, Mapping) and isinstance(data.get(key), str):
                    content = _parse(_unbase64(data[key], name), name)
                    break
            else:
                raise CredentialError(
                    f"{name} has neither .dockerconfigjson nor .dockercfg",
                    remedy="create it with `kubectl create secret docker-registry`",
                )
        else:
            name, content = "a pull secret", dict(secret)
        if "auths" not in content:  # the legacy form is the value of "auths" alone
            content = {"auths": content}
        # A secret's helpers would make the node run programs of somebody else's choosing.
        return cls([_read_config({"auths": content["auths"]}, name)])

    def candidates(self, ref: Reference) -> list[Secret]:
        """Return what may be tried for `ref`, best first. May run credential helpers, so it may block.

        Raises
        ------
        CredentialError
            If a helper fails or hangs.
        """
        found: list[Secret] = []
        for source in self._sources:
            helper = source.helpers.get(ref.registry) or source.store
            if ref.registry == DOCKER_HUB and not helper:
                helper = source.helpers.get("index.docker.io") or source.helpers.get(_DOCKER_HUB_KEY)
            if helper and (secret := _ask_helper(helper, _server(ref.registry))):
                found.append(secret)
            for key in sorted(source.entries, reverse=True):  # longer paths of one host come first
                if _matches(key, ref) and source.entries[key]:
                    found.append(source.entries[key])
        return list(dict.fromkeys(found))


def _parse(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # The parser's message may quote the text, secrets included: only say where.
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise CredentialError(
            f"{what} is not valid JSON{where}", remedy="correct it, or log in again"
        ) from None
    if not isinstance(value, dict):
        raise CredentialError(f"{what} is not a JSON object", remedy="log in again (docker login)")
    return value


def _read_config(config: Mapping[str, Any], what: str) -> _Source:
    auths = config.get("auths") or {}
    helpers = config.get("credHelpers") or {}
    if not isinstance(auths, Mapping) or not isinstance(helpers, Mapping):
        raise CredentialError(f"{what} has an `auths` or `credHelpers` that is not an object")
    entries = {
        _normalise(str(key)): _read_entry(value, f"the entry {key!r} of {what}")
        for key, value in auths.items()
        if isinstance(value, Mapping)
    }
    store = config.get("credsStore")
    return _Source(
        what,
        entries,
        {str(key): value for key, value in helpers.items() if isinstance(value, str) and value},
        store if isinstance(store, str) and store else None,
    )


def _read_entry(value: Mapping[str, Any], what: str) -> Secret:
    get: Callable[[str], str] = lambda key: str(value.get(key) or "")  # noqa: E731 (a local shorthand)
    username, password = get("username"), get("password")
    if get("auth"):
        try:
            decoded = _unbase64(get("auth"), what).decode()
        except UnicodeDecodeError:
            raise CredentialError(f"{what} has an `auth` that is not text", remedy="log in again") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise CredentialError(f"{what} has an `auth` that is not user:password", remedy="log in again")
        password = password.strip("\0")  # some versions of docker padded it
    return Secret(username, password, get("identitytoken"), get("registrytoken"))


def _unbase64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError(f"{what} is not valid base64", remedy="create it again") from None


def _normalise(key: str) -> str:
    """Return a key of ``auths`` as host[:port][/path]; the API version in it means the host itself."""
    # Taken apart by hand: keys are free text, and urlsplit raises on some of it.
    host, slash, path = key.partition("://")[2].partition("/") if "://" in key else key.partition("/")
    path = (slash + path).rstrip("/")
    if path in ("/v1", "/v2") or path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    host = host.rpartition("@")[2]
    return (DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host) + path


def _matches(key: str, ref: Reference) -> bool:
    """Say whether the key of an entry covers `ref`: host labels may be globs, ports must agree, paths are prefixes.

    The kubelet compares paths as plain text; here a prefix must end at a slash, so that ``host/team`` does not hand its
    password to ``host/team-other``.
    """
    host, _, path = key.partition("/")
    labels, wanted = host.split("."), ref.registry.split(".")
    if len(labels) != len(wanted) or not all(
        fnmatch.fnmatchcase(w.lower(), g.lower()) for w, g in zip(wanted, labels, strict=True)
    ):
        return False
    return not path or ref.repository == path or ref.repository.startswith(f"{path}/")


def _server(registry: str) -> str:
    return _DOCKER_HUB_KEY if registry == DOCKER_HUB else registry


def _ask_helper(name: str, server: str) -> Secret | None:
    program = f"docker-credential-{name}"
    found = shutil.which(program) if _HELPER_NAME.fullmatch(name) else None
    if not found:
        raise CredentialError(
            f"the docker configuration wants the credential helper {program}, which is not on the PATH",
            remedy="install it, or remove it from credHelpers / credsStore",
        )
    try:
        done = subprocess.run(
            [found, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CredentialError(
            f"the credential helper {program} did not answer within {HELPER_TIMEOUT_S:g} s",
            remedy="it may wait for input: run it by hand, or remove it from the docker configuration",
        ) from None
    except OSError as error:
        raise CredentialError(
            f"cannot run {found}: {error.strerror}", remedy="reinstall the helper"
        ) from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        if _NOT_FOUND in said.lower():
            return None
        raise CredentialError(
            f"the credential helper {program} failed with exit code {done.returncode}: {said[:200]}",
            remedy=f"try `echo {server} | {program} get`",
        )
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise CredentialError(
            f"the credential helper {program} answered something that is not its protocol"
        ) from None
    # docker-credential-helpers: this user name marks an identity token.
    return Secret(identity_token=secret) if username == "<token>" else Secret(username, secret)
