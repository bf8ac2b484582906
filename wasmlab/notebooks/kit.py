"""What the notebooks use: figures and tables that are shown and kept, excerpts, diagrams, a cluster, the footer.

A notebook tells a story; everything that is not the story is here. When `wasmlab lab` executes a notebook, figures
and results go to its report directory; in JupyterLab they go to ``reports/`` of the checkout.
"""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.errors import NotReady
from wasmlab.modules.files import MATERIAL, root
from wasmlab.notebooks import diagrams

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wasmlab.bench.store import Results
    from wasmlab.cluster import Cluster, NodeHandle
    from wasmlab.sandbox.spec import CapturedOutcome


def repository() -> Path:
    """Return the directory that ``data/`` and ``notebooks/`` are in."""
    return root()


def reports(*parts: str) -> Path:
    """Return the report directory, or a directory below it; it is created."""
    base = repository()
    # An installed package is no place for reports.
    beside = base / "reports" if base.name != MATERIAL else Path("reports")
    path = Path(os.environ.get("WASMLAB_REPORTS") or beside).joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def canvas(width: float = 7.2, height: float = 3.2) -> tuple[Figure, Axes]:
    """Return an empty figure of the lab's style and its axes; `width` and `height` in inches."""
    from wasmlab import plots

    with plots.style():
        figure = plots.LabFigure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def show(figure: Figure, name: str, alt: str, *, recorded: str = "") -> None:
    """Show a figure and keep it as ``plots/<name>.png``.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        From `canvas` or `wasmlab.plots`.
    name : str
        Starts with the number of the notebook, so that the plots sort like the notebooks.
    alt : str
        What the figure shows, for readers who do not see it.
    recorded : str
        When and where it was recorded, written below a figure that does not say so itself (`wasmlab.plots` do).
    """
    from IPython.display import Image, display

    from wasmlab import plots

    path = reports("plots") / f"{name}.png"
    with plots.style():
        if recorded:
            plots.mark_recorded(figure, recorded)
        # A picture is copied out of its page: what it shows, and that it is recorded, goes along.
        about = {"Description": alt, **({"Comment": told} if (told := _recorded(figure)) else {})}
        # Twice the pixels of its size on the page: sharp on any screen. No software version: the same figure, the
        # same bytes.
        figure.savefig(path, dpi=200, metadata={"Software": None, **about})
    display(Image(filename=str(path), width=round(figure.get_figwidth() * 100), alt=alt))


def draw(figure: Figure, alt: str) -> Any:
    """Show a figure that explains and shows no results; it is not kept with the plots.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        From `wasmlab.plots`.
    alt : str
        What it shows, for readers who do not see it.
    """
    import io

    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None, "Description": alt})
    return Image(data=buffer.getvalue(), width=round(figure.get_figwidth() * 100), alt=alt)


def _recorded(figure: Figure) -> str:
    """Return the line of a figure that says that it is recorded; empty if none does."""
    from matplotlib.text import Text

    lines = (line for text in figure.findobj(Text) for line in text.get_text().splitlines())
    return next((line for line in lines if line.startswith("recorded ")), "")


def table(rows: Any, *, formats: Mapping[str, str] | None = None) -> Any:
    """Show rows (records, or a data frame) as a table without an index.

    Parameters
    ----------
    rows : DataFrame or iterable of mappings
        What to show.
    formats : mapping of str to str
        Format specifications by column, e.g. ``{"p50_ms": "{:.1f}"}``.
    """
    import pandas

    frame = rows if isinstance(rows, pandas.DataFrame) else pandas.DataFrame(list(rows))
    return (
        frame.style.hide(axis="index")
        .format(dict(formats or {}), na_rep="–", escape="html")
        .set_properties(**{"text-align": "left", "max-width": "34rem"})
        .set_table_styles([{"selector": "th", "props": "text-align: left"}])
    )


