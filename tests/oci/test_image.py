"""Images that hold a module: right for container runtimes, and the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.oci.fake_registry import FakeRegistry
from wasmlab.cli import build_app
from wasmlab.errors import InvalidModule, InvalidReference, OCIError
from wasmlab.oci import image
from wasmlab.oci.artifact import Manifest, parse_manifest, select_platform, select_wasm_layer
from wasmlab.oci.client import Client

MODULE = b"\0asm\x01\0\0\0" + bytes(200)


def layer_of(built: image.Image) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(built.blobs[1][1]))


def test_the_articles_image() -> None:
    built = image.module_image(MODULE, path="/hello.wasm")
    manifest = json.loads(built.manifest)
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert built.config["config"]["Cmd"] == ["/hello.wasm"]
    assert built.config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert (built.config["os"], built.config["architecture"]) == ("linux", "amd64")
    with layer_of(built) as tar:
        (entry,) = tar.getmembers()
        assert (entry.name, entry.mode, entry.uid, entry.mtime) == ("hello.wasm", 0o755, 0, 0)
        extracted = tar.extractfile(entry)
        assert extracted is not None and extracted.read() == MODULE


def test_what_a_manifest_names_is_what_it_comes_with() -> None:
    for built in (image.module_image(MODULE), image.wasm_layer_image(MODULE), image.artifact_image(MODULE)):
        manifest = json.loads(built.manifest)
        named = [manifest["config"], *manifest["layers"]]
        for descriptor, (own, data) in zip(named, built.blobs, strict=True):
            assert descriptor["digest"] == own.digest == "sha256:" + hashlib.sha256(data).hexdigest()
            assert descriptor["size"] == len(data)


def test_the_same_content_gives_the_same_digest() -> None:
    files = {"/b/x.wasm": MODULE, "/a.wasm": MODULE}
    first = image.scratch_image(files, cmd=["/a.wasm"])
    second = image.scratch_image(dict(reversed(files.items())), cmd=["/a.wasm"])
    assert first.digest == second.digest
    assert first.digest != image.scratch_image(files, cmd=["/b/x.wasm"]).digest
    # Pinned: a change of the bytes is a change of every published digest, and has to be meant.
    assert image.module_image(MODULE).digest == DIGESTS["module"]
    assert image.wasm_layer_image(MODULE).digest == DIGESTS["layer"]
    assert image.both_worlds(MODULE).digest == DIGESTS["both"]


DIGESTS = {
    "module": "sha256:940e2ee4e19a6a230b551dcccbf48a705d36ee607d7f58aa5e1631bd61e6d538",
    "layer": "sha256:dfb1d49324678ab5ac82a599b3496e11924b67428da7168cece0808f434ac2c2",
    "both": "sha256:f68f939695360c04b97e76dbbed499af751c88989615dc333dcf714c1411e120",
}


def test_directories_come_before_what_is_in_them() -> None:
    with layer_of(image.scratch_image({"/opt/app/x.wasm": MODULE}, cmd=["/opt/app/x.wasm"])) as tar:
        assert [(m.name, m.isdir()) for m in tar] == [
            ("opt", True),
            ("opt/app", True),
            ("opt/app/x.wasm", False),
        ]


@pytest.mark.parametrize("path", ["/../etc/passwd", "/", "/a/../../b"])
def test_a_path_may_not_leave_the_root(path: str) -> None:
    with pytest.raises(OCIError, match="cannot be a file of an image"):
        image.scratch_image({path: b""})


def test_environment_entrypoint_and_directory() -> None:
    built = image.scratch_image(
        {"/x": b""}, entrypoint=["/x"], cmd=["a"], env={"K": "v=w"}, working_dir="/data"
    )
    assert built.config["config"] == {
        "Env": ["K=v=w"],
        "Entrypoint": ["/x"],
        "Cmd": ["a"],
        "WorkingDir": "/data",
    }


def test_the_wasm_layer_image_has_no_root_file_system() -> None:
    built = image.wasm_layer_image(MODULE, args=["--flag"])
    assert (built.config["os"], built.config["architecture"]) == ("wasip1", "wasm")
    assert built.config["rootfs"]["diff_ids"] == []
    assert built.config["config"]["Entrypoint"] == ["/module.wasm"]
    assert built.config["config"]["Cmd"] == ["--flag"]
    (layer,) = json.loads(built.manifest)["layers"]
    assert layer["mediaType"] == "application/wasm"
    assert built.blobs[1][1] == MODULE


@pytest.mark.parametrize("build", [image.module_image, image.wasm_layer_image, image.both_worlds])
def test_only_modules_are_packed(build: object) -> None:
    with pytest.raises(InvalidModule):
        build(b"\x7fELF\x02\x01\x01\x00")  # type: ignore[operator]


def test_one_index_serves_both_worlds() -> None:
    index = image.both_worlds(MODULE, path="/hello.wasm")
    document = json.loads(index.manifest)
    platforms = {(e["platform"]["os"], e["platform"]["architecture"]) for e in document["manifests"]}
    assert platforms == {("linux", "amd64"), ("linux", "arm64"), ("wasip1", "wasm")}
    # What our own WASM node does with it:
    chosen = select_platform(Manifest(index.manifest, index.digest, index.media_type, document))
    artifact = next(one for one in index.images if one.digest == chosen.digest)
    layer = select_wasm_layer(parse_manifest(artifact.manifest))
    assert layer.digest == "sha256:" + hashlib.sha256(MODULE).hexdigest()
    # What containerd does: linux and its architecture. The layer is there once.
    linux = [one for one in index.images if one.os == "linux"]
    assert len({one.blobs[1][0].digest for one in linux}) == 1
    assert len({one.digest for one in linux}) == 2


def test_push_and_read_back(registry: FakeRegistry, tmp_path: Path) -> None:
    index = image.both_worlds(MODULE)
    ref = f"{registry.host}/lab/hello:v1"
    pushed = Client().push_image(index, ref)
    assert pushed.digest == index.digest
    assert pushed.platforms == ("linux/amd64", "linux/arm64", "wasip1/wasm")
    pulled = Client().pull(ref, tmp_path / "out.wasm")
    assert pulled.manifest_digest == index.digest
    assert (tmp_path / "out.wasm").read_bytes() == MODULE
    # Pushed again, nothing is uploaded again.
    before = registry.count("POST", "/blobs/uploads")
    Client().push_image(index, ref)
    assert registry.count("POST", "/blobs/uploads") == before


def test_pushing_to_another_digest_is_refused(registry: FakeRegistry) -> None:
    with pytest.raises(InvalidReference, match="has the digest"):
        Client().push_image(image.module_image(MODULE), f"{registry.host}/x@sha256:{'0' * 64}")
    assert registry.count("PUT", "/manifests/") == 0


def test_the_archive_is_an_oci_layout(tmp_path: Path) -> None:
    index = image.both_worlds(MODULE)
    path = tmp_path / "image.tar"
    path.write_bytes(image.archive(index, "wasmlab.dev/hello:v1"))
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True)
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "wasmlab.dev/hello:v1"
    for blob in (tmp_path / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


@pytest.mark.parametrize(
    ("target", "platforms"),
    [
        ("node", ["wasip1/wasm"]),
        ("containerd", ["linux/amd64", "linux/arm64"]),
        ("both", ["linux/amd64", "linux/arm64", "wasip1/wasm"]),
        ("layer", ["wasip1/wasm"]),
    ],
)
def test_the_pack_command(registry: FakeRegistry, module: Path, target: str, platforms: list[str]) -> None:
    ref = f"{registry.host}/lab/hello:v1"
    result = CliRunner().invoke(
        build_app("oci"), ["oci", "pack", str(module), ref, "--for", target, "--json"]
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["platforms"] == platforms
    assert facts["digest"] == Client().resolve(ref)


def test_an_artifact_has_no_place_for_arguments(registry: FakeRegistry, module: Path) -> None:
    words = ["oci", "pack", str(module), f"{registry.host}/x:v1", "--for", "node", "--arg", "x"]
    assert CliRunner().invoke(build_app("oci"), words).exit_code == 2
    assert registry.count("PUT", "/manifests/") == 0
