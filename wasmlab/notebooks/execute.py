"""Execute the notebooks in order and leave behind pages, plots and results.

Everything that can be refused is refused before the first kernel starts: a missing directory, an unknown notebook,
an unknown or ill-typed parameter. After that, one failing notebook never keeps the others from running, and what it
had produced until then stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wasmlab.errors import NotebookError
from wasmlab.modules.files import root
from wasmlab.notebooks import conventions
from wasmlab.paths import atomic_write, file_lock
from wasmlab.process import tail

Status = Literal["ok", "failed", "interrupted", "not run"]
Preset = Literal["default", "quick", "full"]


@dataclass(frozen=True)
class Job:
    """One notebook to execute, with the parameters it will get."""

    path: Path
    title: str
    parameters: dict[str, Any] = field(default_factory=dict)
    expected_s: float = 20.0
    label: str = ""

    @property
    def name(self) -> str:
        """Stem of the file, e.g. ``07_cold_start``."""
        return self.path.stem

    @property
    def shown(self) -> str:
        """What progress calls it: its label if it has one (a batch runs a notebook more than once)."""
        return self.label or self.name


@dataclass(frozen=True)
class Result:
    """How one notebook ended.

    Parameters
    ----------
    name, title : str
        Which notebook.
    status : {"ok", "failed", "interrupted", "not run"}
        How it ended.
    duration_s : float
        Seconds, from the start of the kernel to the written page.
    error : str
        Exception and source of the cell that failed; empty if none did.
    """

    name: str
    title: str
    status: Status
    duration_s: float = 0.0
    error: str = ""


class Progress:
    """What `run` tells while it works; the methods do nothing here."""

    def notebook_started(self, job: Job) -> None:
        """Announce that a notebook starts."""

    def cell_started(self, job: Job, index: int, count: int) -> None:
        """Announce that a cell starts."""

    def notebook_ended(self, job: Job, result: Result) -> None:
        """Announce how a notebook ended."""


def find_directory(given: Path | None = None) -> Path:
    """Return the directory of the notebooks: the given one, ``./notebooks``, or the one of this checkout.

    Raises
    ------
    NotebookError
        If there is none.
    """
    tried = [given] if given else [Path("notebooks"), root() / "notebooks"]
    for directory in tried:
        if directory.is_dir() and any(directory.glob("[0-9][0-9]_*.ipynb")):
            return directory.resolve()
    raise NotebookError(
        f"no notebooks in {' or '.join(str(directory) for directory in tried)}",
        remedy="run this in a checkout of the lab, or say where they are: --notebooks DIR",
    )


def select(directory: Path, only: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks in order; with `only`, those whose number or name it lists.

    Raises
    ------
    NotebookError
        If a selector matches nothing.
    """
    every = sorted(directory.glob("[0-9][0-9]_*.ipynb"))
    if not only:
        return every
    chosen: set[Path] = set()
    for word in only:
        stem = Path(word).name.removesuffix(".ipynb")
        matches = [path for path in every if stem in (path.stem, path.stem[:2])]
        if not matches:
            raise NotebookError(
                f"there is no notebook {word!r}", remedy="one of: " + ", ".join(path.stem for path in every)
            )
        chosen.update(matches)
    return sorted(chosen)


