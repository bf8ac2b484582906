"""The command ``wasmlab run``.

Exit codes: the guest's own, 0-255. If it did not end by itself: 134 for a trap or crash (what a shell reports of
abort()), 137 if it ran out of memory or was killed, 124 if its deadline passed (as timeout(1)), 130 after Ctrl-C;
1 if it could not be started (with a message), 2 for wrong usage.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasmlab.console import patience

if TYPE_CHECKING:
    from wasmlab.engines.spec import Outcome, Preopen

_EXIT_TRAP, _EXIT_KILLED, _EXIT_DEADLINE, _EXIT_FAILED = 134, 137, 124, 1
_NOT_STARTED = ("link", "invalid_module", "unsupported", "failed")

_UNITS = {
    "": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
}  # fmt: skip
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def register(app: typer.Typer) -> None:
    """Add ``run`` to `app`."""
    app.command(rich_help_panel="Modules")(run)


def run(
    target: Annotated[str, typer.Argument(metavar="FILE|REF", help="A .wasm file, or an image reference.")],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]...", help="Arguments of the module.", show_default=False),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            "-e",
            help="wasmtime or wasmer, or one of their compilers by name: wasmtime-winch.",
            autocompletion=lambda: _engines(),
        ),
    ] = "wasmtime",
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="K=V", help="A variable of the guest's environment, which is empty otherwise."
        ),
    ] = None,
    dir: Annotated[
        list[str] | None,
        typer.Option("--dir", metavar="HOST::GUEST[:ro]", help="A directory that the guest may see."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Most linear memory: 64Mi, 1G, bytes.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Kill it after 500ms, 5s, 2m.")
    ] = None,
    fuel: Annotated[
        int | None,
        typer.Option(
            "--fuel", metavar="N", min=0, help="Stop it after N WASM operators: the same everywhere."
        ),
    ] = None,
    listen: Annotated[
        list[int] | None,
        typer.Option(
            "--listen",
            metavar="PORT",
            min=1,
            max=65535,
            help="A TCP port that the guest may listen on; else it has no network.",
        ),
    ] = None,
    use_http: Annotated[bool, typer.Option("--use-http", help="Pull REF over plain http.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the registry's certificate.")
    ] = False,
    pull: Annotated[
        bool, typer.Option("--pull", help="Ask the registry even if REF was pulled before.")
    ] = False,
    outcome_file: Annotated[
        Path | None,
        typer.Option(
            "--outcome", metavar="FILE", help="Write how it ended and how long each phase took, as JSON."
        ),
    ] = None,
) -> None:
    """Run a WASM module with this terminal's stdin, stdout and stderr.

    The exit code is the module's. 134: it trapped. 137: out of memory, or killed. 124: its time was up. 1: it could not
    be started.

    Examples:
      wasmlab run data/wasm/hello.wasm -- one two
      wasmlab run --engine wasmer --memory 16Mi --timeout 5s data/wasm/hello.wasm
      wasmlab run --dir .::/src:ro --env LANG=C cat.wasm -- /src/README.md
      wasmlab run --listen 8080 data/wasm/serve.wasm -- 8080
      wasmlab run --outcome how.json 127.0.0.1:5000/hello:v1

    Changes: the compiled module stays in the cache (~/.cache/wasmlab), and so does one that was pulled.
    """
    from wasmlab.errors import WasmlabError
    from wasmlab.sandbox.direct import module_spec, run_once

    known = _engines()
    if engine not in known:
        raise typer.BadParameter(f"{engine!r} is not one of {', '.join(known)}", param_hint="--engine")
    for word in (*(args or ()), *(env or ())):
        # WASI hands arguments and variables to the guest as UTF-8: say it before a worker stumbles over it.
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise typer.BadParameter(f"{word!r} is not UTF-8, as WASI wants arguments and variables to be")
    options = {
        "env": tuple(_variable(one) for one in env or ()),
        "preopens": tuple(_preopen(one) for one in dir or ()),
        "memory_bytes": None if memory is None else _size(memory),
        "deadline_s": None if timeout is None else _time(timeout),
        "fuel": fuel,
        "listen": tuple(listen or ()),
    }
    path = Path(target)
    if not _is_file(target) and "/" not in target:
        # An official image of Docker Hub, which is what such a word would mean as a reference, is no module.
        raise WasmlabError(
            f"there is no file {target}, and as an image reference it names no registry",
            remedy=f"give a path (./{target}.wasm), or a reference such as registry.example.com/{target}:v1",
        )
    if not _is_file(target):
        path = _pulled(target, use_http, insecure, pull)
    elif not path.is_file():
        what = f"{target} is a directory" if path.is_dir() else f"there is no file {target}"
        raise WasmlabError(f"{what}", remedy="give the path of a .wasm file, or an image reference")
    name = path.name if _is_file(target) else target.rpartition("/")[2]
    compiling = patience(f"Compile {name} for {engine}, once")
    outcome = run_once(engine, module_spec(path, (name, *(args or ())), **options), compiling=compiling)
    code = _exit_code(outcome)
    if outcome_file is not None:
        outcome_file.write_text(json.dumps(outcome.to_json() | {"engine": engine, "status": code}) + "\n")
    raise SystemExit(code)


def _engines() -> list[str]:
    from wasmlab import engines

    return list(dict.fromkeys((*engines.names(), *engines.variants())))


def _exit_code(outcome: Outcome) -> int:
    if outcome.trap is None:
        if outcome.message:
            typer.echo(f"wasmlab: {outcome.message}", err=True)
        return outcome.exit_code or 0
    if outcome.trap in _NOT_STARTED:
        typer.echo(f"wasmlab: the module could not be run ({outcome.trap}): {outcome.message}", err=True)
        return _EXIT_FAILED
    typer.echo(f"wasmlab: the module was stopped ({outcome.trap}): {outcome.message}", err=True)
    if outcome.trap == "deadline":
        return _EXIT_DEADLINE
    return _EXIT_KILLED if outcome.trap in ("out_of_memory", "killed") else _EXIT_TRAP


def _is_file(target: str) -> bool:
    """Whether the word means a file: it is one, or nobody would write a reference like that."""
    return os.path.exists(target) or target.endswith((".wasm", ".wat")) or target.startswith((".", "/", "~"))


def _pulled(reference: str, use_http: bool, insecure: bool, pull: bool) -> Path:
    import asyncio

    from wasmlab.errors import InvalidReference
    from wasmlab.oci import AsyncClient, Credentials, ModuleStore, Reference
    from wasmlab.oci.progress import ProgressBar
    from wasmlab.paths import cache_dir

    try:
        ref = Reference.parse(reference)
    except InvalidReference as error:
        raise typer.BadParameter(
            f"{reference} is neither a file here nor an image reference: {error.message}",
            param_hint="FILE|REF",
        ) from error

    async def ensure() -> Path:
        async with AsyncClient(
            credentials=Credentials.from_docker_config(),
            plain_http=True if use_http else None,
            insecure=insecure,
        ) as client:
            with ProgressBar(f"Pull {ref}") as progress:
                stored = await ModuleStore(cache_dir("modules")).ensure(
                    ref, "Always" if pull else "IfNotPresent", client, progress=progress
                )
        return stored.path

    return asyncio.run(ensure())


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    return name, value


def _preopen(text: str) -> Preopen:
    from wasmlab.engines.spec import Preopen

    host, colons, guest = text.partition("::")
    read_only = guest.endswith(":ro")
    guest = guest.removesuffix(":ro").removesuffix(":rw")
    if not colons or not host or not guest:
        raise typer.BadParameter(f"{text!r} is not HOST::GUEST or HOST::GUEST:ro", param_hint="--dir")
    if not os.path.isdir(host):
        raise typer.BadParameter(f"there is no directory {host}", param_hint="--dir")
    return Preopen(os.path.abspath(host), guest, read_only)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kKMG]i?)?[bB]?", text)
    unit = (match[2] or "") if match else None
    if match is None or unit not in _UNITS or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no size: write 64Mi, 1G or bytes", param_hint="--memory")
    return int(match[1]) * _UNITS[unit]


def _time(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if match is None or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no time: write 500ms, 5s or 2m", param_hint="--timeout")
    return float(match[1]) * _SECONDS[match[2] or ""]
