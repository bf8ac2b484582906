"""Other people's clients and our artifacts, in both directions; and how container clients refuse them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_registry import HELLO, start
from wasmlab.errors import PrerequisiteError, UnsupportedArtifact
from wasmlab.oci import Client, container_clients
from wasmlab.oci.artifact import LAYOUTS, Layout
from wasmlab.oci.digest import of_bytes

pytestmark = pytest.mark.integration
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs Debian's skopeo")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    child, host = start(tmp_path_factory.mktemp("registry"))
    yield host
    child.stop()


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wasm"
    path.write_bytes(HELLO)
    return path


def skopeo(*argv: str) -> str:
    done = subprocess.run(["skopeo", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_skopeo
@pytest.mark.parametrize("layout", LAYOUTS)
def test_skopeo_carries_our_artifact_unchanged(
    registry: str, hello: Path, tmp_path: Path, layout: Layout
) -> None:
    pushed = Client().push(hello, f"{registry}/ours/{layout}:v1", layout)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry}/ours/{layout}:v1")
    assert of_bytes(raw.encode()) == pushed.digest
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry}/ours/{layout}:v1", f"dir:{tmp_path}/d")
    assert (tmp_path / "d" / pushed.layer_digest.partition(":")[2]).read_bytes() == HELLO
    # Back into the registry by skopeo, out by us.
    skopeo("copy", "--dest-tls-verify=false", f"dir:{tmp_path}/d", f"docker://{registry}/copied/{layout}:v1")
    pulled = Client().pull(f"{registry}/copied/{layout}:v1", tmp_path / "out.wasm")
    assert (tmp_path / "out.wasm").read_bytes() == HELLO
    assert pulled.layer_digest == pushed.layer_digest


@needs_skopeo
def test_a_real_container_image_is_refused_by_us(registry: str, tmp_path: Path) -> None:
    layout = tmp_path / "image"
    (layout / "blobs" / "sha256").mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = of_bytes(data)
        (layout / "blobs" / "sha256" / digest.partition(":")[2]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    tar = bytes(10240)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [of_bytes(tar)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **blob(json.dumps(config).encode()),
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(tar)}],
    }
    entry = {"mediaType": manifest["mediaType"], **blob(json.dumps(manifest).encode())}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{registry}/images/busy:1")
    with pytest.raises(UnsupportedArtifact, match="is a container image, not a WASM artifact"):
        Client().pull(f"{registry}/images/busy:1", tmp_path / "out.wasm")
    assert not (tmp_path / "out.wasm").exists()


@pytest.mark.parametrize("client", ["skopeo", "podman", "ctr"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_container_clients_refuse_the_artifact(
    registry: str, hello: Path, client: str, layout: Layout
) -> None:
    if client not in container_clients.available():
        pytest.skip(f"needs {client} (and root for ctr)")
    ref = f"{registry}/ours/{layout}:refused"
    Client().push(hello, ref, layout)
    try:
        answer = container_clients.ask(client, ref)
    except PrerequisiteError as error:
        pytest.skip(str(error))
    assert answer.refused and not answer.recorded
    said = {"ctr": "mismatched image rootfs and manifest layers"}.get(client, "application/vnd.wasm.config.")
    assert said in answer.reason


def test_oras_py_pulls_what_we_push(registry: str, hello: Path, tmp_path: Path) -> None:
    oras = pytest.importorskip("oras.client", reason="needs PyPI oras")
    ref = f"{registry}/ours/oras:v1"
    Client().push(hello, ref, "cncf", title="hello.wasm")
    files = oras.OrasClient(insecure=True, hostname=registry).pull(target=ref, outdir=str(tmp_path / "o"))
    assert Path(files[0]).read_bytes() == HELLO


def test_we_pull_what_oras_py_pushes(registry: str, hello: Path, tmp_path: Path) -> None:
    oras = pytest.importorskip("oras.client", reason="needs PyPI oras")
    ref = f"{registry}/theirs/oras:v1"
    client = oras.OrasClient(insecure=True, hostname=registry)
    client.push(target=ref, files=[f"{hello}:application/wasm"], disable_path_validation=True)
    Client().pull(ref, tmp_path / "out.wasm")
    assert (tmp_path / "out.wasm").read_bytes() == HELLO
