"""``wasmlab report``: read results again, and compare two sets of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup


class _WritesByDefault(TyperGroup):
    """``wasmlab report DIR`` is ``wasmlab report write DIR``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["write", *args]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    report = typer.Typer(
        cls=_WritesByDefault, no_args_is_help=True, help="Tables and pictures of results; compare two sets."
    )
    app.add_typer(report, name="report", rich_help_panel="Measure and tell")

    @report.command()
    def write(
        directory: Path = typer.Argument(..., help="A directory of results."),
        as_json: bool = typer.Option(False, "--json", help="Print one JSON line on stdout."),
    ) -> None:
        """Write tables and pictures from the Parquet files of a directory. `wasmlab report DIR` does the same.

        Examples:
          wasmlab report reports/bench
          wasmlab report write data/recorded --json | jq -r '.files[]'

        Changes: writes report.md, report.html and pictures into that directory.
        """
        from wasmlab import report as reporting
        from wasmlab.console import emit

        written = [str(path) for path in reporting.write(directory)]
        if as_json:
            emit({"files": written})
        else:
            typer.echo("\n".join(written))

    @report.command()
    def compare(
        before: str = typer.Argument(..., help="A Parquet file, a directory of them, or `recorded[:NAME]`."),
        after: str = typer.Argument(..., help="Likewise."),
        across: list[str] = typer.Option(
            [],
            "--across",
            help="What the comparison is about and may differ: host, engines, software, settings, workloads; repeat.",
        ),
        value: str = typer.Option("total_ns", help="The column that is compared, e.g. first_byte_ns."),
        margin: float = typer.Option(0.05, min=0.0, help="The largest relative change that counts as none."),
        fail_on: str = typer.Option(
            "never", help="Exit with 1 if an arm is: slower, changed (slower or faster), unclear (or slower)."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print one JSON line on stdout."),
    ) -> None:
        """Say which arms became slower or faster, and whether the machine did: before/after, or machine A/B.

        Two sets that must not be compared are refused, and what they differ in is said.

        Exit codes: 0 compared; 1 compared, and --fail-on holds; 2 wrong usage; 3 not compared.

        Examples:
          wasmlab report compare before/ after/ --fail-on slower          # in CI
          wasmlab report compare recorded reports/bench --across host     # another machine, on purpose

        Changes nothing.
        """
        from wasmlab.bench import compare as comparing
        from wasmlab.bench.store import COLUMNS
        from wasmlab.console import emit, failure, say
        from wasmlab.errors import BenchmarkError
        from wasmlab.report import compare as face

        if fail_on not in face.FAIL_ON:
            raise typer.BadParameter(f"one of: {', '.join(face.FAIL_ON)}", param_hint="--fail-on")
        if value not in COLUMNS or not value.endswith("_ns"):
            raise typer.BadParameter("a column of times, e.g. total_ns, first_byte_ns", param_hint="--value")
        try:
            sets = face.read(before), face.read(after)
            comparison = comparing.verdict(*sets, value=value, across=across, margin=margin)
        except BenchmarkError as error:
            # Not 1: in CI that would read as "slower".
            say(f"wasmlab: {error}")
            if as_json:
                emit(failure(error, face.NOT_COMPARED))
            raise typer.Exit(face.NOT_COMPARED) from None
        if as_json:
            emit(face.document(*sets, comparison))
        else:
            typer.echo(face.text(*sets, comparison))
        raise typer.Exit(face.exit_code(comparison, fail_on))
