"""``wasmlab doctor``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

_MARKS = {"ok": "✓", "limited": "!", "missing": "✗"}
_COLORS = {"ok": "green", "limited": "yellow", "missing": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON document.")] = False,
    engines: Annotated[
        bool, typer.Option("--engines", help="Print what each engine can do, and why not, instead.")
    ] = False,
) -> None:
    """Say what runs on this machine, what does not, why, and the remedy.

    Exit code 0 if the lab can run here (perhaps with limits), 1 if something it needs is missing.
    """
    if engines:
        from wasmlab.engines import table

        print(json.dumps(vars(table.table()), indent=2) if as_json else table.text())
        return
    from wasmlab.doctor.checks import check

    findings = check()
    if as_json:
        print(json.dumps({"findings": [one.as_dict() for one in findings]}, indent=2))
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            mark = (
                typer.style(_MARKS[one.state], fg=_COLORS[one.state])
                if sys.stdout.isatty()
                else _MARKS[one.state]
            )
            print(f" {mark} {one.name:<{width}}  {one.detail}")
            if one.remedy:
                print(f"   {'':<{width}}  try: {one.remedy}")
    raise typer.Exit(1 if any(one.state == "missing" for one in findings) else 0)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)
