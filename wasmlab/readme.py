"""Put the recorded figures into the README: ``python -m wasmlab.readme``.

No figure in the README is typed by hand. The blocks between ``<!-- recorded:NAME -->`` and ``<!-- /recorded -->`` are
made from ``data/recorded`` alone, so a test can tell whether they still say what was measured; those between
``<!-- generated:NAME -->`` and ``<!-- /generated -->`` from the code.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wasmlab.bench.store import Results, load_recorded
from wasmlab.engines import table
from wasmlab.errors import WasmlabError
from wasmlab.paths import atomic_write
from wasmlab.report import arm_table, engine_table, headline_table, markdown, scale_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECTORY = Path("data/recorded")
# What tells which engine starts faster: a program that does nothing else, and a large one.
_STARTING = ("hello", "boolector", "python")
_BLOCK = re.compile(r"(<!-- (recorded|generated):(\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def figures(results: Results) -> str:
    """Return the table of headline figures, and where and when they were measured.

    Parameters
    ----------
    results : Results
        A run of ``wasmlab bench figures``.

    Returns
    -------
    str
        Markdown.
    """
    engines = ", ".join(
        f"{name} {version}" for name, version in sorted(results.environment["engines"].items())
    )
    return f"Measured {results.where}; {engines}.\n\n{markdown(headline_table(results))}\n"


def paths(results: Results) -> str:
    """Return the table of hello as a Pod down both paths.

    Parameters
    ----------
    results : Results
        A run of ``python -m wasmlab.bench.record_paths``.

    Returns
    -------
    str
        Markdown.
    """
    head, rows = arm_table(results)
    of_hello = [
        row for row in rows if row[0].startswith(("node ", "containerd ")) and row[0].endswith(" hello")
    ]
    return f"Measured {results.where}.\n\n{markdown((head, of_hello))}\n"


# What a newcomer wants to know first: words, and the headline figure that answers.
_AT_A_GLANCE = (
    ("control plane ready", "to a control plane that is ready"),
    ("pod written to Succeeded seen, wasmtime", "from the API write of a Pod to Succeeded on wasmtime"),
    ("pod written to Succeeded seen, wasmer", "on wasmer"),
    ("first byte in a warm worker, wasmtime", "to the first byte in a warm worker"),
    ("private memory of an idle pod (USS)", "of private memory for an idle Pod"),
)


def glance(results: Results) -> str:
    """Return the few figures of the first screen, as one sentence.

    Parameters
    ----------
    results : Results
        A run of ``wasmlab bench figures``.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    WasmlabError
        If the run lacks one of them.
    """
    table = {row[0]: row[1] for row in headline_table(results)[1]}
    missing = [name for name, _ in _AT_A_GLANCE if name not in table]
    if missing:
        raise WasmlabError(f"the recorded figures lack {', '.join(missing)}", remedy="make bench")
    said = ", ".join(f"**{table[name]}** {words}" for name, words in _AT_A_GLANCE)
    return f"Medians: {said}. Measured {results.where}; [how, and how sure](#figures).\n"


def starts(results: Results) -> str:
    """Return the table of starts, engine beside engine.

    Parameters
    ----------
    results : Results
        A run of ``wasmlab bench record``.

    Returns
    -------
    str
        Markdown.
    """
    return f"Measured {results.where}.\n\n{markdown(engine_table(results, _STARTING))}\n"


def scale(results: Results) -> str:
    """Return the table of cost curves, and where and when they were measured.

    Parameters
    ----------
    results : Results
        A run of ``wasmlab bench scale``.

    Returns
    -------
    str
        Markdown.
    """
    return f"Measured {results.where}.\n\n{markdown(scale_table(results))}\n"


def svg(draw: Callable[[], Figure]) -> str:
    """Draw a figure and return it as SVG text; the same figure gives the same text.

    Parameters
    ----------
    draw : callable
        Makes the figure.

    Returns
    -------
    str
        An SVG document with its text as text.
    """
    import matplotlib as mpl

    # A fixed salt and no date: the file changes when the data does, and not otherwise.
    with mpl.rc_context({"svg.hashsalt": "wasmlab", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        draw().savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def pictures() -> dict[Path, str]:
    """Return the README's pictures: path below the root, and SVG text."""
    from wasmlab import plots

    return {
        DIRECTORY / "cold_start.svg": svg(lambda: plots.cold_start(load_recorded())),
        DIRECTORY / "engine_ratios.svg": svg(
            lambda: plots.engine_ratios(load_recorded(), workloads=_STARTING)
        ),
        DIRECTORY / "control_ratios.svg": svg(lambda: plots.control_ratios(load_recorded("paths"))),
        DIRECTORY / "where_time_goes.svg": svg(lambda: plots.where_time_goes(load_recorded("paths"))),
    }


def fill(text: str) -> str:
    """Return the README's text with every block made anew.

    Raises
    ------
    WasmlabError
        If a block has a name nobody makes.
    """
    makers = {
        "figures": lambda: figures(load_recorded("figures")),
        "glance": lambda: glance(load_recorded("figures")),
        "starts": lambda: starts(load_recorded()),
        "paths": lambda: paths(load_recorded("paths")),
        "scale": lambda: scale(load_recorded("scale")),
        "engines": table.markdown,
    }

    def block(match: re.Match[str]) -> str:
        name = match.group(3)
        if name not in makers:
            raise WasmlabError(f"the README has a block {name!r}; known are {', '.join(makers)}")
        return match.group(1) + makers[name]() + match.group(4)

    return _BLOCK.sub(block, text)


def main() -> int:
    """Write the README and its plot; with ``--check`` only tell whether they are up to date."""
    parser = argparse.ArgumentParser(prog="python -m wasmlab.readme", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something is out of date"
    )
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    wanted = {
        root / "README.md": fill((root / "README.md").read_text()),
        **{root / path: text for path, text in pictures().items()},
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if arguments.check:
            print(f"{path.relative_to(root)} does not show the recorded data; run python -m wasmlab.readme")
        else:
            atomic_write(path, wanted[path], mode=0o644)
            print(f"wrote {path.relative_to(root)}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
