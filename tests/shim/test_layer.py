"""Images whose only layer is the module: what can be told without containerd.

That it works under containerd 2 is tested in tests/integration/test_containerd_wasm.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wasmlab.shim import layer
from wasmlab.shim.bundle import Bundle, BundleError, Process, read_module

MODULE = b"\0asm\x01\0\0\0"


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs", "/var/lib/containerd"),
        ("lowerdir=/d/io.containerd.snapshotter.v1.overlayfs/snapshots/2/fs:/other", "/d"),
        ("/somewhere/else", None),
        ("rw", None),
    ],
)
def test_mounts_say_where_containerd_keeps_its_data(source: str, root: str | None) -> None:
    assert layer.data_directory(["rbind", source]) == root


def install_ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    program = tmp_path / "ctr"
    program.write_text(f"#!/bin/sh\necho REF TYPE DIGEST SIZE\necho name type {digest} 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(layer, "_ctr", lambda _: str(program))


def blob(root: Path, name: str, content: bytes) -> str:
    directory = root / "io.containerd.content.v1.content/blobs/sha256"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / (name * 64)).write_bytes(content)
    return f"sha256:{name * 64}"


@pytest.mark.parametrize("kind", ["application/wasm", "application/vnd.oci.image.layer.v1.tar"])
def test_only_a_module_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    module = blob(tmp_path, "a", MODULE)
    manifest = blob(tmp_path, "b", json.dumps({"layers": [{"mediaType": kind, "digest": module}]}).encode())
    install_ctr(tmp_path, monkeypatch, manifest)
    source = f"{tmp_path}/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"
    found = layer.find([source], "/run/c.sock", "k8s.io", "id", "name")
    assert (found is not None) == (kind == "application/wasm")
    if found:
        assert Path(found).read_bytes() == MODULE


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:00", ""])
def test_a_digest_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    install_ctr(tmp_path, monkeypatch, digest)
    source = f"{tmp_path}/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"
    assert layer.find([source], "/run/c.sock", "k8s.io", "id", "name") is None


def test_a_file_in_the_root_file_system_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "layer").write_bytes(MODULE + b"layer")

    def bundle(layer_file: str | None) -> Bundle:
        return Bundle(
            id="x",
            path=str(tmp_path),
            rootfs=str(tmp_path / "rootfs"),
            read_only=False,
            process=Process(args=("/module.wasm",), env=()),
            mounts=(),
            annotations={},
            cgroup="",
            layer=layer_file,
        )

    with pytest.raises(BundleError, match="no such module"):
        read_module(bundle(None), bundle(None).process)
    assert read_module(bundle(str(tmp_path / "layer")), bundle(None).process)[1] == MODULE + b"layer"
    (tmp_path / "rootfs/module.wasm").write_bytes(MODULE + b"root")
    assert read_module(bundle(str(tmp_path / "layer")), bundle(None).process)[1] == MODULE + b"root"
