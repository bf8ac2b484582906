"""The media types that registries and WASM artifacts use, each with where it comes from."""

from __future__ import annotations

# OCI image specification 1.1, media-types.md.
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER_PREFIX = "application/vnd.oci.image.layer."

# Docker image manifest version 2, schema 2: what most container images still are.
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_IMAGE_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_PREFIX = "application/vnd.docker.image.rootfs."

# wasm-to-oci, pkg/oci/mediatypes.go; Krustlet accepts this layer type and no other.
WASM_TO_OCI_CONFIG = "application/vnd.wasm.config.v1+json"
WASM_TO_OCI_LAYER = "application/vnd.wasm.content.layer.v1+wasm"

# CNCF TAG Runtime, "Wasm OCI Artifact layout".
CNCF_CONFIG = "application/vnd.wasm.config.v0+json"
CNCF_LAYER = "application/wasm"

# `oras push REF hello.wasm` of oras 1.x: an artifact without a declared type.
ORAS_UNKNOWN_CONFIG = "application/vnd.unknown.config.v1+json"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
CONTAINER_CONFIGS = frozenset({OCI_IMAGE_CONFIG, DOCKER_IMAGE_CONFIG})

WASM_LAYERS = frozenset(
    {
        WASM_TO_OCI_LAYER,
        CNCF_LAYER,
        # runwasi's oci-tar-builder before it moved to application/wasm.
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
        "application/vnd.w3c.wasm.module.v1+wasm",
        # The solo.io image specification that Envoy and Istio read ("oci" variant).
        "application/vnd.module.wasm.content.layer.v1+wasm",
    }
)

ACCEPT_MANIFEST = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))

TITLE_ANNOTATION = "org.opencontainers.image.title"