def plan(
    paths: Iterable[Path],
    given: Mapping[str, str] | None = None,
    preset: Preset = "default",
    expected_s: Mapping[str, float] | None = None,
) -> list[Job]:
    """Read the notebooks and decide which parameters each one gets.

    Parameters
    ----------
    paths : iterable of Path
        The notebooks.
    given : mapping of str to str
        Parameters as typed. Each goes to every selected notebook that declares it.
    preset : {"default", "quick", "full"}
        ``quick`` and ``full`` apply the values that a notebook keeps under that name in its metadata.
    expected_s : mapping of str to float
        Durations of an earlier run, by stem, for the estimate of what remains.

    Raises
    ------
    NotebookError
        If a parameter is declared by none of them, or its value has another type, or a file is no notebook.
    """
    given = dict(given or {})
    documents: list[tuple[Path, dict[str, Any], dict[str, conventions.Parameter]]] = []
    for path in paths:
        try:
            document = json.loads(path.read_text())
            documents.append((path, document, conventions.parameters(document)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
            raise NotebookError(f"{path.name} cannot be read as a notebook: {error}") from error
        except NotebookError as error:
            raise NotebookError(f"{path.name}: {error.message}") from error
    known = sorted({name for _, _, declared in documents for name in declared})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise NotebookError(
            f"no selected notebook has the parameter{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            remedy="they have: " + ", ".join(known),
        )
    jobs = []
    for path, document, declared in documents:
        extra = document.get("metadata", {}).get("wasmlab", {})
        values = dict(extra.get(preset, {}))
        values |= {name: declared[name].parse(text) for name, text in given.items() if name in declared}
        expected = (expected_s or {}).get(path.stem, float(extra.get("expected_s", 20)))
        jobs.append(Job(path, conventions.title(document) or path.stem, values, expected))
    return jobs


def run(
    jobs: Sequence[Job],
    out: Path,
    *,
    cell_timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> list[Result]:
    """Execute the notebooks one after the other.

    Parameters
    ----------
    jobs : sequence of Job
        From `plan`.
    out : Path
        Where everything goes: ``NAME.ipynb``, ``NAME.html``, ``index.html``, ``plots/``, ``results/``.
    cell_timeout_s : float
        How long a single cell may take.
    progress : Progress, optional
        Told about every notebook and cell.

    Returns
    -------
    list of Result
        One per notebook. On Ctrl-C the running one is ``interrupted`` and the rest ``not run``.

    Raises
    ------
    NotebookError
        If `out` cannot be written.
    WasmlabError
        If another run writes to `out`.
    """
    progress = progress or Progress()
    try:
        for directory in (out, out / "plots", out / "results"):
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotebookError(
            f"cannot write reports to {out}: {error.strerror}", remedy="choose another directory: --out DIR"
        ) from error
    _sweep()
    results: list[Result] = []
    with (
        file_lock(out / ".lock", 0, what=f"the report directory {out}"),
        tempfile.TemporaryDirectory(prefix=f"wasmlab-lab-{os.getpid()}-") as scratch,
    ):
        for job in jobs:
            if results and results[-1].status in ("interrupted", "not run"):
                results.append(Result(job.name, job.title, "not run"))
                continue
            progress.notebook_started(job)
            started = time.monotonic()
            result = _execute(job, out, Path(scratch), cell_timeout_s, progress)
            try:
                _page(job, jobs, out)
            except Exception as error:  # the page is lost, the other notebooks need not be
                text = f"{result.error}\nits page could not be written: {type(error).__name__}: {error}"
                status: Status = "failed" if result.status == "ok" else result.status
                result = replace(result, status=status, error=text.strip())
            result = replace(result, duration_s=time.monotonic() - started)
            results.append(result)
            progress.notebook_ended(job, result)
        _summary(results, out)
    return results


def _sweep() -> None:
    """Remove the scratch directories of runs that were killed: their name says whose they were."""
    for path in Path(tempfile.gettempdir()).glob("wasmlab-lab-*-*"):
        pid = path.name.split("-")[2]
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and pid.isdecimal() and not Path("/proc", pid).exists():
                shutil.rmtree(path, ignore_errors=True)


def _execute(job: Job, out: Path, scratch: Path, cell_timeout_s: float, progress: Progress) -> Result:
    # Heavy, and only needed from here on.
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from wasmlab.notebooks import kernel

    target = out / f"{job.name}.ipynb"
    target.unlink(missing_ok=True)  # a stale success must not pass for the outcome of this run
    (scratch / job.name).mkdir()
    status: Status = "ok"
    error = ""
    try:
        papermill.execute_notebook(
            # Braces in the path would be taken for papermill's templates; a loaded notebook is not a path.
            job.path if "{" not in str(job.path) else _load(job.path),
            str(target).replace("{", "{{").replace("}", "}}"),
            parameters=job.parameters,
            engine_name=kernel.ENGINE,
            kernel_name="python3",
            progress_bar=False,
            env=_environment(out, scratch / job.name),
            kernel_cwd=job.path.parent,
            scratch=scratch / job.name,
            cell_timeout_s=cell_timeout_s,
            on_cell=lambda index, count: progress.cell_started(job, index, count),
        )
    except PapermillExecutionError as failure:
        status = "failed"
        error = f"{failure.ename}: {_plain(failure.evalue)}\nin the cell\n{_indent(failure.source)}"
    except CellTimeoutError as failure:
        status, error = "failed", _plain(str(failure))
    except DeadKernelError:
        said = tail(scratch / job.name / kernel.LOG, 10)
        status, error = "failed", f"the kernel died (out of memory?)\n{_indent(said)}".rstrip()
    except KeyboardInterrupt:
        status = "interrupted"
    return Result(job.name, job.title, status, error=error)


def _load(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def _environment(out: Path, ipython_dir: Path) -> dict[str, str]:
    return {
        **os.environ,
        "WASMLAB_REPORTS": str(out.resolve()),
        "IPYTHONDIR": str(ipython_dir),  # nobody's start-up files
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger would warn on stderr
    }


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _page(job: Job, jobs: Sequence[Job], out: Path) -> None:
    from wasmlab.notebooks import html

    executed = out / f"{job.name}.ipynb"
    if not executed.exists():
        return
    # Links to pages that exist, or will when this run is over.
    names = {path.stem for path in out.glob("[0-9][0-9]_*.html")} | {one.name for one in jobs}
    html.render(
        _load(executed),
        executed.with_suffix(".html"),
        before=max((name for name in names if name < job.name), default=""),
        after=min((name for name in names if name > job.name), default=""),
    )


def history(out: Path) -> dict[str, dict[str, Any]]:
    """Return what is known about the notebooks executed into `out`, by stem: title, status, duration_s, when."""
    try:
        known = json.loads((out / "runs.json").read_text())
        return {name: dict(entry) for name, entry in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # nothing worth failing for: it only helps to estimate


def durations(out: Path) -> dict[str, float]:
    """Return how long each notebook took when it last ran, if it succeeded, by stem."""
    return {
        name: float(entry["duration_s"])
        for name, entry in history(out).items()
        if entry.get("status") == "ok" and isinstance(entry.get("duration_s"), int | float)
    }


def _summary(results: Sequence[Result], out: Path) -> None:
    from wasmlab.notebooks import html

    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    known = {name: entry for name, entry in history(out).items() if (out / f"{name}.html").exists()}
    for result in results:
        if result.status != "not run":
            known[result.name] = {
                "title": result.title,
                "status": result.status,
                "duration_s": round(result.duration_s, 1),
                "when": when,
            }
    atomic_write(out / "runs.json", json.dumps(known, indent=1) + "\n", mode=0o644)
    html.index(known, sorted(path.name for path in (out / "plots").glob("*.png")), out / "index.html")
