"""`wasmlab lab` and `wasmlab batch`: execute the notebooks into reports."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wasmlab.console import LIVE_EVERY_S, PLAIN_EVERY_S, duration, emit, is_live, mark, say
from wasmlab.errors import NotebookError
from wasmlab.notebooks import execute

if TYPE_CHECKING:
    from wasmlab.notebooks.batch import Task


class Lines(execute.Progress):
    """One line per notebook; on a terminal it is alive: cell, elapsed time, what remains."""

    def __init__(self, jobs: Sequence[execute.Job]) -> None:
        self._width = max((len(job.shown) for job in jobs), default=0)
        self._remaining_s = sum(job.expected_s for job in jobs)
        self._live = is_live(sys.stderr)
        self._cell = ""
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def notebook_started(self, job: execute.Job) -> None:
        """Start the ticking line."""
        self._cell = "starting"
        self._ended = threading.Event()
        self._ticker = threading.Thread(
            target=self._tick, args=(job, time.monotonic(), self._ended), daemon=True
        )
        self._ticker.start()

    def cell_started(self, job: execute.Job, index: int, count: int) -> None:
        """Remember which cell runs."""
        self._cell = f"cell {index + 1} of {count}"

    def notebook_ended(self, job: execute.Job, result: execute.Result) -> None:
        """Leave the final line."""
        self._ended.set()
        if self._ticker:
            self._ticker.join()
        self._remaining_s -= job.expected_s
        start = "\r\x1b[K" if self._live else ""
        sign = "·" if result.status == "not run" else mark(result.status == "ok")
        say(f"{start} {sign} {job.shown:<{self._width}}  {result.duration_s:6.1f} s  {job.title}")
        if result.error:
            say("\n".join(f"     {line}" for line in result.error.splitlines()))

    def _tick(self, job: execute.Job, started: float, ended: threading.Event) -> None:
        # Without a terminal a line every half minute, so that a long notebook is never mistaken for a hang.
        while not ended.wait(LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            elapsed_s = time.monotonic() - started
            left_s = max(self._remaining_s - min(elapsed_s, job.expected_s), 0.0)
            left = f"about {duration(left_s)} left"
            line = f" … {job.shown:<{self._width}}  {elapsed_s:6.1f} s  {self._cell}, {left}"
            if self._live:
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            else:
                say(line)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{word!r} is not name=value", param_hint="-p")
        pairs[name] = value
    return pairs


def register(app: typer.Typer) -> None:
    """Add the commands `lab` and `batch`."""

    @app.command(no_args_is_help=False, rich_help_panel="Measure and tell")
    def lab(
        out: Path = typer.Option(Path("reports"), help="Where pages, plots and results go."),
        only: str = typer.Option("", help="Only these, by number or name: 03,07."),
        parameter: list[str] = typer.Option(
            [], "--parameter", "-p", metavar="NAME=VALUE", help="A parameter; see --list."
        ),
        kubeconfig: Path | None = typer.Option(
            None, exists=True, dir_okay=False, help="Use this cluster instead of an embedded one."
        ),
        quick: bool | None = typer.Option(
            None, "--quick/--full", help="Fewest repetitions, or enough for figures to publish."
        ),
        notebooks: Path | None = typer.Option(None, help="Directory of the notebooks."),
        cell_timeout: float = typer.Option(
            600.0, min=1.0, metavar="SECONDS", help="Longest time for a cell."
        ),
        list_only: bool = typer.Option(False, "--list", help="Show notebooks and parameters; run nothing."),
        as_json: bool = typer.Option(False, "--json", help="Print one JSON line on stdout."),
    ) -> None:
        """Execute the notebooks: pages, plots and results end up in reports/.

        Exits non-zero if a notebook fails; the others run nevertheless, and what it had produced is kept.

        With -p source=recorded nothing is measured and no cluster is needed: recorded data is shown, and marked so.

        Examples:
          wasmlab lab                                   # all of it, two to four minutes
          wasmlab lab --only 05,07 -p runs=50           # some notebooks, with a parameter
          wasmlab lab -p source=recorded --out /tmp/r   # pages from recorded data, no cluster
          wasmlab lab --list

        Changes: writes --out; starts a lab of its own and ends it, or works in namespaces of the one of --kubeconfig.
        """
        paths = execute.select(
            execute.find_directory(notebooks), [word.strip() for word in only.split(",") if word.strip()]
        )
        given = _pairs(parameter)
        if kubeconfig:
            given["kubeconfig"] = str(kubeconfig.resolve())
        preset: execute.Preset = "default" if quick is None else "quick" if quick else "full"
        jobs = execute.plan(paths, given, preset, execute.durations(out))
        if list_only:
            _list(paths, as_json)
            return
        say(f"Executing {len(jobs)} notebooks, about {duration(sum(job.expected_s for job in jobs))}")
        started = time.monotonic()
        results = execute.run(jobs, out, cell_timeout_s=cell_timeout, progress=Lines(jobs))
        if as_json:
            emit(_summary(results, out))
        _conclude(results, out, time.monotonic() - started)

    @app.command(rich_help_panel="Measure and tell")
    def batch(
        plan: Path = typer.Argument(
            ..., metavar="PLAN.yaml", exists=True, dir_okay=False, help="What to execute."
        ),
        out: str = typer.Option(
            "reports/batch", help="A directory, or any path that papermill can write to."
        ),
        notebooks: Path | None = typer.Option(None, help="Directory of the notebooks."),
        cell_timeout: float = typer.Option(
            600.0, min=1.0, metavar="SECONDS", help="Longest time for a cell."
        ),
        again: bool = typer.Option(False, "--again", help="Execute finished runs too."),
        list_only: bool = typer.Option(False, "--list", help="Show what would run; run nothing."),
        as_json: bool = typer.Option(False, "--json", help="Print one JSON line on stdout."),
    ) -> None:
        """Execute notebooks with many parameter sets; go on where an earlier try stopped.

        A plan is YAML:

          defaults: {source: recorded}        # where the notebook has the parameter
          runs:
            - {notebook: 07, parameters: {runs: 20}}
            - notebook: 08
              name: engines
              matrix: {engines: [[wasmtime], [wasmer]]}   # every combination is a run

        Unknown keys and parameters are refused before anything runs. Exits non-zero if a run fails; the others run
        nevertheless. Finished runs are not repeated.

        Examples:
          wasmlab batch plan.yaml --list
          wasmlab batch plan.yaml --out reports/batch   # said again: only what is not finished
          wasmlab batch plan.yaml --out s3://bucket/lab

        Changes: writes --out.
        """
        import yaml

        from wasmlab.notebooks import batch as batches

        try:
            document = yaml.safe_load(plan.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise NotebookError(f"{plan} cannot be read: {error}", remedy="a plan is a YAML file") from error
        output = batches.Output.of(out)
        tasks = batches.prepare(document, execute.find_directory(notebooks), output, again=again)
        todo = [task.job for task in tasks if not task.done]
        if list_only and as_json:
            emit({"runs": [_task(task) for task in tasks]})
            return
        if list_only:
            for task in tasks:
                chosen = ", ".join(f"{name}={value}" for name, value in task.job.parameters.items())
                print(f"{'done ' if task.done else 'to do'}  {task.name}: {task.job.name}({chosen})")
            return
        finished = f", {len(tasks) - len(todo)} are finished" if len(todo) < len(tasks) else ""
        about = duration(sum(job.expected_s for job in todo))
        say(f"Executing {len(todo)} of {len(tasks)} runs{finished}; about {about}")
        results = batches.run(tasks, output, cell_timeout_s=cell_timeout, progress=Lines(todo))
        say(
            f"\n{sum(r.status == 'ok' for r in results)} of {len(results)} runs succeeded: {output.work}/index.html"
        )
        if as_json:
            emit(_summary(results, output.work) | {"published": output.where if output.remote else None})
        if output.remote:
            say(f"  notebooks went to {output.where}; plots and results stay here")
        if any(result.status == "interrupted" for result in results):
            raise KeyboardInterrupt
        failed = [result.name for result in results if result.status == "failed"]
        if failed:
            raise NotebookError(
                f"{len(failed)} of {len(results)} runs failed: {', '.join(failed)}",
                remedy=f"look at {output.work}/index.html; the same command executes only what is not finished",
            )


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "notebook": task.job.name,
        "parameters": dict(task.job.parameters),
        "done": task.done,
    }


def _summary(results: Sequence[execute.Result], out: Path) -> dict[str, Any]:
    """Return how the notebooks ended, for programs."""
    return {
        "out": str(out),
        "index": str(out / "index.html"),
        "succeeded": sum(result.status == "ok" for result in results),
        "results": [
            {
                "name": result.name,
                "title": result.title,
                "status": result.status,
                "duration_s": round(result.duration_s, 3),
                "error": result.error or None,
            }
            for result in results
        ],
    }


def _list(paths: Sequence[Path], as_json: bool) -> None:
    import json

    from wasmlab.notebooks import conventions

    found = [(path.stem, json.loads(path.read_text())) for path in paths]
    if as_json:
        emit(
            {
                "notebooks": [
                    {
                        "name": stem,
                        "title": conventions.title(document),
                        "parameters": [
                            vars(parameter) for parameter in conventions.parameters(document).values()
                        ],
                    }
                    for stem, document in found
                ]
            }
        )
        return
    for stem, document in found:
        print(f"{stem}: {conventions.title(document)}")
        for parameter in conventions.parameters(document).values():
            print(f"    {parameter.name}: {parameter.type} = {parameter.default!r}  # {parameter.help}")


def _conclude(results: Sequence[execute.Result], out: Path, elapsed_s: float) -> None:
    succeeded = sum(result.status == "ok" for result in results)
    say(f"\n{succeeded} of {len(results)} notebooks succeeded in {elapsed_s:.0f} s")
    for title, where in (
        ("pages", f"{out}/index.html"),
        ("notebooks", f"{out}/*.ipynb"),
        ("plots", f"{out}/plots/*.png"),
        ("results", f"{out}/results/*.parquet"),
    ):
        say(f"  {title:<10} {where}")
    if any(result.status == "interrupted" for result in results):
        raise KeyboardInterrupt
    failed = [result.name for result in results if result.status == "failed"]
    if failed:
        raise NotebookError(
            f"{len(failed)} of {len(results)} notebooks failed: {', '.join(failed)}",
            remedy=f"read {out}/{failed[0]}.html, then: wasmlab lab --only {failed[0][:2]}",
        )
