"""``wasmlab bench scale``: burst, density and concurrency against N."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from wasmlab.bench.scale import Sizes

_EXPERIMENTS = ("burst", "density", "concurrency")


def register(bench: typer.Typer) -> None:
    """Add the command to ``wasmlab bench``."""

    @bench.command()
    def scale(
        experiment: list[str] = typer.Option(
            list(_EXPERIMENTS),
            "--experiment",
            "-x",
            help="burst, density or concurrency; repeat for more.",
            autocompletion=lambda: list(_EXPERIMENTS),
        ),
        engine: list[str] = typer.Option(
            [], "--engine", "-e", help="An engine; repeat for more. Both, or wasmtime if quick."
        ),
        burst: str = typer.Option("", metavar="N,N,...", help="Pods written at once."),
        density: str = typer.Option("", metavar="N,N,...", help="Pods alive when the next one starts."),
        concurrency: str = typer.Option("", metavar="N,N,...", help="Runs in flight."),
        blocks: int | None = typer.Option(None, "--blocks", "-n", min=1, help="How often each size."),
        seed: int = typer.Option(1, "--seed", help="Orders the sizes."),
        budget: float | None = typer.Option(
            None, min=1.0, metavar="SECONDS", help="Leave out, and say, what does not fit into this time."
        ),
        quick: bool = typer.Option(False, "--quick", help="Small sizes: what notebook 10 measures."),
        record: bool = typer.Option(False, "--record", help="Write data/recorded/scale.*, no report."),
        out: Path = typer.Option(Path("reports/scale"), "--out", help="Directory of the results."),
        kubeconfig: Path | None = typer.Option(
            None, exists=True, dir_okay=False, help="Measure on this cluster: its scheduler, its WASM nodes."
        ),
        context: str | None = typer.Option(
            None, help="A context of the kubeconfig.", show_default="its current one"
        ),
        registry: str = typer.Option(
            "", metavar="HOST:PORT", help="With --kubeconfig: where its nodes pull from."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print one JSON line on stdout."),
    ) -> None:
        """Measure bursts, density and concurrency against N, and fit cost curves with their knees.

        Every size is given by default: 10 to 1,000 Pods at once, up to 300 alive, up to 32 runs in flight, three
        times each on both engines; about six minutes. Ctrl-C keeps what was measured.

        Examples:
          wasmlab bench scale --quick
          wasmlab bench scale --quick --kubeconfig lab.kubeconfig --registry registry.example:5000
          wasmlab bench scale -x burst --burst 10,100,1000 -e wasmtime --budget 120

        Changes: starts a lab, and ends it; with --kubeconfig makes labelled Pods there, in one namespace, and removes
        them; writes scale.parquet and a report into --out.
        """
        from wasmlab import report
        from wasmlab.bench import scale as scaling
        from wasmlab.bench.commands import tell

        sizes = _sizes(experiment, engine, burst, density, concurrency, blocks, seed, quick)
        target = Path("data/recorded") if record else out
        results = scaling.measure(
            target,
            sizes,
            budget_s=budget,
            kubeconfig=kubeconfig or "",
            context=context,
            registry=registry,
        )
        written = [target / f"{scaling.NAME}.parquet"]
        if not record:
            written += report.write(target, results)
        tell(results, written, as_json, report.scale_table(results))


def _sizes(
    experiments: list[str],
    engines: list[str],
    burst: str,
    density: str,
    concurrency: str,
    blocks: int | None,
    seed: int,
    quick: bool,
) -> Sizes:
    from dataclasses import replace

    from wasmlab.bench.scale import Sizes
    from wasmlab.errors import BenchmarkError

    unknown = sorted(set(experiments) - set(_EXPERIMENTS))
    if unknown:
        raise BenchmarkError(
            f"unknown experiment {unknown[0]!r}", remedy=f"choose from {', '.join(_EXPERIMENTS)}"
        )
    sizes = Sizes.quick() if quick else Sizes()
    changes: dict = {"seed": seed}
    for name, text in zip(_EXPERIMENTS, (burst, density, concurrency), strict=True):
        if name not in experiments:
            changes[name] = ()
        elif text:
            changes[name] = numbers(text, f"--{name}")
    if engines:
        changes["engines"] = tuple(dict.fromkeys(engines))
    if blocks:
        changes["blocks"] = blocks
    return replace(sizes, **changes)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Read ``"10,30,100"``.

    Raises
    ------
    BenchmarkError
        If it is no such list.
    """
    from wasmlab.errors import BenchmarkError

    try:
        return tuple(sorted({int(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        raise BenchmarkError(
            f"{option} wants numbers with commas between, and {text!r} is not", remedy=f"{option} 10,30,100"
        ) from None
