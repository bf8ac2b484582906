"""The commands ``wasmlab oci push``, ``pull`` and ``inspect``, in the manner of wasm-to-oci, and ``pack``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasmlab.console import emit

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmlab.oci.client import Client
    from wasmlab.oci.image import Image, Index
    from wasmlab.oci.reference import Reference

UseHttp = Annotated[
    bool | None,
    typer.Option(
        "--use-http/--no-use-http",
        help="Plain http. Default: http for a registry on this machine, https for others.",
        show_default=False,
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check the registry's certificate.")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="More certificate authorities (PEM).")
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.1, help="Deadline of a request; large modules get more."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]
Ref = Annotated[
    str, typer.Argument(metavar="REF", help="HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@sha256:...")
]


def register(app: typer.Typer) -> None:
    """Add the ``oci`` commands to `app`."""
    oci = typer.Typer(help="Push, pull and inspect WASM artifacts in OCI registries.", no_args_is_help=True)
    oci.command()(push)
    oci.command()(pull)
    oci.command()(pack)
    oci.command()(inspect)
    app.add_typer(oci, name="oci", rich_help_panel="Modules")


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A WASM module or component.")],
    ref: Ref,
    layout: Annotated[
        str,
        typer.Option("--layout", help="wasm-to-oci or cncf.", autocompletion=lambda: ["wasm-to-oci", "cncf"]),
    ] = "wasm-to-oci",
    use_http: UseHttp = None,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Push a module to a registry. Digest is that of the manifest, as wasm-to-oci prints it.

    Credentials are those of docker: ~/.docker/config.json, helpers included.

    Examples:
      wasmlab oci push data/wasm/hello.wasm 127.0.0.1:5000/hello:v1
      wasmlab oci push --layout cncf hello.wasm registry.example.com/team/hello:v1

    Changes: the registry.
    """
    from wasmlab.oci.artifact import LAYOUTS

    if layout not in LAYOUTS:
        raise typer.BadParameter(f"{layout!r} is not one of {', '.join(LAYOUTS)}", param_hint="--layout")
    target = _parse(ref)
    with _bar(f"pushing {target}") as progress:
        done = _client(use_http, insecure, ca_file, timeout).push(file, target, layout, progress)
    _report(
        as_json,
        {
            "reference": str(target),
            "digest": done.digest,
            "layerDigest": done.layer_digest,
            "size": done.size_bytes,
            "layout": layout,
        },
        [f"Pushed: {ref}", f"Size: {done.size_bytes}", f"Digest: {done.digest}"],
    )


def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A WASM module or component.")],
    ref: Ref,
    target: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="KIND",
            help="node: an artifact for WASM nodes. containerd: a container image for RuntimeClasses. "
            "both: one reference for either. layer: the image form that only containerd 2 takes.",
            autocompletion=lambda: ["node", "containerd", "both", "layer"],
        ),
    ] = "both",
    path: Annotated[
        str, typer.Option("--path", help="Where the module is in the container image.", show_default="/FILE")
    ] = "",
    arg: Annotated[list[str] | None, typer.Option("--arg", help="An argument after argv[0]; repeat.")] = None,
    use_http: UseHttp = None,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Pack a module as a container image, as an artifact, or as both under one reference, and push it.

    Examples:
      wasmlab oci pack hello.wasm 127.0.0.1:5000/hello:v1           # WASM nodes and RuntimeClasses
      wasmlab oci pack --for containerd --arg serve app.wasm registry.example.com/app:v1

    Changes: the registry.
    """
    from wasmlab.oci import image

    inside = path or f"/{file.name}"
    args = arg or []
    builders: dict[str, Callable[[bytes], Image | Index]] = {
        "node": image.artifact_image,
        "containerd": lambda data: image.linux_images(data, path=inside, args=args),
        "both": lambda data: image.both_worlds(data, path=inside, args=args),
        "layer": lambda data: image.wasm_layer_image(data, entrypoint=inside, args=args),
    }
    if target not in builders:
        raise typer.BadParameter(f"{target!r} is not one of {', '.join(builders)}", param_hint="--for")
    if target == "node" and (arg or path):
        raise typer.BadParameter(
            "an artifact has no place for arguments or a path: write args into the Pod", param_hint="--for"
        )
    reference = _parse(ref)
    done = _client(use_http, insecure, ca_file, timeout).push_image(builders[target](_read(file)), reference)
    _report(
        as_json,
        {
            "reference": str(reference),
            "digest": done.digest,
            "size": done.size_bytes,
            "for": target,
            "platforms": list(done.platforms),
        },
        [
            f"Pushed: {ref}",
            f"For: {', '.join(done.platforms)}",
            f"Size: {done.size_bytes}",
            f"Digest: {done.digest}",
        ],
    )


def pull(
    ref: Ref,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path(
        "module.wasm"
    ),
    use_http: UseHttp = None,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Pull a module from a registry. Digest is that of the module, as wasm-to-oci prints it.

    Every byte is checked against its digest; a pull that fails leaves an existing file as it was.

    Examples:
      wasmlab oci pull 127.0.0.1:5000/hello:v1 --out hello.wasm
      wasmlab oci pull --json registry.example.com/app@sha256:... | jq -r .manifestDigest

    Changes: writes FILE.
    """
    source = _parse(ref)
    with _bar(f"pulling {source}") as progress:
        done = _client(use_http, insecure, ca_file, timeout).pull(source, out, progress)
    _report(
        as_json,
        {
            "reference": str(source),
            "manifestDigest": done.manifest_digest,
            "digest": done.layer_digest,
            "size": done.size_bytes,
            "out": str(out),
        },
        [f"Pulled: {ref}", f"Size: {done.size_bytes}", f"Digest: {done.layer_digest}"],
    )


