"""What containerd wants run: the bundle's ``config.json``, read and judged. Opens files, changes nothing.

References
----------
OCI runtime-spec v1.1 ``config.md``, ``config-linux.md``; containerd CRI annotations ``pkg/cri/annotations``.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from wasmlab.shim import kernel
from wasmlab.shim.cgroups import path_of

ENGINE_ANNOTATION = "wasmlab.dev/engine"
_CONTAINER_TYPE = "io.kubernetes.cri.container-type"
_SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
_CONTAINER_NAME = "io.kubernetes.cri.container-name"
_TERMINATION_LOG = "/dev/termination-log"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAGIC = b"\0asm"
MAX_MODULE_BYTES = 1 << 30


class BundleError(Exception):
    """The bundle cannot be run; the message is for the user (``kubectl describe`` shows it)."""


@dataclass(frozen=True)
class Process:
    """An OCI process, as far as it means something to a WASI program."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: int = 0
    oom_score_adj: int | None = None

    @classmethod
    def from_spec(cls, value: dict[str, Any]) -> Process:
        """Read ``process`` of an OCI spec."""
        user = value.get("user") or {}
        pairs = (one.partition("=") for one in value.get("env") or [])
        effective = (value.get("capabilities") or {}).get("effective") or []
        return cls(
            args=tuple(value.get("args") or ()),
            env=tuple((name, text) for name, _, text in pairs),
            cwd=value.get("cwd") or "/",
            uid=int(user.get("uid", 0)),
            gid=int(user.get("gid", 0)),
            groups=tuple(user.get("additionalGids") or ()),
            capabilities=kernel.capability_mask(effective),
            oom_score_adj=value.get("oomScoreAdj"),
        )


@dataclass(frozen=True)
class Bundle:
    """A container, as its ``config.json`` describes it."""

    id: str
    path: str
    rootfs: str
    read_only: bool
    process: Process
    mounts: tuple[dict[str, Any], ...]
    annotations: dict[str, str]
    cgroup: str
    resources: dict[str, Any] = field(default_factory=dict)
    network: str | None = None
    """Path of the network namespace to join; "" to make one; None to stay."""
    layer: str | None = None
    """The host's file that is the image's only layer, a module, for images without a root file system."""

    @property
    def is_sandbox(self) -> bool:
        """Whether it is a pod's pause container: it holds the pod together and runs nothing."""
        return self.annotations.get(_CONTAINER_TYPE) == "sandbox"

    @property
    def memory_limit_bytes(self) -> int | None:
        """The memory limit, if there is one."""
        limit = (self.resources.get("memory") or {}).get("limit") or 0
        return limit if 0 < limit < 1 << 62 else None

    def engine(self, default: str) -> str:
        """Return the engine that the annotations ask for."""
        return engine_of(self.annotations, default)

    def termination_log(self) -> str | None:
        """Return the host's file behind ``/dev/termination-log``, if the kubelet gave one."""
        return next((one["source"] for one in self.mounts if one["destination"] == _TERMINATION_LOG), None)


def engine_of(annotations: dict[str, str], default: str) -> str:
    """Return the engine that annotations ask for, that of the container (``wasmlab.dev/engine.<name>``) first."""
    name = annotations.get(_CONTAINER_NAME, "")
    return annotations.get(f"{ENGINE_ANNOTATION}.{name}") or annotations.get(ENGINE_ANNOTATION) or default


def group_of(config: dict[str, Any], container: str) -> str:
    """Return the id of the pod that a container belongs to (its own id if to none): one shim serves it."""
    return (config.get("annotations") or {}).get(_SANDBOX_ID) or container


def load(path: str, container: str) -> Bundle:
    """Read the bundle at `path`.

    Raises
    ------
    BundleError
        If ``config.json`` is missing or makes no sense.
    """
    try:
        with open(f"{path}/config.json", "rb") as stream:
            config = json.load(stream)
        linux = config.get("linux") or {}
        root = config.get("root") or {}
        rootfs = os.path.join(path, root.get("path") or "rootfs")
        network = None
        for one in linux.get("namespaces") or []:
            if one.get("type") == "network":
                network = one.get("path") or ""
            if one.get("type") == "user":
                raise BundleError(
                    "user namespaces are not supported by this runtime: set hostUsers: true in the pod"
                )
        return Bundle(
            id=container,
            path=path,
            rootfs=rootfs,
            read_only=bool(root.get("readonly")),
            process=Process.from_spec(config.get("process") or {}),
            mounts=tuple(config.get("mounts") or ()),
            annotations=dict(config.get("annotations") or {}),
            cgroup=path_of(linux.get("cgroupsPath") or "", container),
            resources=linux.get("resources") or {},
            network=network,
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"cannot read {path}/config.json: {error}") from error


