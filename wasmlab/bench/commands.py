"""``wasmlab bench``: measure here, and write down where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wasmlab.bench import scale_command
from wasmlab.console import emit, say

if TYPE_CHECKING:
    from wasmlab.bench.plan import Arm, Plan
    from wasmlab.bench.store import Results
    from wasmlab.modules.workloads import Workload
    from wasmlab.report.render import Table

_OUT = typer.Option(Path("reports/bench"), "--out", help="Directory for Parquet, JSON, tables and pictures.")
_WORKLOAD = typer.Option(
    ["hello"],
    "--workload",
    "-w",
    help="A workload of the catalogue (`wasmlab bench workloads`); repeat for more.",
    autocompletion=lambda: _workload_names(),
)
_ENGINE = typer.Option(
    ["wasmtime", "wasmer"],
    "--engine",
    "-e",
    help="An engine; repeat for more.",
    autocompletion=lambda: _engine_names(),
)
_MODE = typer.Option(
    ["cold", "cached", "warm"],
    "--mode",
    "-m",
    help="cold, cached or warm; repeat for more.",
    autocompletion=lambda: ["cold", "cached", "warm"],
)
_REPEATS = typer.Option(20, "--repeats", "-n", min=1, help="Runs of every arm.")
_SEED = typer.Option(1, "--seed", help="Orders the runs and the bootstrap draws.")
_CONTROLS = typer.Option(
    True, "--controls/--no-controls", help="Run native processes between, to compare with."
)
_JSON = typer.Option(False, "--json", help="Print one JSON line on stdout.")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    bench = typer.Typer(no_args_is_help=True)
    app.add_typer(bench, name="bench", rich_help_panel="Measure and tell")
    scale_command.register(bench)

    @bench.callback(invoke_without_command=True)
    def carry_out(
        context: typer.Context,
        plan: Path | None = typer.Option(
            None, "--plan", help="Carry out the plan of a YAML file; `bench plan` prints one."
        ),
        out: Path = _OUT,
        as_json: bool = _JSON,
    ) -> None:
        """Measure cold starts, execution, pods; keep rows and figures.

        Runs of all arms are interleaved in random order, beside native controls. Ctrl-C keeps what was measured.

        Examples:
          wasmlab bench local -w hello -n 30            # the sandbox alone, a minute
          wasmlab bench node --dir lab                  # Pods of a lab that runs
          wasmlab bench plan > plan.yaml && wasmlab bench --plan plan.yaml

        Changes: writes Parquet, JSON, tables and pictures into --out.
        """
        if context.invoked_subcommand is not None:
            if plan is not None:
                raise typer.BadParameter("a plan names all that is measured; leave out the command")
            if as_json:
                raise typer.BadParameter("write it after the command", param_hint="--json")
            return
        if plan is None:
            raise typer.BadParameter("give --plan FILE or a command; `wasmlab bench --help` lists them")
        from wasmlab.bench import planned

        _finish(planned.measure(planned.read(plan)), out, plan.stem, as_json)

    @bench.command()
    def local(
        workload: list[str] = _WORKLOAD,
        engine: list[str] = _ENGINE,
        mode: list[str] = _MODE,
        repeats: int = _REPEATS,
        seed: int = _SEED,
        controls: bool = _CONTROLS,
        out: Path = _OUT,
        as_json: bool = _JSON,
    ) -> None:
        """Measure modules in the sandbox, without a cluster.

        Examples:
          wasmlab bench local -w hello -e wasmtime -m warm -n 50
          wasmlab bench local --json | jq '.arms[] | {engine, mode, median_ms}'

        Changes: writes local.parquet and a report into --out.
        """
        from wasmlab.bench import planned

        results = planned.measure(_plan(_arms("local", engine, mode, workload, controls), repeats, seed))
        _finish(results, out, "local", as_json)

    @bench.command()
    def node(
        workload: list[str] = _WORKLOAD,
        engine: list[str] = _ENGINE,
        mode: list[str] = _MODE,
        repeats: int = _REPEATS,
        seed: int = _SEED,
        controls: bool = _CONTROLS,
        dir: Path | None = typer.Option(
            None, "--dir", help="Use the lab that `wasmlab up --dir` started there."
        ),
        out: Path = _OUT,
        as_json: bool = _JSON,
    ) -> None:
        """Measure modules as Pods, from the API write to the observed Succeeded.

        Examples:
          wasmlab bench node -w hello -n 30             # starts a lab of its own, and ends it
          wasmlab bench node --dir lab -e wasmer

        Changes: writes node.parquet and a report into --out; its Pods are removed again.
        """
        from wasmlab.bench import planned

        plan = _plan(_arms("node", engine, mode, workload, controls), repeats, seed)
        results = planned.measure(plan, lab=dir)
        _finish(results, out, "node", as_json)

    @bench.command("containerd")
    def containerd_(
        workload: list[str] = _WORKLOAD,
        engine: list[str] = _ENGINE,
        repeats: int = _REPEATS,
        seed: int = _SEED,
        containerd: str = typer.Option("debian", help="debian, 2.x, or a directory with containerd."),
        out: Path = _OUT,
        as_json: bool = _JSON,
    ) -> None:
        """Measure modules as Pods of the ordinary kubelet, through containerd and our shim, beside runc. As root.

        Example:
          wasmlab bench containerd -w hello -n 15 --containerd 2.x

        Changes: starts a lab with a container node, and ends it; writes containerd.parquet and a report into --out.
        """
        from wasmlab.bench import planned
        from wasmlab.bench.plan import CONTROLS
        from wasmlab.bench.record_paths import containers

        arms = containers(tuple(engine), ("cold", "cached"), tuple(workload))
        results = planned.measure(_plan((*arms, *CONTROLS), repeats, seed), containerd=containerd)
        _finish(results, out, "containerd", as_json)

    @bench.command()
    def figures(
        pods: int = typer.Option(300, min=1, help="Pods per engine, one after the other."),
        burst: int = typer.Option(1000, min=0, help="Pods at once; 0 leaves the burst out."),
        idle_pods: int = typer.Option(50, min=0, help="Sleeping pods whose memory is measured."),
        starts: int = typer.Option(3, min=1, help="Starts of the control plane and joins of the node."),
        seed: int = _SEED,
        quick: bool = typer.Option(False, "--quick", help="Small numbers: to see that everything works."),
        pictures: bool = typer.Option(True, "--report/--no-report", help="Write tables and pictures too."),
        out: Path = _OUT,
        as_json: bool = _JSON,
    ) -> None:
        """Measure the README's headline figures.

        Examples:
          wasmlab bench figures --quick                 # two minutes, to see that everything works
          wasmlab bench figures                         # the first step of `make bench`

        Changes: starts labs of its own, and ends them; writes figures.parquet and a report into --out.
        """
        from wasmlab import report
        from wasmlab.bench import figures as headline

        sizes = (
            headline.Sizes.quick()
            if quick
            else headline.Sizes(starts=starts, pods=pods, burst=burst, idle_pods=idle_pods, seed=seed)
        )
        results = headline.measure(out, sizes)
        written = report.write(out, results) if pictures else []
        tell(results, [out / "figures.parquet", *written], as_json, report.headline_table(results))

    @bench.command()
    def record(
        repeats: int = typer.Option(30, "--repeats", "-n", min=1, help="Runs of every arm."),
        large: int = typer.Option(8, "--large", min=0, help="Cold runs of the large programs."),
        seed: int = _SEED,
        out: Path = typer.Option(Path("data/recorded"), "--out", help="Where bench.parquet goes."),
        as_json: bool = _JSON,
    ) -> None:
        """Measure what the repository keeps as its recorded run.

        Example:
          wasmlab bench record --out /tmp/mine --repeats 10

        Changes: starts a lab, and ends it; overwrites bench.parquet in --out.
        """
        from wasmlab import report
        from wasmlab.bench.record import record as measure

        results = measure(out, repeats=repeats, large=large, seed=seed)
        tell(results, [out / "bench.parquet"], as_json, report.arm_table(results))

    @bench.command("report")
    def report_(
        directory: Path = typer.Argument(..., help="A directory of results."), as_json: bool = _JSON
    ) -> None:
        """Write tables and pictures from the Parquet files of a directory.

        Example:
          wasmlab bench report reports/bench

        Changes: writes report.md, report.html and pictures into that directory.
        """
        from wasmlab import report

        written = [str(path) for path in report.write(directory)]
        if as_json:
            emit({"files": written})
        else:
            typer.echo("\n".join(written))

    @bench.command("plan")
    def plan_() -> None:
        """Print a plan to start from: redirect it to a file, edit it, give it to --plan.

        Example:
          wasmlab bench plan > plan.yaml && wasmlab bench --plan plan.yaml

        Changes nothing.
        """
        from wasmlab.bench import planfile

        typer.echo(planfile.EXAMPLE, nl=False)

    @bench.command()
    def workloads(as_json: bool = _JSON) -> None:
        """List the workloads: what the bench can run, how large it is, and where it runs.

        Examples:
          wasmlab bench workloads
          wasmlab bench workloads --json | jq -r '.workloads[] | select(.kind == "component") | .name'

        Changes nothing.
        """
        from wasmlab import report
        from wasmlab.modules import workloads as known

        if as_json:
            emit({"workloads": [_facts(work) for work in known.catalogue().values()]})
            return
        rows = [
            (
                work.name,
                work.kind,
                f"{work.size_bytes:,}",
                f"{work.typical_ms:,}",
                ", ".join(work.paths),
                ", ".join(work.engines),
                work.expected_digest[7:19],
                work.shows,
            )
            for work in known.catalogue().values()
        ]
        head = ("workload", "class", "bytes", "ms, about", "paths", "engines", "answer", "shows")
        typer.echo(report.plain((head, rows)))
        typer.echo("\nwasmer has no component model: the workloads of class component run on wasmtime only.")


def _engine_names() -> list[str]:
    from wasmlab import engines

    return list(dict.fromkeys((*engines.names(), *engines.variants())))


def _workload_names() -> list[str]:
    from wasmlab.modules import workloads

    return list(workloads.catalogue())


def _facts(work: Workload) -> dict[str, Any]:
    return {
        "name": work.name,
        "kind": work.kind,
        "size_bytes": work.size_bytes,
        "typical_ms": work.typical_ms,
        "paths": list(work.paths),
        "engines": list(work.engines),
        "expected_digest": work.expected_digest,
        "shows": work.shows,
    }


def _arms(
    path: str, engines: list[str], modes: list[str], names: list[str], controls: bool
) -> tuple[Arm, ...]:
    from wasmlab import engines as known_engines
    from wasmlab.bench.plan import cross
    from wasmlab.errors import BenchmarkError
    from wasmlab.modules import workloads

    for name in engines:
        known_engines.get(name)  # refuses an unknown one before anything is measured
    works = [workloads.get(name) for name in dict.fromkeys(names)]
    for work in works:
        if path not in work.paths:
            raise BenchmarkError(
                f"{work.name} reads standard input, which a Pod does not have",
                remedy="measure it with `bench local`",
            )
        if not any(work.runs_on(engine) for engine in engines):
            raise BenchmarkError(
                f"{work.name} is a component, and {' and '.join(dict.fromkeys(engines))} cannot run components",
                remedy=f"measure it with --engine {work.engines[0]}",
            )
    return cross((path,), dict.fromkeys(engines), dict.fromkeys(modes), works, controls=controls)


def _plan(arms: tuple[Arm, ...], repeats: int, seed: int) -> Plan:
    from wasmlab.bench.plan import Plan

    return Plan(arms, repeats, seed)


def _finish(results: Results, out: Path, name: str, as_json: bool) -> None:
    from wasmlab import report
    from wasmlab.bench.store import load_all
    from wasmlab.errors import BenchmarkError

    written = [results.save(out / f"{name}.parquet")]
    try:
        # What was measured before in the same directory belongs to the same report: pods beside local runs.
        together = load_all(out)
    except BenchmarkError as error:
        say(f"the report covers this measurement alone: {error.message}")
        together = results
    written += report.write(out, together)
    tell(results, written, as_json, report.arm_table(results))


def about(results: Results) -> list[str]:
    """Return what a reader of the figures must know about how they came to be: the end, warm-up, steps, noise."""
    from wasmlab.bench import noise, pooling, stopping

    lines = []
    for one in pooling.parts(results.plan):
        if one.get("stopped"):
            lines.append(stopping.tell(one["stopped"]))
        if one.get("warmup_blocks"):
            lines.append(f"the first {one['warmup_blocks']} blocks are warm-up: kept, marked, not summarized")
        lines += [
            f"the environment was not steady: from block {step['block']} on everything, the control too, took "
            f"{step['ratio']:.2f} times as long [{step['low']:.2f}, {step['high']:.2f}]"
            for step in one.get("steps") or ()
        ]
    return [*lines, *filter(None, [noise.summary(results.conditions)])]


def summary(results: Results, written: list[Path]) -> dict[str, Any]:
    """Return what was measured and written, for programs."""
    return {
        "runs": len(results.rows),
        "failed": len(results.failures),
        "measured": results.where,
        "interrupted": bool(results.plan.get("interrupted")),
        "notes": about(results),
        "arms": _arm_facts(results),
        "headlines": results.extra.get("headlines", []),
        "left_out": list(results.plan.get("left_out", ())),
        "files": [str(path) for path in written],
    }


def _arm_facts(results: Results) -> list[dict[str, Any]]:
    from wasmlab.report import summary_table

    if not results.rows:
        return []
    times = ("median", "low", "high", "p95", "first_byte")
    return [
        {name: row[name] for name in ("path", "engine", "mode", "workload", "n", "failed")}
        # A median of nothing is not a number, which JSON does not have.
        | {f"{name}_ms": None if math.isnan(row[name]) else round(row[name], 6) for name in times}
        for row in summary_table(results).to_dict("records")
    ]


def tell(results: Results, written: list[Path], as_json: bool, table: Table) -> None:
    """Say what was measured and written; raises `typer.Exit` if it was interrupted, or nothing succeeded."""
    from wasmlab import report

    if as_json:
        emit(summary(results, written))
    else:
        typer.echo(report.plain(table))
        for what in results.plan.get("left_out", ()):
            typer.echo(f"left out: {what}")
    failed = len(results.failures)
    say(f"\n{len(results.rows):,} runs, {failed} failed, measured {results.where}")
    for line in about(results):
        say(line)
    if "busy with other work" in results.where:
        say("times are longer than on an idle machine; compare ratios to the controls")
    for path in written:
        say(f"  {path}")
    if results.plan.get("interrupted"):
        say("interrupted: these are the runs so far")
        raise typer.Exit(130)
    if results.rows and failed == len(results.rows):
        say("every run failed; the error column says why")
        raise typer.Exit(1)