def inspect(
    ref: Ref,
    use_http: UseHttp = None,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Show what a reference points at: digest, layout and manifest.

    Examples:
      wasmlab oci inspect 127.0.0.1:5000/hello:v1
      wasmlab oci inspect --json REF | jq -e '.problem == null'      # does it run here?

    Changes nothing; the module itself is not fetched.
    """
    source = _parse(ref)
    found = _client(use_http, insecure, ca_file, timeout).inspect(source)
    layer = found.layer
    lines = [f"Reference: {source}", f"Digest: {found.digest}", f"Layout: {found.layout}"]
    if layer is not None:
        lines += [f"Module: {layer.digest}", f"Size: {layer.size_bytes}"]
    if found.problem:
        lines.append(f"Not runnable here: {found.problem}")
    lines.append(json.dumps(found.manifest, indent=2, ensure_ascii=False))
    _report(
        as_json,
        {
            "reference": str(source),
            "digest": found.digest,
            "mediaType": found.media_type,
            "layout": found.layout,
            "layer": layer.as_dict() if layer else None,
            "problem": found.problem,
            "manifest": found.manifest,
        },
        lines,
    )


def _parse(ref: str) -> Reference:
    from wasmlab.errors import InvalidReference
    from wasmlab.oci.reference import Reference

    try:
        return Reference.parse(ref)
    except InvalidReference as error:
        raise typer.BadParameter(str(error), param_hint="REF") from error


def _read(file: Path) -> bytes:
    from wasmlab.errors import OCIError

    try:
        return file.read_bytes()
    except OSError as error:
        raise OCIError(
            f"cannot read {file}: {error.strerror}", remedy="check the file's name and permissions"
        ) from error


def _client(use_http: bool | None, insecure: bool, ca_file: Path | None, timeout_s: float) -> Client:
    from wasmlab.oci.client import Client
    from wasmlab.oci.credentials import Credentials
    from wasmlab.oci.protocol import Timeouts

    usual = Timeouts()
    # Whoever allows more time in all also allows longer silences.
    read_s = min(timeout_s, max(usual.read_s, timeout_s * usual.read_s / usual.total_s))
    timeouts = Timeouts(connect_s=min(usual.connect_s, timeout_s), read_s=read_s, total_s=timeout_s)
    return Client(
        credentials=Credentials.from_docker_config(),
        plain_http=use_http,
        insecure=insecure,
        ca_file=ca_file,
        timeout=timeouts,
    )


def _report(as_json: bool, facts: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        emit(facts)
    else:
        typer.echo("\n".join(lines))


def _bar(label: str) -> Any:
    from wasmlab.oci.progress import ProgressBar

    return ProgressBar(label)
