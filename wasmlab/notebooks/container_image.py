"""The smallest ordinary container image: one layer with one text file. Notebook 05 shows that a WASM node refuses it.

It is written by hand, against the registry's six endpoints, because the lab's own client pushes modules and nothing
else. No credentials: it is meant for the embedded registry.

References
----------
OCI image specification 1.1, manifest.md and config.md; OCI distribution specification 1.1, "Pushing".
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from wasmlab.errors import RegistryUnavailable
from wasmlab.oci.reference import Reference

_TIMEOUT_S = 15.0
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def push(reference: str) -> str:
    """Push a container image and return its reference.

    Raises
    ------
    RegistryUnavailable
        If the registry cannot be reached or refuses.
    """
    ref = Reference.parse(reference)
    base = f"{'http' if ref.is_loopback else 'https'}://{ref.registry}/v2/{ref.repository}"
    archive = _archive()
    layer = gzip.compress(archive, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(archive)]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _upload(base, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_upload(base, layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    _send("PUT", f"{base}/manifests/{ref.target}", json.dumps(manifest).encode(), _MANIFEST)
    return reference


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content = b"#!/bin/sh\necho hello\n"
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _upload(base: str, data: bytes, media_type: str) -> dict[str, Any]:
    digest = _digest(data)
    location = urllib.parse.urljoin(f"{base}/", _send("POST", f"{base}/blobs/uploads/", b"")["Location"])
    mark = "&" if "?" in location else "?"
    _send("PUT", f"{location}{mark}digest={digest}", data, "application/octet-stream")
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _send(method: str, url: str, data: bytes, media_type: str = "") -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    request = urllib.request.Request(url, data, headers, method=method)
    # No proxy: the registry is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return answer.headers
    except (urllib.error.URLError, TimeoutError) as error:
        raise RegistryUnavailable(
            f"{method} {url.partition('?')[0]} failed: {error}",
            remedy="does the registry run, without a login?",
        ) from error