def excerpt(text: str, start: str = "", stop: str = "", lines: int = 40) -> None:
    """Print a part of a longer text, with a mark where something is left out.

    Parameters
    ----------
    text : str
        The whole.
    start, stop : str
        Begin with the first line that starts with `start`, end before the next that starts with `stop`.
    lines : int
        At most so many.
    """
    every = text.splitlines()
    first = next((i for i, line in enumerate(every) if start and line.startswith(start)), 0)
    last = next(
        (i for i, line in enumerate(every[first + 1 :], first + 1) if stop and line.startswith(stop)), None
    )
    chosen = every[first:last]
    left_out = max(0, len(chosen) - lines)
    if first:
        print("…")
    print("\n".join(chosen[:lines]))
    if left_out or (last is not None and last < len(every)):
        print("…")


def as_yaml(value: Any) -> str:
    """Return an object as YAML, the way people write Kubernetes manifests."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False)


def wrapped(text: str, width: int = 100) -> None:
    """Print a long message in lines that fit the page."""
    print(textwrap.fill(text, width))


def diagram(
    boxes: Mapping[str, diagrams.Box], arrows: Sequence[diagrams.Arrow], highlight: Sequence[str] = ()
) -> Any:
    """Show boxes and arrows; see `wasmlab.notebooks.diagrams.diagram`."""
    from IPython.display import SVG

    return SVG(diagrams.diagram(boxes, arrows, highlight=highlight))


def chain(*boxes: tuple[str, str], labels: Sequence[str] = (), highlight: int | None = None) -> Any:
    """Show a chain of boxes; see `wasmlab.notebooks.diagrams.chain`."""
    from IPython.display import SVG

    return SVG(diagrams.chain(*boxes, labels=labels, highlight=highlight))


def say(*sentences: str) -> Any:
    """Show sentences that were built from results, as Markdown."""
    from IPython.display import Markdown

    return Markdown("\n\n".join(sentences))


def ending(outcome: CapturedOutcome) -> str:
    """Say how a run ended: its exit code and last line, or the reason of the trap."""
    if outcome.trap:
        return f"trap: {outcome.trap.replace('_', ' ')}"
    said = outcome.stdout.decode(errors="replace").strip().splitlines()
    return f"exit code {outcome.exit_code}" + (f", printed {said[-1]!r}" if said else "")


def provenance(results: Results) -> str:
    """Say when and where results were measured, and whether they came with the repository."""
    return ("recorded " if results.is_recorded else "") + results.where


def until(look: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> Any:
    """Look again and again until there is something, and return it.

    Parameters
    ----------
    look : callable
        Returns something true when there is something to return.
    timeout_s : float
        The deadline, in seconds.
    what : str
        What is waited for, for the error.

    Raises
    ------
    NotReady
        At the deadline.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise NotReady(f"waited {timeout_s:g} s for {what or 'something'}, in vain", events=[])
        time.sleep(0.05)
    return found


def cluster(kubeconfig: str = "", registry: str = "") -> Cluster:
    """Return the cluster that a notebook works with, without a node; it is to be stopped at the end.

    Parameters
    ----------
    kubeconfig : str
        Of a cluster of the reader's, in which the lab is a guest; empty starts an embedded one.
    registry : str
        ``host:port`` that the nodes of that cluster can pull from.
    """
    from wasmlab.cluster import Cluster

    if kubeconfig:
        return Cluster.from_kubeconfig(kubeconfig, registry=registry)
    return Cluster.embedded(node=False)


def remove_node(cluster: Cluster, node: NodeHandle) -> None:
    """End a node agent and forget its Node; in a cluster that is not ours, its files go too."""
    node.stop()
    cluster.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}})
    if cluster.dir is None:
        shutil.rmtree(node.dir, ignore_errors=True)


def kubernetes_version(cluster: Cluster) -> str:
    """Return the version that the API server names."""
    from kubernetes import client

    return str(client.VersionApi(cluster.api).get_code().git_version)


def footer(kubernetes: str | None = None) -> Any:
    """Show where and when this was executed; every notebook ends with it.

    Parameters
    ----------
    kubernetes : str, optional
        Version of the cluster, for the notebooks that have one.
    """
    from wasmlab.bench import environment

    facts = environment.fingerprint(kubernetes=kubernetes)
    rows = {
        "executed": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "machine": environment.describe(facts),
        "Python": facts["python"],
        "engines": ", ".join(f"{name} {version}" for name, version in facts["engines"].items()),
        "Kubernetes": kubernetes or "",
        "wasmlab": facts["wasmlab"],
    }
    return table([{"Environment": key, "": value} for key, value in rows.items() if value])
