"""What of ``docs`` is written from the code: the reference, and the picture of the architecture.

``python -m wasmlab.reference`` writes it, ``--check`` says whether they are what they should be. Nothing on them
is written twice: who changes a docstring or an option writes them again, and a test compares.

`python` makes the pages of the packages from docstrings, `commandline` that of the commands from their parsers;
`documents` says what ``--json`` prints; `picture` draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def pages() -> dict[str, str]:
    """Return every page by its place below ``docs``.

    Returns
    -------
    dict of str to str
        The same on every machine.
    """
    from wasmlab.reference import commandline, documents, picture, python

    made = {"cli.md": commandline.page(), "json.md": documents.page(), **python.pages()}
    rows = [(title(text), name, about(text)) for name, text in made.items()]
    index = [
        "# Reference",
        "",
        "Written from the code by `python -m wasmlab.reference`.",
        "",
        "| page | |",
        "| --- | --- |",
    ]
    index += [f"| [{name}]({file}) | {what} |" for name, file, what in rows]
    made = {"README.md": "\n".join(index) + "\n", **made}
    return {"architecture.svg": picture.architecture()} | {
        f"reference/{name}": page for name, page in made.items()
    }


def title(page: str) -> str:
    """Return the heading of a page."""
    return page.partition("\n")[0].removeprefix("# ")


def about(page: str) -> str:
    """Return the first sentence of a page."""
    return page.split("\n\n")[1].replace("\n", " ").split(". ")[0].rstrip(".:")


def write(directory: Path) -> list[Path]:
    """Write the pages, and remove those that are no longer made.

    Parameters
    ----------
    directory : Path
        Usually ``docs``. What is in its ``reference`` is all written here.

    Returns
    -------
    list of Path
        What has changed.
    """
    (directory / "reference").mkdir(parents=True, exist_ok=True)
    made = pages()
    old = stale(directory, made)
    for name in old:
        path = directory / name
        if name in made:
            path.write_text(made[name])
        else:
            path.unlink()
    return [directory / name for name in old]


def stale(directory: Path, made: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of pages that are not as they would be written, or should not be there.

    Parameters
    ----------
    directory : Path
        Usually ``docs``.
    made : mapping, optional
        What `pages` returned.
    """
    made = pages() if made is None else made
    names = {f"reference/{path.name}" for path in directory.glob("reference/*")} | set(made)
    return sorted(name for name in names if _read(directory / name) != made.get(name))


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
