"""The reference in ``docs/reference``, written from docstrings, parsers and the table of JSON documents.

``python -m wasmlab.reference`` writes the pages, ``--check`` says whether they are what they should be. Nothing on them
is written twice: who changes a docstring or an option writes them again, and a test compares.

`python` makes the pages of the packages, `commandline` that of the commands; `documents` says what ``--json`` prints.
"""

from __future__ import annotations

from pathlib import Path


def pages() -> dict[str, str]:
    """Return every page by its file name.

    Returns
    -------
    dict of str to str
        Markdown; the same on every machine.
    """
    from wasmlab.reference import commandline, documents, python

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
    return {"README.md": "\n".join(index) + "\n", **made}


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
        Usually ``docs/reference``; nothing else may be in it.

    Returns
    -------
    list of Path
        What has changed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = pages()
    changed = [directory / name for name, text in made.items() if _read(directory / name) != text]
    for path in changed:
        path.write_text(made[path.name])
    gone = [path for path in directory.glob("*.md") if path.name not in made]
    for path in gone:
        path.unlink()
    return [*changed, *gone]


def stale(directory: Path) -> list[str]:
    """Return the names of pages that are not as they would be written, or should not be there."""
    made = pages()
    names = {path.name for path in directory.glob("*.md")} | set(made)
    return sorted(name for name in names if _read(directory / name) != made.get(name))


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
