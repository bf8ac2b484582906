"""Commands and their output, live where they can run, else as they were recorded, and marked so.

A notebook that needs root writes each step as ``play("name", lambda: ...)``. Live, the function is called and what it
returns is kept; elsewhere the recorded value of that name is returned and the function is not called.
``python -m wasmlab.notebooks.transcript`` records notebook 06 again.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks import kit
from wasmlab.paths import atomic_write


class Transcript:
    """The steps of one notebook.

    Parameters
    ----------
    name : str
        Of the recording, ``data/recorded/<name>.json``.
    live : bool
        Whether steps are carried out here.
    recording : Path, optional
        Another file.

    Raises
    ------
    NotebookError
        If nothing is carried out and the recording cannot be read.
    """

    def __init__(self, name: str, *, live: bool, recording: Path | None = None) -> None:
        from wasmlab.modules.files import data_dir

        self.name = name
        self.live = live
        self._steps: dict[str, Any] = {}
        self._about: dict[str, Any] = {}
        if live:
            return
        path = recording or data_dir("recorded") / f"{name}.json"
        try:
            content = json.loads(path.read_text())
            self._about, self._steps = content["about"], content["steps"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotebookError(
                f"the recorded output in {path} cannot be read: {error}",
                remedy="restore the file from the repository",
            ) from error

    @property
    def where(self) -> str:
        """Whether this is live, and if not, when and where it was recorded."""
        if self.live:
            return "carried out just now, on this machine"
        return f"recorded {self._about['date']} on {self._about['machine']}"

    def __call__(self, step: str, act: Callable[[], Any]) -> Any:
        """Carry out a step and return its value, or return the recorded one.

        Parameters
        ----------
        step : str
            Its name.
        act : callable
            Returns text, or anything that JSON can hold.

        Raises
        ------
        NotebookError
            If the recording has no such step.
        """
        if self.live:
            self._steps[step] = act()
        elif step not in self._steps:
            raise NotebookError(
                f"the recording {self.name} has no step {step!r}",
                remedy="record it again, as root: python -m wasmlab.notebooks.transcript",
            )
        return self._steps[step]

    def show(self, step: str, act: Callable[[], str], **excerpt: Any) -> str:
        """Print what a step says, marked if it was recorded; returns the text."""
        text: str = self(step, act)
        if not self.live:
            print(f"[recorded {self._about['date']}]")
        if excerpt:
            kit.excerpt(text, **excerpt)
        else:
            print(text)
        return text

    def keep(self, replace: Mapping[str, str] | None = None) -> Path | None:
        """Write what was carried out to ``results/<name>.json`` of the reports; nothing if it was recorded.

        Parameters
        ----------
        replace : mapping, optional
            Text that belongs to this machine alone -> what stands for it.
        """
        if not self.live:
            return None
        from wasmlab.bench import environment

        facts = environment.fingerprint()
        about = {
            "date": environment.now_utc()[:10],
            "machine": environment.describe(facts),
            "fingerprint": facts["id"],
        }
        text = json.dumps({"about": about, "steps": self._steps}, indent=1, ensure_ascii=False)
        for private, public in {**(replace or {}), platform.node(): "this-host"}.items():
            # As a whole word: a short host name must not be found inside other words.
            text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", public, text) if private else text
        path = kit.reports("results") / f"{self.name}.json"
        atomic_write(path, text + "\n", mode=0o644)
        return path


def record(out: Path) -> Path:
    """Execute notebook 06 and keep what it carried out as ``<out>/runtime_class.json``.

    Raises
    ------
    NotebookError
        If the notebook failed, or could not carry anything out here.
    """
    import tempfile

    from wasmlab.notebooks import execute

    with tempfile.TemporaryDirectory(prefix="wasmlab-record-") as scratch:
        jobs = execute.plan(execute.select(execute.find_directory(), ["06"]))
        (result,) = execute.run(jobs, Path(scratch))
        made = Path(scratch) / "results" / "runtime_class.json"
        if result.status != "ok" or not made.exists():
            raise NotebookError(
                f"nothing was recorded: {result.error or 'no container node runs here'}",
                remedy="run this as root where containerd and runc are installed",
            )
        target = out / made.name
        atomic_write(target, made.read_bytes(), mode=0o644)
    return target


if __name__ == "__main__":
    print(record(Path("data/recorded")))
