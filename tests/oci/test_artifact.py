from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oci.properties import relaxed
from wasmlab.errors import InvalidModule, OCIError, UnsupportedArtifact, WasmlabError
from wasmlab.oci import artifact
from wasmlab.oci import media_types as mt
from wasmlab.oci.component import component_names
from wasmlab.oci.digest import of_bytes

MODULE = b"\0asm\x01\0\0\0"
HEX = "4c7915b4c1f9b0c13f962998e4199ceb00db39a4a7fa4554f40ae0bed83d9510"
IMAGE = {
    "schemaVersion": 2,
    "mediaType": mt.OCI_MANIFEST,
    "config": {"mediaType": mt.OCI_IMAGE_CONFIG, "digest": f"sha256:{HEX}", "size": 2},
    "layers": [{"mediaType": mt.OCI_LAYER_PREFIX + "v1.tar+gzip", "digest": f"sha256:{HEX}", "size": 5}],
}


def test_wasm_to_oci_manifest_is_the_documented_one_byte_for_byte() -> None:
    packed = artifact.pack_layer(f"sha256:{HEX}", 1624962)
    assert packed.config == b"{}"
    assert packed.manifest == (
        b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.wasm.config.v1+json",'
        b'"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},'
        b'"layers":[{"mediaType":"application/vnd.wasm.content.layer.v1+wasm",'
        b'"digest":"sha256:4c7915b4c1f9b0c13f962998e4199ceb00db39a4a7fa4554f40ae0bed83d9510","size":1624962}]}'
    )


def test_with_a_title_it_has_the_digest_that_wasm_to_oci_published() -> None:
    # Its README shows this push of testdata/hello.wasm; the digest comes out only with the file name in the manifest.
    packed = artifact.pack_layer(f"sha256:{HEX}", 1624962, title="testdata/hello.wasm")
    assert packed.manifest_digest == "sha256:9c82cbe576ee947c00435ac8053a800a1969f4757ae4a81f870f714674afc91a"


def test_cncf_layout() -> None:
    packed = artifact.pack(MODULE, "cncf")
    assert json.loads(packed.manifest) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json",
            "digest": of_bytes(packed.config),
            "size": len(packed.config),
        },
        "layers": [{"mediaType": "application/wasm", "digest": of_bytes(MODULE), "size": 8}],
    }
    config = json.loads(packed.config)
    assert (config["architecture"], config["os"], config["layerDigests"]) == (
        "wasm",
        "wasip1",
        [of_bytes(MODULE)],
    )
    assert artifact.pack(MODULE, "cncf") == packed  # no clock in it


def section(number: int, body: bytes) -> bytes:
    return bytes([number, len(body)]) + body


def name(text: str, form: int = 0) -> bytes:
    return bytes([form, len(text)]) + text.encode()


COMPONENT = (
    b"\0asm\x0d\0\x01\0"
    + section(7, b"\x00")
    + section(10, b"\x02" + name("wasi:cli/stdout@0.2.0", 1) + b"\x05\x00" + name("log") + b"\x01\x03")
    + section(
        11, b"\x02" + name("wasi:cli/run@0.2.0") + b"\x05\x01\x00" + name("f") + b"\x01\x02\x01\x01\x00"
    )
)


def test_a_component_lists_its_names() -> None:
    found = component_names(COMPONENT)
    assert found.imports == ("wasi:cli/stdout@0.2.0", "log")
    assert found.exports == ("wasi:cli/run@0.2.0", "f")
    config = json.loads(artifact.pack(COMPONENT, "cncf").config)
    assert config["os"] == "wasip2"
    assert config["component"] == {"exports": list(found.exports), "imports": list(found.imports)}


@relaxed
@given(st.integers(0, len(COMPONENT) - 1), st.binary(max_size=30))
def test_damaged_components_are_refused_or_read_but_never_crash(cut: int, junk: bytes) -> None:
    try:
        component_names(COMPONENT[:cut] + junk)
    except InvalidModule:
        pass


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        (b"\x7fELF\x02\x01\x01\0", "native program"),
        (b"(module)", "text format"),
        (b"", "compile"),
        (b"\0asm\x07\0\0\0", "version"),
    ],
)
def test_what_is_not_wasm_is_not_packed(head: bytes, hint: str) -> None:
    with pytest.raises(InvalidModule, match=hint):
        artifact.pack(head)


