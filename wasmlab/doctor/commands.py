"""``wasmlab doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasmlab.console import emit, paint

if TYPE_CHECKING:
    from wasmlab.doctor.checks import Finding

_MARKS = {"ok": "✓", "limited": "!", "missing": "✗"}
_COLORS = {"ok": "green", "limited": "yellow", "missing": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")] = False,
    engines: Annotated[
        bool, typer.Option("--engines", help="Print what each engine can do, and why not, instead.")
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Look at this cluster of yours instead."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="A context of the kubeconfig.", show_default="its current one")
    ] = None,
    registry: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="With --kubeconfig: where the cluster's nodes pull from.")
    ] = "",
) -> None:
    """Say what runs on this machine, or on a cluster of yours, what does not, why, and the remedy.

    Exit code 0 if the lab can run here (perhaps with limits), 1 if something it needs is missing.

    Examples:
      wasmlab doctor
      wasmlab doctor --engines                        # what wasmtime and wasmer can do
      wasmlab doctor --kubeconfig lab.kubeconfig --registry registry.example:5000
      wasmlab doctor --json | jq '.findings[] | select(.state != "ok")'

    Changes nothing.
    """
    if engines:
        from wasmlab.engines import table

        if as_json:
            emit(vars(table.table()))
        else:
            print(table.text())
        return
    findings = _findings(kubeconfig, context, registry)
    if as_json:
        emit({"findings": [one.as_dict() for one in findings]})
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            mark = paint(_MARKS[one.state], _COLORS[one.state], sys.stdout)
            print(f" {mark} {one.name:<{width}}  {one.detail}")
            if one.remedy:
                print(f"   {'':<{width}}  try: {one.remedy}")
    raise typer.Exit(1 if any(one.state == "missing" for one in findings) else 0)


def _findings(kubeconfig: Path | None, context: str | None, registry: str) -> list[Finding]:
    if kubeconfig is not None:
        from wasmlab.doctor.cluster import check_cluster

        return check_cluster(kubeconfig, context=context, registry=registry)
    from wasmlab.doctor.checks import check

    if context or registry:
        raise typer.BadParameter("of which cluster? Give its --kubeconfig too")
    return check()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor", rich_help_panel="This machine")(doctor)
