"""Find the module of an image that has no root file system: its only layer *is* the module (``application/wasm``).

containerd 2 pulls such images, verifies the layer and keeps it among its blobs, but mounts nothing. The blob's file is
found without containerd's content API (gRPC): the mounts of the container say where containerd keeps its data, and
``ctr``, which lies beside containerd, says which image the container was made from.

References
----------
containerd: plugins/content/local (layout of blobs), core/unpack (layers of unknown types are skipped).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterable

LAYER_TYPE = "application/wasm"
IMAGE_NAME = "io.kubernetes.cri.image-name"
_ROOT = re.compile(r"(/[^:,=]*)/io\.containerd\.snapshotter\.v1\.")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 5.0
_MAX_MANIFEST_BYTES = 4 << 20


def data_directory(sources: Iterable[str]) -> str | None:
    """Return containerd's root directory, from the sources and options of a container's mounts. Pure."""
    for text in sources:
        if match := _ROOT.search(text):
            return match[1]
    return None


def find(
    sources: Iterable[str], address: str, namespace: str, container: str, image: str | None
) -> str | None:
    """Return the file that is the only layer of the container's image, or None if the image is of the usual kind.

    Parameters
    ----------
    sources : iterable of str
        Sources and options of the mounts that make up the container's root file system.
    address : str
        containerd's socket.
    namespace, container : str
        As containerd calls them.
    image : str or None
        The image's name, if it is known; else containerd is asked.
    """
    root = data_directory(sources)
    if root is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        ctr = [_ctr(address), "--address", address, "--namespace", namespace]
        if image is None:
            image = json.loads(_run([*ctr, "containers", "info", container]))["Image"]
        listed = _run([*ctr, "images", "list", f"name=={image}"]).splitlines()[1:]
        manifest = _read(_blob(root, listed[0].split()[2])) if listed else {}
        layers = manifest.get("layers") or []
        if len(layers) == 1 and layers[0]["mediaType"] == LAYER_TYPE:
            path = _blob(root, layers[0]["digest"])
            return path if os.path.isfile(path) else None
    return None


def _blob(root: str, digest: str) -> str:
    match = re.fullmatch(r"(sha256|sha512):([0-9a-f]+)", digest)
    if match is None:
        raise ValueError(f"{digest!r} is no digest")
    return f"{root}/io.containerd.content.v1.content/blobs/{match[1]}/{match[2]}"


def _read(path: str) -> dict:
    if os.path.getsize(path) > _MAX_MANIFEST_BYTES:
        raise ValueError(f"{path} is too large for a manifest")
    with open(path, "rb") as stream:
        value = json.load(stream)
    return value if isinstance(value, dict) else {}


def _ctr(address: str) -> str:
    """Return the ctr that belongs to the containerd which listens at `address`: the two are built together."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(address)
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        beside = f"{os.path.dirname(os.readlink(f'/proc/{pid}/exe'))}/ctr"
        if os.access(beside, os.X_OK):
            return beside
    return "ctr"


def _run(argv: list[str]) -> str:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        env={"PATH": _PATH},
    )
    done.check_returncode()
    return done.stdout
