"""Container images that hold a WASM module, built without a container builder. Pure and reproducible.

``scratch_image``
    What ``FROM scratch``, ``COPY hello.wasm .``, ``CMD ["/hello.wasm"]`` builds: an ordinary image with one layer. Any
    container runtime unpacks it; a WASM shim finds the module in the root file system.
``wasm_layer_image``
    An image whose layer is the module itself (``application/wasm``) and whose config names the platform
    ``wasip1/wasm``; it has no root file system. Only containerd 2 with a WASM shim takes it.
``both_worlds``
    One reference for both paths: an index with the module as an artifact for the platform ``wasip1/wasm``, which WASM
    nodes and artifact clients choose, and an ordinary image for each Linux architecture, which containerd chooses. The
    Linux images share their only layer, as the module does not depend on the architecture.

The same content gives the same bytes, hence the same digests: no times, owners or host names go in, files are sorted,
and layers are plain tar because compressed bytes vary with the version of zlib.

References
----------
OCI image specification 1.1: config.md, layer.md, image-index.md, image-layout.md.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from wasmlab.errors import OCIError
from wasmlab.oci import artifact
from wasmlab.oci import digest as digests
from wasmlab.oci import media_types as mt
from wasmlab.oci.artifact import Descriptor
from wasmlab.oci.component import kind_of

OCI_TAR_LAYER = f"{mt.OCI_LAYER_PREFIX}v1.tar"
#: Architectures of `both_worlds`, in Go's names: those that both engines run on.
ARCHITECTURES = ("amd64", "arm64")
_EPOCH = "1970-01-01T00:00:00Z"
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Image:
    """One manifest and the blobs that it refers to.

    Parameters
    ----------
    manifest : bytes
        Its JSON.
    blobs : tuple of (Descriptor, bytes)
        Config first, then the layers.
    os, architecture : str
        The platform, in Go's names.
    """

    manifest: bytes
    blobs: tuple[tuple[Descriptor, bytes], ...]
    os: str
    architecture: str

    @property
    def media_type(self) -> str:
        """Media type of the manifest."""
        return mt.OCI_MANIFEST

    @property
    def digest(self) -> str:
        """Digest of the manifest: the image's own name."""
        return digests.of_bytes(self.manifest)

    @property
    def config(self) -> dict[str, Any]:
        """The parsed config."""
        parsed: dict[str, Any] = json.loads(self.blobs[0][1])
        return parsed

    def descriptor(self) -> dict[str, Any]:
        """Return its entry in an index."""
        return {
            **Descriptor(self.media_type, self.digest, len(self.manifest)).as_dict(),
            "platform": {"architecture": self.architecture, "os": self.os},
        }


@dataclass(frozen=True)
class Index:
    """Several images under one name, each for a platform."""

    images: tuple[Image, ...]

    @property
    def manifest(self) -> bytes:
        """Its JSON."""
        return _dump(
            {
                "schemaVersion": 2,
                "mediaType": mt.OCI_INDEX,
                "manifests": [image.descriptor() for image in self.images],
            }
        )

    @property
    def media_type(self) -> str:
        """Media type of the index."""
        return mt.OCI_INDEX

    @property
    def digest(self) -> str:
        """Digest of the index."""
        return digests.of_bytes(self.manifest)


def scratch_image(
    files: Mapping[str, bytes],
    *,
    cmd: Sequence[str] = (),
    entrypoint: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    working_dir: str = "/",
    architecture: str = "amd64",
    mode: int = 0o755,
) -> Image:
    """Build an ordinary image with one layer: ``FROM scratch``, ``COPY``, ``ENTRYPOINT``, ``CMD``.

    Parameters
    ----------
    files : mapping of str to bytes
        Content by absolute path.
    cmd, entrypoint : sequence of str
        As in a Dockerfile, exec form.
    env : mapping, optional
        Environment variables.
    working_dir : str
        Where the program starts.
    architecture : str
        In Go's names, e.g. ``amd64``.
    mode : int
        Permissions of the files.

    Raises
    ------
    OCIError
        If a path is not absolute, or leaves the root.
    """
    layer = _tar(files, mode)
    return _tar_image(layer, _run_config(cmd, entrypoint, env, working_dir), architecture)


def module_image(
    module: bytes,
    *,
    path: str = "/module.wasm",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    architecture: str = "amd64",
) -> Image:
    """Build the article's image: the module at `path`, started by ``CMD [path, *args]``.

    Raises
    ------
    InvalidModule
        If `module` is not WASM.
    """
    kind_of(module[:8], "the module")
    return scratch_image({path: module}, cmd=[path, *args], env=env, architecture=architecture)


