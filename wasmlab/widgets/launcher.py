"""Choose a module, an engine and a path, start Pods, and watch the figures grow while they end.

One after the other is a measurement: the bench itself, interleaved in random order with the native controls, and the
medians with their intervals are the report's. All at once is a burst: how many pods a second, and where they wait.
`results` and `records` hold what was seen. Drawing takes the kernel about ten milliseconds, at most twice a second:
with a board beside it a burst of 500 pods costs it a little more than a second of CPU time.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from wasmlab.cluster import Cluster
from wasmlab.errors import BenchmarkError
from wasmlab.modules import workloads
from wasmlab.widgets import charts, html, lifetimes
from wasmlab.widgets.feed import thinned
from wasmlab.widgets.launching import MODES, Choice, Launch
from wasmlab.widgets.ownnode import OwnNode
from wasmlab.widgets.records import MEASURES, Standing, failures, standing, verdict
from wasmlab.widgets.waterfall import waterfall

if TYPE_CHECKING:
    from wasmlab.bench.store import Results
    from wasmlab.containerd import ContainerdNode
    from wasmlab.widgets.records import Ending, PodRecord

_REDRAW_S = 0.5
_ENGINES = {"wasmtime": ("wasmtime",), "wasmer": ("wasmer",), "side by side": ("wasmtime", "wasmer")}
_PATHS = {"path 1: WASM node": "node", "path 2: containerd": "containerd"}
_ORDERS = {"one after the other": False, "all at once": True}
_MOST = 500
# How long `close` waits for a launch that was cancelled.
_JOIN_S = 30.0


class Launcher(widgets.VBox):
    """Start Pods and watch what they cost.

    Parameters
    ----------
    cluster : Cluster
        With a Ready WASM node of this machine.
    container_node : ContainerdNode, optional
        For path 2. Without one the launcher starts its own as soon as path 2 is chosen, if this machine can.

    Attributes
    ----------
    results : Results or None
        The rows of the launch that ran last, if its pods ran one after the other.
    records : list of PodRecord
        Its pods that have ended.

    Examples
    --------
    >>> launcher = Launcher(cluster)                                # doctest: +SKIP
    >>> launcher                                                    # doctest: +SKIP
    >>> launcher.snapshot()  # a copy that stays in the notebook    # doctest: +SKIP
    """

    def __init__(self, cluster: Cluster, container_node: ContainerdNode | None = None) -> None:
        self._cluster = cluster
        self._container_node = container_node
        self._own_node = OwnNode(cluster)
        self._launch: Launch | None = None
        self._ending: Ending | None = None
        # What is said at the end; empty while a launch runs.
        self._told = ""
        self._worker: threading.Thread | None = None
        self._history: dict[str, list[charts.Point]] = {}
        self._drawing = threading.Lock()
        self._make_controls()
        self._said, self._cards, self._charts = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for wide in (self._cards, self._charts):
            wide.layout.width, wide.layout.min_width = "auto", "0"
        super().__init__(
            [
                widgets.HTML(html.STYLE, layout=widgets.Layout(display="none")),
                _row(self._module, self._path, self._order, self._count),
                _row(self._engine, self._measure),
                _row(self._start, self._cancel, self._bar),
                self._said,
                self._cards,
                self._charts,
            ]
        )
        self.add_class("wasmlab-board")
        self._redraw_soon, self._ended = thinned(self._redraw, _REDRAW_S)
        self._said.value = html.block(self._hint)
        self._redraw()
        lifetimes.opened(self)

    def _make_controls(self) -> None:
        names = [work.name for work in workloads.catalogue().values() if "node" in work.paths]
        labelled = {"style": {"description_width": "initial"}, "layout": widgets.Layout(width="auto")}
        paths, self._hint = list(_PATHS), ""
        if self._container_node is None:
            from wasmlab import containerd

            if why := containerd.missing():
                paths = paths[:1]
                self._hint = (
                    f'<span class="pale">Path 2 is not on offer here: {html.escape(why)}. '
                    "<code>wasmlab doctor</code> says what to do.</span>"
                )
        self._module = widgets.Dropdown(options=names, value="hello", description="Module", **labelled)
        self._path = widgets.Dropdown(options=paths, description="Path", **labelled)
        self._order = widgets.Dropdown(options=list(_ORDERS), description="Pods", **labelled)
        self._count = widgets.BoundedIntText(
            value=20, min=1, max=_MOST, description="of each engine",
            style={"description_width": "initial"}, layout=widgets.Layout(width="180px"),
        )  # fmt: skip
        # Not toggle buttons: those do not tell a screen reader which one is chosen.
        self._engine = widgets.RadioButtons(
            options=list(_ENGINES),
            value="side by side",
            description="Engine",
            orientation="horizontal",
            **labelled,
        )
        self._measure = widgets.Dropdown(
            options=[(text, name) for name, text in MEASURES.items()],
            description="Clock stops at",
            **labelled,
        )
        self._start = widgets.Button(
            description="Launch", icon="play", button_style="primary", tooltip="start the pods"
        )
        self._cancel = widgets.Button(
            description="Cancel",
            icon="stop",
            disabled=True,
            tooltip="start no more pods, remove those that run",
        )
        self._bar = widgets.IntProgress(
            value=0, min=0, max=1, description="", layout=widgets.Layout(width="260px")
        )
        self._start.on_click(lambda _: self.launch())
        self._cancel.on_click(lambda _: self.cancel())
        self._measure.observe(lambda _: self._measure_changed(), "value")

    # ---------------------------------------------------------------- what one can do

    @property
    def is_running(self) -> bool:
        """Whether Pods are being launched."""
        return self._worker is not None and self._worker.is_alive()

    @property
    def results(self) -> Results | None:
        """The rows of the last launch; None for a burst."""
        return self._launch.results if self._launch else None

    @property
    def records(self) -> list[PodRecord]:
        """The pods of the last launch that have ended."""
        return self._launch.records() if self._launch else []

    def launch(self) -> None:
        """Start what is chosen; nothing if something runs."""
        if self.is_running:
            return
        choice = Choice(
            self._module.value,
            _PATHS[self._path.value],
            _ENGINES[self._engine.value],
            self._count.value,
            _ORDERS[self._order.value],
        )
        self._launch = launch = Launch(
            self._cluster, choice, self._container_node, on_change=self._redraw_soon
        )
        self._ending, self._told = None, ""
        self._history = {engine: [] for engine in choice.engines}
        self._bar.value, self._bar.max = 0, launch.total
        self._start.disabled, self._cancel.disabled = True, False
        self._said.value = html.block(launch.doing)
        self._worker = threading.Thread(target=self._work, args=(launch,), daemon=True, name="wasmlab-launch")
        self._worker.start()
        self._redraw_soon()
        # A button that is switched off loses the focus, and with it a keyboard its place on the page.
        self._cancel.focus()

    def cancel(self) -> None:
        """Start no more Pods and remove those that run; what was measured until then is kept."""
        if self._launch is not None and self.is_running:
            self._cancel.disabled = True
            self._launch.cancel()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the launch has ended; return whether it has.

        Parameters
        ----------
        timeout_s : float
            The deadline, in seconds.
        """
        if self._worker is not None:
            self._worker.join(timeout_s)
        return not self.is_running

    def close(self) -> None:
        """Cancel, remove the pods, and take the launcher from the page."""
        self.cancel()
        self.wait(_JOIN_S)
        self._ended.set()
        lifetimes.closed(self)
        self._own_node.stop()
        super().close()

    def abandon(self) -> None:
        """Ask for the removal of the pods; the process is about to end."""
        self._ended.set()
        if self._launch is not None:
            self._launch.abandon()

    def snapshot(self) -> Any:
        """Return what is shown now as a figure that needs no kernel: it stays in a notebook that is kept."""
        from IPython.display import HTML

        return HTML(self.as_html())

    def as_html(self) -> str:
        """Return what is shown now, as HTML that needs no kernel."""
        with self._drawing:
            shown = self._cards_now() + self._charts_now()
        return html.wrap(f"<p><b>{self._title()}</b></p>", shown, f"<p>{self._outcome()}</p>")

    # ---------------------------------------------------------------- what goes on

    def _work(self, launch: Launch) -> None:
        try:
            if launch.choice.path == "containerd" and launch.container_node is None:
                launch.doing = "starting a container node: kubelet, containerd, the shim"
                self._redraw_soon()
                launch.container_node = self._own_node.get()
                launch.doing = "preparing: the node pulls and compiles the module"
            self._ending = launch.run()
            told = f'<div role="status">{html.escape(self._ending)}</div>{self._failures()}'
        except Exception as error:  # whatever it is: the buttons must come back, and somebody must be told
            told = html.error(error)
        with self._drawing:  # a redraw that has begun must not say the last but one thing after this
            self._told = told
            self._said.value = html.block(told)
            self._bar.value = len(launch.records())
        self._start.disabled, self._cancel.disabled = False, True
        self._redraw_soon()

    def _failures(self) -> str:
        return html.trouble(failures(self.records))

    # ---------------------------------------------------------------- what is shown

    def _measure_changed(self) -> None:
        with self._drawing:
            # The history of another measure is another one.
            self._history = {engine: [] for engine in self._history}
        self._redraw_soon()

    def _redraw(self) -> None:
        if self._ended.is_set():
            return
        with self._drawing:
            launch = self._launch
            if launch is not None and not self._told:
                self._bar.value = len(launch.records())
                self._said.value = html.block(html.escape(launch.doing))
            for widget, value in ((self._cards, self._cards_now()), (self._charts, self._charts_now())):
                if widget.value != value:
                    widget.value = value

    def _standings(self) -> list[Standing]:
        launch = self._launch
        engines = launch.choice.engines if launch else _ENGINES["side by side"]
        independent = not (launch and launch.choice.at_once)
        own = self.records
        return [standing(own, engine, self._measure.value, independent=independent) for engine in engines]

    def _cards_now(self) -> str:
        standings = self._standings()
        launch = self._launch
        at_once = bool(launch and launch.choice.at_once)
        running = launch is not None and not self._told
        for one in standings:
            own = self._history.get(one.engine)
            if own is not None and one.interval and one.has_interval and (not own or own[-1].n < one.n):
                own.append(charts.Point(one.n, one.interval.value, one.interval.low, one.interval.high))
        parts = [charts.cards(standings, self._measure.value, at_once=at_once, running=running)]
        if len(standings) > 1 and not at_once:
            said = verdict(self.records, "wasmer", "wasmtime", self._measure.value)
            parts.append(f"<p><b>{html.escape(said)}</b></p>")
        return html.block(*parts)

    def _charts_now(self) -> str:
        launch = self._launch
        engines = launch.choice.engines if launch else _ENGINES["side by side"]
        at_once = bool(launch and launch.choice.at_once)
        own = self.records
        beside = charts.rate(own, engines) if at_once else charts.growth(self._history)
        return html.block(
            '<div class="charts">',
            charts.ecdf(own, engines, self._measure.value),
            beside,
            f'<div class="wide">{waterfall(own, engines, at_once=at_once)}</div></div>',
        )

    def _title(self) -> str:
        if self._launch is None:
            return "Nothing was launched yet."
        choice = self._launch.choice
        path = next(text for text, name in _PATHS.items() if name == choice.path)
        order = next(text for text, at_once in _ORDERS.items() if at_once == choice.at_once)
        return html.escape(f"{choice.workload}, {path}, {choice.pods} pods of each engine, {order}")

    def _outcome(self) -> str:
        if self._launch is None:
            return ""
        return html.escape(self._ending or self._launch.doing) + self._failures()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget where somebody can click on it; in a report, the figures of what was launched."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options) or {}
        if os.environ.get("WASMLAB_REPORTS"):  # executed into a report: nobody will be there
            self.wait(_JOIN_S)
            bundle = {"text/plain": f"Launcher: {self._title()} {self._ending or ''}".strip()}
            bundle["text/html"] = self.as_html()
            if picture := self._picture():
                bundle["image/png"] = picture
        return bundle

    def _picture(self) -> bytes:
        """Return the figure of notebook 07 of what was launched; empty if there are no rows for it."""
        from wasmlab import plots

        if self.results is None or self._launch is None:
            return b""
        choice = self._launch.choice
        try:
            figure = plots.cold_start(
                self.results, workload=choice.workload, paths=(choice.path,), modes=(MODES[choice.path],)
            )
        except BenchmarkError:
            return b""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def _row(*children: widgets.Widget) -> widgets.Box:
    return widgets.Box(
        children,
        layout=widgets.Layout(
            display="flex", flex_flow="row wrap", align_items="center", grid_gap="6px 18px"
        ),
    )
