"""How every figure of the lab looks: one style, colors that stay apart for color-blind readers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every common kind of color blindness, and in gray.
# A variant of an engine has a lighter or darker relative of its color.
ENGINE_COLORS = {
    "wasmtime": "#0072B2",
    "wasmtime-runner": "#003E63",
    "wasmtime-winch": "#56B4E9",
    "wasmer": "#D55E00",
    "wasmer-native": "#8C3D00",
    "wasmer-singlepass": "#E69F00",
    "wasmer-sdk": "#CC79A7",
    "runc": "#009E73",
    "native": "#7A7A7A",
}

INK, PALE, GRID = "#222222", "#6B6B6B", "#E3E3E3"
# What was not measured just now says so in a color of its own.
RECORDED = "#8A3B00"

STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


class LabFigure(Figure):
    """A figure that shows itself in a notebook, sharp on every screen, without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        return buffer.getvalue(), {
            "width": round(self.get_figwidth() * self.dpi),
            "height": round(self.get_figheight() * self.dpi),
        }


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the lab's style while the body runs.

    Returns
    -------
    context manager
        Of matplotlib's settings.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
        What to write.
    path : path
        The file; directories are made.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=STYLE["savefig.dpi"], metadata={"Software": None})
    return path
