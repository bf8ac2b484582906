"""Put the recorded figures into the README: ``python -m wasmlab.readme``.

No figure in the README is typed by hand. The blocks between ``<!-- recorded:NAME -->`` and ``<!-- /recorded -->`` are
made from ``data/recorded`` alone, so a test can tell whether they still say what was measured.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

from wasmlab.bench.store import Results, load_recorded
from wasmlab.errors import WasmlabError
from wasmlab.paths import atomic_write
from wasmlab.report import headline_table, markdown

PLOT = Path("data/recorded/cold_start.svg")
_BLOCK = re.compile(r"(<!-- recorded:(\w+) -->\n).*?(<!-- /recorded -->)", re.DOTALL)


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


def plot(results: Results) -> str:
    """Return the cold-start figure as SVG text; the same results give the same text.

    Parameters
    ----------
    results : Results
        A recorded run with local and node paths.

    Returns
    -------
    str
        An SVG document with its text as text.
    """
    import matplotlib as mpl

    from wasmlab import plots

    # A fixed salt and no date: the file changes when the data does, and not otherwise.
    with mpl.rc_context({"svg.hashsalt": "wasmlab", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        plots.cold_start(results).savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def fill(text: str) -> str:
    """Return the README's text with every recorded block made anew.

    Raises
    ------
    WasmlabError
        If a block has a name nobody makes.
    """
    makers = {"figures": lambda: figures(load_recorded("figures"))}

    def block(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in makers:
            raise WasmlabError(f"the README has a block {name!r}; known are {', '.join(makers)}")
        return match.group(1) + makers[name]() + match.group(3)

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
        root / PLOT: plot(load_recorded()),
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