def wasm_layer_image(
    module: bytes,
    *,
    entrypoint: str = "/module.wasm",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Image:
    """Build an image whose only layer is the module, for containerd 2 with a WASM shim.

    `entrypoint` becomes argv[0]; no such file exists, as there is no root file system (``diff_ids`` is empty).

    Raises
    ------
    InvalidModule
        If `module` is not WASM.
    """
    system = "wasip2" if kind_of(module[:8], "the module") == "component" else "wasip1"
    layer = Descriptor(mt.CNCF_LAYER, digests.of_bytes(module), len(module), PurePosixPath(entrypoint).name)
    run = _run_config(args, [entrypoint], env, "/")
    return _image(run, [(layer, module)], [], "wasm", system)


def artifact_image(module: bytes) -> Image:
    """Build the module as an artifact in the CNCF layout, in the form that an index can hold."""
    packed = artifact.pack(module, "cncf")
    system = json.loads(packed.config)["os"]
    blobs = ((packed.config_descriptor, packed.config), (packed.layer, module))
    return Image(packed.manifest, blobs, system, "wasm")


def linux_images(
    module: bytes,
    *,
    path: str = "/module.wasm",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    architectures: Sequence[str] = ARCHITECTURES,
) -> Index:
    """Build the article's image for each architecture; they share their only layer. Parameters as `module_image`.

    Raises
    ------
    InvalidModule
        If `module` is not WASM.
    """
    kind_of(module[:8], "the module")
    layer = _tar({path: module}, 0o755)
    run = _run_config([path, *args], (), env, "/")
    return Index(tuple(_tar_image(layer, run, architecture) for architecture in architectures))


def both_worlds(
    module: bytes,
    *,
    path: str = "/module.wasm",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    architectures: Sequence[str] = ARCHITECTURES,
) -> Index:
    """Build one index that WASM nodes and containerd nodes both take. Parameters as `module_image`.

    Arguments and variables reach only the containerd path: an artifact has no place for them, and a Pod that is to run
    on both names its own.

    Raises
    ------
    InvalidModule
        If `module` is not WASM.
    """
    linux = linux_images(module, path=path, args=args, env=env, architectures=architectures)
    # The artifact comes last: clients that look at no platform (old ones) take the first entry, and those are
    # container clients.
    return Index((*linux.images, artifact_image(module)))


def archive(content: Image | Index, name: str) -> bytes:
    """Return a tar in the OCI image layout, which ``ctr images import`` and ``skopeo copy oci-archive:`` read.

    Parameters
    ----------
    content : Image or Index
        What to put in.
    name : str
        Its reference, e.g. ``wasmlab.dev/pause:1``.
    """
    entry: dict[str, Any] = Descriptor(content.media_type, content.digest, len(content.manifest)).as_dict()
    entry["annotations"] = {_CONTAINERD_NAME: name, _REF_NAME: name.rpartition(":")[2]}
    files = {
        "oci-layout": _dump({"imageLayoutVersion": "1.0.0"}),
        "index.json": _dump({"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": [entry]}),
        _blob(content.digest): content.manifest,
    }
    for image in content.images if isinstance(content, Index) else (content,):
        files[_blob(image.digest)] = image.manifest
        files |= {_blob(descriptor.digest): data for descriptor, data in image.blobs}
    return _tar(files, 0o644)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _run_config(
    cmd: Sequence[str], entrypoint: Sequence[str], env: Mapping[str, str] | None, working_dir: str
) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if env:
        config["Env"] = [f"{name}={value}" for name, value in env.items()]
    if entrypoint:
        config["Entrypoint"] = list(entrypoint)
    if cmd:
        config["Cmd"] = list(cmd)
    return {**config, "WorkingDir": working_dir}


def _tar_image(layer: bytes, run: dict[str, Any], architecture: str) -> Image:
    descriptor = Descriptor(OCI_TAR_LAYER, digests.of_bytes(layer), len(layer))
    # An uncompressed layer's diff_id is its digest.
    return _image(run, [(descriptor, layer)], [descriptor.digest], architecture, "linux")


def _image(
    run: dict[str, Any],
    layers: list[tuple[Descriptor, bytes]],
    diff_ids: list[str],
    architecture: str,
    system: str,
) -> Image:
    config = _dump(
        {
            "created": _EPOCH,
            "architecture": architecture,
            "os": system,
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
    described = Descriptor(mt.OCI_IMAGE_CONFIG, digests.of_bytes(config), len(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": mt.OCI_MANIFEST,
        "config": described.as_dict(),
        "layers": [descriptor.as_dict() for descriptor, _ in layers],
    }
    return Image(_dump(manifest), ((described, config), *layers), system, architecture)


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    """Return a tar of `files` with their parent directories, sorted, owned by root, dated at the epoch."""
    content: dict[str, bytes | None] = {}
    for path, data in files.items():
        relative = PurePosixPath(path.lstrip("/"))
        if ".." in relative.parts or not relative.parts:
            raise OCIError(
                f"{path!r} cannot be a file of an image", remedy="use an absolute path such as /hello.wasm"
            )
        for parent in relative.parents:
            if parent.parts:
                content.setdefault(str(parent), None)
        content[str(relative)] = data
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, found in sorted(content.items()):
            info = tarfile.TarInfo(name)
            if found is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.mode, info.size = mode, len(found)
            tar.addfile(info, None if found is None else io.BytesIO(found))
    return buffer.getvalue()


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
