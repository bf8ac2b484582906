"""Choose a module, an engine and a path, start Pods, and watch the figures grow while they end.

What runs here is the bench itself (`wasmlab.bench.runner`): interleaved in random order, with the native control, every
failure a row. Only the figures are drawn after each block instead of at the end. `results` holds the rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from wasmlab.bench.plan import Arm, Plan, cross
from wasmlab.bench.store import Results
from wasmlab.cluster import Cluster
from wasmlab.errors import BenchmarkError, WasmlabError
from wasmlab.modules import workloads
from wasmlab.widgets import html
from wasmlab.widgets.feed import thinned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wasmlab.containerd import ContainerdNode

_REDRAW_S = 0.7
_ENGINES = {"wasmtime": ("wasmtime",), "wasmer": ("wasmer",), "side by side": ("wasmtime", "wasmer")}
_PATHS = {"path 1: WASM node": "node", "path 2: containerd": "containerd"}
# What an ordinary Pod of a running node costs; through containerd every Pod gets a shim of its own.
_MODES = {"node": "warm", "containerd": "cached"}
_MOST = 200
# Nobody watches that long.
_JOIN_S = 30.0


class Launcher(widgets.VBox):
    """Start Pods and watch what they cost.

    Parameters
    ----------
    cluster : Cluster
        With a Ready WASM node of this machine.
    container_node : ContainerdNode, optional
        For path 2.

    Attributes
    ----------
    results : Results or None
        The rows of the launch that runs, or ran last.
    """

    def __init__(self, cluster: Cluster, container_node: ContainerdNode | None = None) -> None:
        self._cluster = cluster
        self._container_node = container_node
        self._cancelled = threading.Event()
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()
        self.results: Results | None = None
        names = [work.name for work in workloads.catalogue().values() if "node" in work.paths]
        paths = list(_PATHS) if container_node else list(_PATHS)[:1]
        self._module = widgets.Dropdown(options=names, value="hello", description="module")
        self._engine = widgets.ToggleButtons(
            options=list(_ENGINES), value="side by side", description="engine"
        )
        self._path = widgets.Dropdown(options=paths, description="path")
        self._count = widgets.IntSlider(value=20, min=1, max=_MOST, description="pods each")
        self._start = widgets.Button(description="Launch", icon="play", button_style="primary")
        self._cancel = widgets.Button(description="Cancel", icon="stop", disabled=True)
        self._bar = widgets.IntProgress(
            value=0, min=0, max=1, description="", layout=widgets.Layout(width="220px")
        )
        self._said = widgets.HTML()
        self._ecdf, *self._waterfalls = (_empty() for _ in range(3))
        self._start.on_click(lambda _: self.launch())
        self._cancel.on_click(lambda _: self.cancel())
        super().__init__(
            [
                widgets.HBox([self._module, self._path]),
                self._engine,
                self._count,
                widgets.HBox([self._start, self._cancel, self._bar]),
                self._said,
                widgets.HBox(
                    [self._ecdf, widgets.VBox(self._waterfalls)], layout=widgets.Layout(flex_flow="row wrap")
                ),
            ]
        )
        self._redraw_soon, self._ended = thinned(self._redraw, _REDRAW_S)

    @property
    def is_running(self) -> bool:
        """Whether Pods are being launched."""
        return self._worker is not None and self._worker.is_alive()

    def launch(self) -> None:
        """Start what is chosen; nothing if something runs."""
        if self.is_running:
            return
        path = _PATHS[self._path.value]
        work = workloads.get(self._module.value)
        arms = cross((path,), _ENGINES[self._engine.value], (_MODES[path],), (work,))
        plan = Plan(arms, self._count.value)
        self._cancelled.clear()
        self._bar.value, self._bar.max = 0, len(plan)
        self._start.disabled, self._cancel.disabled = True, False
        self._say("preparing: the node pulls and compiles the module")
        self._worker = threading.Thread(
            target=self._work, args=(plan, path), daemon=True, name="wasmlab-launch"
        )
        self._worker.start()

    def cancel(self) -> None:
        """End the launch after the Pod that runs; what was measured until then is kept."""
        self._cancelled.set()
        self._cancel.disabled = True

    def wait(self, timeout_s: float) -> bool:
        """Wait until the launch has ended; return whether it has."""
        if self._worker is not None:
            self._worker.join(timeout_s)
        return not self.is_running

    def close(self) -> None:
        """Cancel, wait for the Pod that runs, and take the launcher from the page."""
        self.cancel()
        self.wait(_JOIN_S)
        self._ended.set()
        super().close()

    def _work(self, plan: Plan, path: str) -> None:
        try:
            done = self._measure(plan, path)
            stopped = "cancelled" if done.plan["interrupted"] else "done"
            failed = sum(not row["ok"] for row in done.rows)
            self._say(f"{stopped}: {len(done.rows)} runs, {failed} failed")
        except WasmlabError as error:
            self._say(str(error), failed=True)
        finally:
            self._start.disabled, self._cancel.disabled = False, True
            self._redraw_soon()

    def _measure(self, plan: Plan, path: str) -> Results:
        from wasmlab.bench import environment, runner
        from wasmlab.bench.control import ControlExecutor

        facts = environment.fingerprint()
        rows: list[dict[str, Any]] = []
        with self._lock:
            self.results = Results(
                rows, environment=facts, conditions=[{"started_at": environment.now_utc()}]
            )

        def on_row(row: dict[str, Any]) -> None:
            with self._lock:
                rows.append(row)
            self._bar.value = len(rows)
            self._say(f"{len(rows)} of {len(plan)} runs")
            self._redraw_soon()
            if self._cancelled.is_set():
                raise KeyboardInterrupt  # what carry_out understands: it keeps the rows and says so

        with runner.stack_of({path: self._executor(path), "control": ControlExecutor()}) as executors:
            if path == "containerd":
                executors[path].prepare([arm for arm in plan.arms if arm.path == path])
            done = runner.carry_out(plan, executors, facts, quiet=True, on_row=on_row)
        with self._lock:
            self.results = done
        return done

    def _executor(self, path: str) -> Any:
        if path == "containerd":
            from wasmlab.bench.containerd_pods import ContainerdPodExecutor

            assert self._container_node is not None  # else the path is not on offer
            return ContainerdPodExecutor(self._cluster, self._container_node)
        from wasmlab.bench.pods import PodExecutor

        if not self._cluster.nodes:
            raise BenchmarkError(
                "this cluster has no WASM node on this machine",
                remedy="start one: cluster.add_node('wasm-node')",
            )
        return PodExecutor(self._cluster, next(iter(self._cluster.nodes.values())).dir)

    def _say(self, message: str, *, failed: bool = False) -> None:
        self._said.value = html.wrap(
            html.trouble(message) if failed else f'<div role="status">{message}</div>'
        )

    def _figures(self) -> tuple[Figure | None, list[Figure]]:
        """Return the ECDF of the starts and a waterfall per engine, as far as there are rows for them."""
        from wasmlab import plots

        with self._lock:
            if self.results is None or not self.results.rows:
                return None, []
            now = dataclasses.replace(self.results, rows=list(self.results.rows))
        arms = {
            Arm(*(row[key] for key in ("path", "engine", "mode", "workload")))
            for row in now.rows
            if row["ok"]
        }
        pods = sorted(arm for arm in arms if arm.path in _MODES)
        if not pods:
            return None, []
        first = pods[0]
        ecdf = plots.cold_start(now, workload=first.workload, paths=(first.path,))
        falls = [plots.pod_waterfall(now, engine=arm.engine, mode=arm.mode, path=arm.path) for arm in pods]
        return ecdf, falls

    def _redraw(self) -> None:
        try:
            ecdf, falls = self._figures()
        except BenchmarkError:
            return  # too few rows yet
        if ecdf is not None:
            _fill(self._ecdf, ecdf)
        for image, figure in zip(self._waterfalls, falls, strict=False):
            _fill(image, figure)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget where somebody can click on it; in a report, the figure of what was launched."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options) or {}
        if os.environ.get("WASMLAB_REPORTS"):
            bundle = {"text/plain": bundle.get("text/plain", "Launcher")}
            with contextlib.suppress(BenchmarkError):
                ecdf, _ = self._figures()
                if ecdf is not None:
                    bundle["image/png"] = _png(ecdf)
        return bundle


def _empty() -> widgets.Image:
    # Without content a browser would show a broken picture.
    return widgets.Image(format="png", layout=widgets.Layout(max_width="560px", display="none"))


def _fill(image: widgets.Image, figure: Figure) -> None:
    image.value = _png(figure)
    image.layout.display = None


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