def candidates(process: Process) -> list[str]:
    """Return where a module called ``args[0]`` may be, first choice first.

    As execvp: a name with a slash is a path (relative to the working directory); else PATH is searched. Images made
    for WASM often have no PATH and name the module plainly, so the working directory and the root come last.
    """
    name = process.args[0] if process.args else ""
    if not name:
        return []
    if "/" in name:
        return [os.path.normpath(os.path.join("/", process.cwd, name))]
    path = dict(process.env).get("PATH") or _DEFAULT_PATH
    places = [*(one for one in path.split(":") if one.startswith("/")), process.cwd, "/"]
    return [os.path.normpath(os.path.join("/", place, name)) for place in dict.fromkeys(places)]


def _open(bundle: Bundle, path: str) -> int:
    """Open a file of the container, where the container would see it: bind mounts hide what is below them."""
    best: tuple[str, str] = ("", bundle.rootfs)
    for one in bundle.mounts:
        place = os.path.normpath(one["destination"])
        is_bind = "bind" in (one.get("type") or "") or {"bind", "rbind"} & set(one.get("options") or ())
        covers = path == place or path.startswith(place.rstrip("/") + "/")
        if is_bind and covers and len(place) >= len(best[0]):
            best = (place, one["source"])
    place, source = best
    if path == place:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    return kernel.open_in_root(source, path[len(place) :] or "/")


def read_module(bundle: Bundle, process: Process) -> tuple[str, bytes]:
    """Return (path, content) of the module that ``args[0]`` names.

    Raises
    ------
    BundleError
        If there is none, or the file is something else; the message says what.
    """
    if not process.args:
        raise BundleError(
            "the container has no command: set CMD in the image, or command in the pod, to the module"
        )
    tried = candidates(process)
    refused = ""
    for path in tried:
        try:
            fd = _open(bundle, path)
        except OSError as error:
            refused = refused or ("" if isinstance(error, FileNotFoundError) else f": {error.strerror}")
            continue
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            refused = refused or ": it is not a file"
            continue
        with open(fd, "rb") as stream:
            if info.st_size > MAX_MODULE_BYTES:
                raise BundleError(f"{path} has {info.st_size} bytes; a module may have {MAX_MODULE_BYTES}")
            content = stream.read()
        if content[:4] != _MAGIC:
            raise BundleError(_what_it_is(path, content))
        return path, content
    if bundle.layer is not None:
        with open(bundle.layer, "rb") as stream:
            return tried[0], stream.read()
    where = (
        tried[0]
        if len(tried) == 1
        else f"{process.args[0]} in {', '.join(os.path.dirname(one) for one in tried)}"
    )
    raise BundleError(f"no such module in the image: {where}{refused}")


def _what_it_is(path: str, content: bytes) -> str:
    if content[:4] == b"\x7fELF":
        kind = "an ELF program for the host"
    elif content[:2] == b"#!":
        kind = "a script"
    elif not content:
        kind = "an empty file"
    elif _looks_like_text_format(content):
        kind = "WebAssembly text; compile it with wat2wasm"
    else:
        kind = f"it begins with {content[:4].hex(' ')}"
    return (
        f"{path} is not a WASM module ({kind}). This runtime class runs WASM modules only: run ordinary containers "
        f"without runtimeClassName"
    )


def _looks_like_text_format(content: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return content[:256].decode().lstrip().startswith(("(module", "(component"))
    return False


def names_module(bundle: Bundle, process: Process) -> bool:
    """Whether ``args[0]`` names a module in the container (decides what an exec means)."""
    for path in candidates(process):
        try:
            fd = _open(bundle, path)
        except OSError:
            continue
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, 4, 0) == _MAGIC
        finally:
            os.close(fd)
    return False
