"""Execute many notebooks with many parameter sets, and go on where an earlier try stopped.

Each run has a directory of its own under the output: the executed notebook, its page, plots and results. ``batch.json``
says after each run what is done, so a batch that was killed repeats no finished run: a run counts as finished if it
succeeded with the same notebook (by content) and the same parameters, and its notebook is still there.

The output may be any path that papermill can write to (``s3://``, ``gs://``, ``abs://``, ``https://`` ...). Then the
runs are executed into a directory of the cache, and notebooks, pages, index and ``batch.json`` are copied out after
each run. Plots and results are binary, which papermill's writers do not take: the plots are in the notebooks and pages,
the results stay in that directory, and the end of the batch says where it is. Over ``http(s)://`` papermill sends JSON
and nothing else, so there the pages stay too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks import batchplan, conventions, execute
from wasmlab.paths import atomic_write, cache_dir, file_lock

_STATE = "batch.json"


@dataclass(frozen=True)
class Task:
    """A run that is ready to be executed, or was finished earlier.

    Parameters
    ----------
    name : str
        Name of its directory.
    job : execute.Job
        Notebook and parameters.
    digest : str
        `batchplan.digest` of them.
    done : bool
        Whether an earlier batch finished it.
    """

    name: str
    job: execute.Job
    digest: str
    done: bool


@dataclass(frozen=True)
class Output:
    """Where a batch goes.

    Parameters
    ----------
    where : str
        As given.
    work : Path
        The directory that the runs are executed into; `where` itself if that is local.
    remote : bool
        Whether texts are copied to `where`.
    """

    where: str
    work: Path
    remote: bool

    @classmethod
    def of(cls, where: str) -> Output:
        """Tell a local directory from what only papermill can write to."""
        if not re.match(r"[a-z][a-z0-9+.-]*://", where):
            return cls(where, Path(where), False)
        name = hashlib.sha256(where.encode()).hexdigest()[:16]
        return cls(where.rstrip("/"), cache_dir("batch", name), True)

    def publish(self, *names: str) -> None:
        """Copy texts to where the batch goes, as far as papermill takes them there.

        Raises
        ------
        NotebookError
            If it cannot be written.
        """
        if not self.remote:
            return
        from papermill.iorw import papermill_io

        for name in names:
            path = self.work / name
            if not path.exists() or (self.where.startswith("http") and path.suffix == ".html"):
                continue
            try:
                papermill_io.write(path.read_text(), f"{self.where}/{name}", [path.suffix])
            except Exception as error:  # whatever the storage's own library raises
                raise NotebookError(
                    f"cannot write {self.where}/{name}: {type(error).__name__}: {error}",
                    remedy=f"what was executed is in {self.work}; mend the output and run the batch again",
                ) from error


def prepare(plan: Any, notebooks: Path, output: Output, *, again: bool = False) -> list[Task]:
    """Check a plan against the notebooks and what was done before.

    Parameters
    ----------
    plan : object
        From YAML; see `wasmlab.notebooks.batchplan`.
    notebooks : Path
        Directory of the notebooks that are named by number or name.
    again : bool
        Execute everything, finished or not.

    Raises
    ------
    NotebookError
        If anything is wrong with it, before anything runs.
    """
    known = {} if again else _state(output.work)
    tasks = []
    for run in batchplan.parse(plan):
        (path,) = [Path(run.notebook)] if "/" in run.notebook else execute.select(notebooks, [run.notebook])
        (job,) = execute.plan([path])
        content = path.read_bytes()
        values = run.values(conventions.parameters(json.loads(content)))
        digest = batchplan.digest(content, values)
        earlier = known.get(run.name, {})
        done = (
            earlier.get("status") == "ok"
            and earlier.get("digest") == digest
            and (output.work / run.name / path.name).exists()
        )
        expected_s = earlier.get("duration_s") or job.expected_s
        tasks.append(
            Task(
                run.name, replace(job, parameters=values, label=run.name, expected_s=expected_s), digest, done
            )
        )
    return tasks


def run(
    tasks: Sequence[Task],
    output: Output,
    *,
    cell_timeout_s: float = 600.0,
    progress: execute.Progress | None = None,
) -> list[execute.Result]:
    """Execute what is not done yet, one after the other; a failure stops only itself.

    Returns
    -------
    list of execute.Result
        Of the tasks that were to be executed. On Ctrl-C the running one is ``interrupted`` and the rest ``not run``.

    Raises
    ------
    NotebookError
        If the output cannot be written.
    WasmlabError
        If another batch writes there.
    """
    try:
        output.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotebookError(
            f"cannot write the batch to {output.work}: {error.strerror}", remedy="choose another: --out DIR"
        ) from error
    results: list[execute.Result] = []
    with file_lock(output.work / ".lock", 0, what=f"the output {output.where}"):
        known = _state(output.work)
        state = {task.name: known[task.name] for task in tasks if task.done}
        for task in tasks:
            if task.done:
                continue
            if results and results[-1].status in ("interrupted", "not run"):
                results.append(execute.Result(task.name, task.job.title, "not run"))
                continue
            where = output.work / task.name
            (result,) = execute.run([task.job], where, cell_timeout_s=cell_timeout_s, progress=progress)
            result = replace(result, name=task.name)
            results.append(result)
            state[task.name] = {
                "notebook": task.job.path.name,
                "title": task.job.title,
                "parameters": task.job.parameters,
                "digest": task.digest,
                "status": result.status,
                "error": result.error,
                "duration_s": round(result.duration_s, 1),
                "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            }
            stem = f"{task.name}/{task.job.path.stem}"
            _keep(state, tasks, output)
            output.publish(f"{stem}.ipynb", f"{stem}.html", _STATE, "index.html")
        _keep(state, tasks, output)
        output.publish(_STATE, "index.html")
    return results


def _keep(state: dict[str, Any], tasks: Sequence[Task], output: Output) -> None:
    from wasmlab.notebooks import html

    atomic_write(output.work / _STATE, json.dumps(state, indent=1) + "\n", mode=0o644)
    html.batch_index([(task.name, state.get(task.name)) for task in tasks], output.work / "index.html")


def _state(work: Path) -> dict[str, Any]:
    try:
        known = json.loads((work / _STATE).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotebookError(
            f"{work / _STATE} cannot be read: {error}",
            remedy="it says which runs are finished; remove it to execute them all again",
        ) from error
    return known if isinstance(known, dict) else {}
