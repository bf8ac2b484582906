"""Commands and their output, live where they can run, else as they were recorded, and marked so.

A notebook that needs a cluster or root writes each step as ``play("name", lambda: ...)``. Live, the function is called
and what it returns is kept; elsewhere the recorded value of that name is returned and the function is not called.
``python -m wasmlab.notebooks.transcript`` records all of them again (06 where it can run); with numbers only those.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wasmlab.errors import NotebookError
from wasmlab.notebooks import kit
from wasmlab.paths import atomic_write

# Notebook -> its recording, data/recorded/<name>.json.
RECORDINGS = {
    "02": "two_engines",
    "03": "oci_artifact",
    "04": "control_plane",
    "05": "node",
    "06": "runtime_class",
}


class Transcript:
    """The steps of one notebook.

    Parameters
    ----------
    name : str
        Of the recording, ``data/recorded/<name>.json``.
    live : bool
        Whether steps are carried out here.
    settings : mapping, optional
        Parameters that change what the steps show; they are recorded, and a recording shows no other ones.
    recording : Path, optional
        Another file.

    Raises
    ------
    NotebookError
        If nothing is carried out and the recording cannot be read, or was made with other settings.
    """

    def __init__(
        self,
        name: str,
        *,
        live: bool,
        settings: Mapping[str, Any] | None = None,
        recording: Path | None = None,
    ) -> None:
        from wasmlab.modules.files import data_dir

        self.name = name
        self.live = live
        self._settings = dict(settings or {})
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
        made_with = self._about.get("settings", {})
        other = sorted(key for key, value in self._settings.items() if made_with.get(key, value) != value)
        if other:
            had = ", ".join(f"{key}={made_with[key]}" for key in other)
            asked = ", ".join(f"{key}={self._settings[key]}" for key in other)
            raise NotebookError(
                f"the recording {name} was made with {had}; it cannot show {asked}",
                remedy="leave these parameters out, or carry it out: source=live",
            )

    @property
    def where(self) -> str:
        """Whether this is live, and if not, when and where it was recorded."""
        return "carried out just now, on this machine" if self.live else self.recorded

    @property
    def recorded(self) -> str:
        """When and where it was recorded; empty if this is live. For figures: see `kit.show`."""
        return "" if self.live else f"recorded {self._about['date']} on {self._about['machine']}"

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
            "settings": self._settings,
        }
        text = json.dumps({"about": about, "steps": self._steps}, indent=1, ensure_ascii=False)
        for private, public in {**(replace or {}), **_private()}.items():
            # As a whole word: a short host name must not be found inside other words.
            text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", public, text) if private else text
        path = kit.reports("results") / f"{self.name}.json"
        atomic_write(path, text + "\n", mode=0o644)
        return path


def _private() -> dict[str, str]:
    """Return what a recording must not tell of this machine, and what stands for it."""
    # Of the kernel's release only the number says something: the rest is how a provider calls its images.
    release = platform.release()
    found = {platform.node(): "this-host", release: re.split(r"[^0-9.]", release)[0]}
    for file, public in (
        ("/etc/machine-id", "machine-id"),
        ("/proc/sys/kernel/random/boot_id", "boot-id"),
        ("/sys/class/dmi/id/product_uuid", "product-uuid"),
    ):
        with contextlib.suppress(OSError):
            found[Path(file).read_text().strip()] = public
    return found


def record(out: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """Execute notebooks and keep what they carried out in `out`.

    Parameters
    ----------
    out : Path
        The directory of the recordings.
    numbers : sequence of str
        Keys of `RECORDINGS`; all of them if empty, and then what cannot run here (06 without root) is left as it is.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    NotebookError
        If a notebook failed, or one that was asked for could not carry anything out here.
    """
    import tempfile

    from wasmlab.notebooks import execute

    written = []
    with tempfile.TemporaryDirectory(prefix="wasmlab-record-") as scratch:
        for number in numbers or RECORDINGS:
            jobs = execute.plan(execute.select(execute.find_directory(), [number]))
            (result,) = execute.run(jobs, Path(scratch))
            made = Path(scratch) / "results" / f"{RECORDINGS[number]}.json"
            if result.status != "ok" or (numbers and not made.exists()):
                raise NotebookError(
                    f"notebook {number} was not recorded: {result.error or 'it cannot run here'}",
                    remedy="03 to 05 need the control plane (`make kube`), 06 root, containerd and runc",
                )
            if made.exists():
                atomic_write(out / made.name, made.read_bytes(), mode=0o644)
                written.append(out / made.name)
    return written


if __name__ == "__main__":
    for path in record(Path("data/recorded"), sys.argv[1:]):
        print(path)