@pytest.mark.parametrize("layout", artifact.LAYOUTS)
def test_what_is_packed_is_found_again(layout: artifact.Layout) -> None:
    packed = artifact.pack(MODULE, layout)
    manifest = artifact.parse_manifest(packed.manifest, mt.OCI_MANIFEST)
    assert artifact.select_wasm_layer(manifest) == packed.layer
    assert manifest.layout == layout
    assert manifest.digest == packed.manifest_digest


def test_accepts_the_layers_of_other_tools() -> None:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{HEX}", "size": 8}
    oras = {
        "schemaVersion": 2,
        "mediaType": mt.OCI_MANIFEST,
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": {"mediaType": mt.OCI_EMPTY, "digest": f"sha256:{HEX}", "size": 2, "data": "e30="},
        "layers": [{**layer, "annotations": {mt.TITLE_ANNOTATION: "hello.wasm"}}],
    }
    assert artifact.select_wasm_layer(oras).digest == f"sha256:{HEX}"
    oras["layers"][0]["annotations"][mt.TITLE_ANNOTATION] = "hello.txt"  # type: ignore[index]
    with pytest.raises(UnsupportedArtifact):
        artifact.select_wasm_layer(oras)
    # containerd 2's WASM images: a container config over application/wasm.
    assert (
        artifact.select_wasm_layer({**IMAGE, "layers": [{**layer, "mediaType": mt.CNCF_LAYER}]}).size_bytes
        == 8
    )


def test_a_container_image_is_called_one() -> None:
    with pytest.raises(UnsupportedArtifact, match="is a container image, not a WASM artifact") as caught:
        artifact.select_wasm_layer(IMAGE)
    assert caught.value.media_type == mt.OCI_IMAGE_CONFIG


def test_two_modules_are_ambiguous() -> None:
    layer = artifact.pack(MODULE, "cncf").layer.as_dict()
    with pytest.raises(UnsupportedArtifact, match="2 WASM layers"):
        artifact.select_wasm_layer({**IMAGE, "layers": [layer, layer]})


def index(*platforms: dict[str, str]) -> artifact.Manifest:
    entries = [
        {"mediaType": mt.OCI_MANIFEST, "digest": of_bytes(bytes([n])), "size": 1, "platform": platform}
        for n, platform in enumerate(platforms)
    ]
    document = {"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": entries}
    return artifact.parse_manifest(json.dumps(document).encode())


def test_an_index_gives_its_wasm_manifest_and_prefers_preview_1() -> None:
    linux, wasip2 = {"os": "linux", "architecture": "amd64"}, {"os": "wasip2", "architecture": "wasm"}
    wasip1 = {"os": "wasip1", "architecture": "wasm"}
    assert artifact.select_platform(index(linux, wasip2)).digest == of_bytes(b"\1")
    assert artifact.select_platform(index(linux, wasip2, wasip1)).digest == of_bytes(b"\2")
    with pytest.raises(UnsupportedArtifact, match=r"linux/amd64.*container image, not a WASM artifact"):
        artifact.select_platform(index(linux))


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>hello</html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"layers": 3}',
        b"[" * 100_000,
        b'{"layers": [{"mediaType": "application/wasm", "digest": "sha256:zz", "size": 1}]}',
        b'{"layers": [{"mediaType": "application/wasm", "digest": "sha256:%s", "size": -1}]}' % HEX.encode(),
        b'{"layers": [{"mediaType": "application/wasm", "digest": "sha256:%s", "size": true}]}'
        % HEX.encode(),
        b'{"schemaVersion": 1, "fsLayers": []}',
        b" " * (artifact.MAX_MANIFEST_BYTES + 1),
    ],
)
def test_broken_manifests_are_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(OCIError) as caught:
        artifact.select_wasm_layer(artifact.parse_manifest(raw))
    assert caught.value.remedy


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@relaxed
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "layers": json_values,
            "config": json_values,
            "manifests": json_values,
            "mediaType": json_values,
        },
    )
)
def test_no_manifest_crashes_the_reader(document: dict[str, object]) -> None:
    try:
        manifest = artifact.parse_manifest(json.dumps(document).encode())
        if manifest.is_index:
            artifact.select_platform(manifest)
        else:
            artifact.select_wasm_layer(manifest)
    except WasmlabError:
        pass
