"""A live board of a cluster: its nodes, its pods, what one of them printed; apply and delete.

Everything can be reached by the keyboard: the pods are a list box, the rest are buttons and text fields. A burst of
hundreds of pods is drawn four times a second at most, and never more of it than a reader can take in.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import yaml

from wasmlab.cluster import Cluster
from wasmlab.cluster.manifests import wasm_pod
from wasmlab.errors import ClusterError
from wasmlab.widgets import charts, html, lifetimes
from wasmlab.widgets.feed import Feed, thinned
from wasmlab.widgets.model import PodRow

_REDRAW_S = 0.25
# A list box with thousands of lines is no use to anybody, and slow in every browser.
_SHOWN = 200
_LOG_LINES = 200
_VIEWS = ("logs", "events", "status")


class Board(widgets.VBox):
    """A live board.

    Parameters
    ----------
    cluster : Cluster
        Any cluster: embedded or from a kubeconfig.
    timeout_s : float
        How long to wait for the first listing.

    Examples
    --------
    >>> board = Board(cluster)                                      # doctest: +SKIP
    >>> board                                                       # doctest: +SKIP
    >>> board.close()                                               # doctest: +SKIP
    """

    def __init__(self, cluster: Cluster, *, timeout_s: float = 10.0) -> None:
        self._cluster = cluster
        self._rows: list[PodRow] = []
        self._detailed: tuple[Any, ...] | None = None
        self._choosing = threading.Lock()
        self._redraw_soon, self._ended = thinned(self._redraw, _REDRAW_S)
        # A log grows without a change of its pod.
        self._details_soon, self._details_ended = thinned(self._show_details, _REDRAW_S, refresh_s=2.0)
        super().__init__(
            [widgets.HTML(html.STYLE, layout=widgets.Layout(display="none")), *self._make_parts()]
        )
        self.add_class("wasmlab-board")
        self._feed = Feed(cluster, self._redraw_soon)
        self._feed.wait(timeout_s)
        self._redraw()
        lifetimes.opened(self)

    def _make_parts(self) -> list[widgets.Widget]:
        wide = widgets.Layout(width="auto", min_width="0")
        plain = {"description_width": "initial"}
        self._nodes, self._wall, self._details, self._said = (widgets.HTML(layout=wide) for _ in range(4))
        self._filter = widgets.Text(
            description="Filter", placeholder="name, namespace, status or node", style=plain,
            layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self._pods = widgets.Select(
            description="Pods", rows=10, style={"description_width": "0px"}, layout=wide,
            tooltip="pods, the youngest first",
        )  # fmt: skip
        self._pods.add_class("wasmlab-mono")
        # Not toggle buttons: those do not tell a screen reader which one is chosen.
        self._view = widgets.RadioButtons(
            description="Show", options=_VIEWS, orientation="horizontal", style=plain,
            layout=widgets.Layout(width="auto"),
        )  # fmt: skip
        self._delete = _button("Delete pod", "trash", "delete the chosen pod", disabled=True)
        self._manifest = widgets.Textarea(
            description="Manifest",
            placeholder="paste a manifest (YAML) here",
            rows=14,
            style=plain,
            layout=wide,
        )
        self._manifest.add_class("wasmlab-mono")
        buttons = {
            "_example": _button("Example", "file-text-o", "write the manifest of a WASM pod into the field"),
            "_apply": _button("Apply", "check", "apply the manifest", button_style="primary"),
            "_remove": _button("Delete these", "trash", "delete what the manifest names"),
        }
        self._example, self._apply, self._remove = buttons.values()
        self._filter.observe(lambda _: self._redraw_soon(), "value")
        self._pods.observe(lambda _: self._details_soon(), "value")
        self._view.observe(lambda _: self._details_soon(), "value")
        self._delete.on_click(lambda _: self._do(self._delete_chosen))
        self._example.on_click(lambda _: self._write_example())
        self._apply.on_click(lambda _: self._do(self._apply_manifest))
        self._remove.on_click(lambda _: self._do(self._delete_manifest))
        # No accordion: its header cannot be reached by the keyboard.
        self._open = widgets.ToggleButton(
            description="Apply a manifest", icon="pencil", tooltip="show or hide the editor"
        )
        self._editor = widgets.VBox(
            [self._manifest, widgets.HBox(list(buttons.values()))], layout=widgets.Layout(display="none")
        )
        self._open.observe(lambda change: self._show_editor(change["new"]), "value")
        chosen = widgets.HBox(
            [self._view, self._delete, self._open], layout=widgets.Layout(flex_flow="row wrap")
        )
        return [
            *(self._nodes, self._wall, self._filter, self._pods),
            *(chosen, self._details, self._editor, self._said),
        ]

    def close(self) -> None:
        """Stop following the cluster and take the board from the page."""
        self.abandon()
        lifetimes.closed(self)
        super().close()

    def abandon(self) -> None:
        """Stop following the cluster."""
        self._feed.close()
        self._ended.set()
        self._details_ended.set()

    def as_html(self) -> str:
        """Return what the board shows now, as HTML that needs no kernel."""
        with self._feed.lock:
            pods, count = self._feed.state.pods(most=_SHOWN)
        more = f"<p>and {count - _SHOWN:,} more</p>" if count > _SHOWN else ""
        head, wall = self._head()
        listed = html.table(
            ("namespace", "pod", "status", "restarts", "node", "created"),
            [row[1:] for row in pods],
            status_column=2,
        )
        return html.wrap(head, wall, listed if pods else "", more)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget where somebody can click on it, and always a table of what it shows."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options) or {}
        if os.environ.get("WASMLAB_REPORTS"):  # executed into a report: nobody will be there
            bundle = {"text/plain": "Board of a cluster"}
        return {**bundle, "text/html": self.as_html()}

    # ---------------------------------------------------------------- what is shown

    def _head(self) -> tuple[str, str]:
        with self._feed.lock:
            nodes, counts = self._feed.state.nodes(), self._feed.state.counts()
            phases, trouble, remedy = self._feed.state.phases(), self._feed.trouble, self._feed.remedy
        head = (
            html.trouble(trouble and f"Not live: {trouble}", remedy),
            html.table(("node", "status", "runs", "pods", "version"), nodes, status_column=1),
            f"<div>{html.summary(counts)}</div>",
        )
        return "".join(head), charts.wall(phases)

    def _redraw(self) -> None:
        if not hasattr(self, "_feed") or self._feed.is_closed:
            return  # the feed hears of the cluster before this object is complete
        head, wall = self._head()
        with self._feed.lock:
            # Who reads a pod's log wants to stay there, however many younger ones come.
            pods, count = self._feed.state.pods(self._filter.value.strip(), _SHOWN, self._pods.value)
        if count > _SHOWN:
            wall += f'<div class="pale">the youngest {_SHOWN} of {count:,} pods below</div>'
        for widget, value in ((self._nodes, html.block(head)), (self._wall, html.block(wall))):
            if widget.value != value:
                widget.value = value
        self._rows = pods
        self._show_options([(_line(row), row.uid) for row in pods])
        self._details_soon()

    def _show_options(self, options: list[tuple[str, str]]) -> None:
        if list(self._pods.options) == options:
            return
        chosen = self._pods.value
        # Setting the options chooses the first one, which nobody has asked for: in a burst it is another one each time.
        # The page gets both in one message, and the other thread sees both.
        with self._choosing, self._pods.hold_sync():
            self._pods.options = options
            self._pods.value = chosen if chosen in (uid for _, uid in options) else None

    def _show_details(self) -> None:
        if not hasattr(self, "_feed") or self._feed.is_closed:
            return
        with self._choosing:
            uid, view = self._pods.value, self._view.value
        if self._delete.disabled != (uid is None):
            self._delete.disabled = uid is None
        with self._feed.lock:
            pod = self._feed.state.pod(uid) if uid else None
        if pod is None:
            self._detailed = None
            self._set_details(html.block('<span class="pale">Choose a pod to read what it printed.</span>'))
            return
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        now: tuple[Any, ...] | None = (uid, view, pod["metadata"]["resourceVersion"], ended)
        if ended and view != "events" and now == self._detailed:
            return  # nothing about it changes any more
        try:
            shown = html.text(
                getattr(self, f"_{view}")(pod, name, namespace) or f"(no {view})", f"{view} of {name}"
            )
        except ClusterError as error:
            shown, now = html.error(error), None
        self._detailed = now
        self._set_details(html.block(shown))

    def _set_details(self, value: str) -> None:
        if self._details.value != value:
            self._details.value = value

    def _logs(self, pod: dict[str, Any], name: str, namespace: str) -> str:
        texts = []
        containers = [one["name"] for one in pod["spec"]["containers"]]
        for container in containers:
            try:
                said = self._cluster.logs(name, namespace, container=container, tail_lines=_LOG_LINES)
            except ClusterError as error:
                said = error.message
            texts.append(said if len(containers) == 1 else f"--- {container}\n{said}")
        return "\n".join(texts)

    def _events(self, pod: dict[str, Any], name: str, namespace: str) -> str:
        return "\n".join(
            f"{one['type']:<8} {one['reason']:<18} {one['message']}"
            for one in self._cluster.events(name, namespace)
            if one["involvedObject"].get("uid") == pod["metadata"]["uid"]
        )

    def _status(self, pod: dict[str, Any], name: str, namespace: str) -> str:
        text: str = yaml.safe_dump(json.loads(json.dumps(pod.get("status", {}))), sort_keys=False)
        return text

    # ---------------------------------------------------------------- what one can do

    def _do(self, action: Callable[[], str]) -> None:
        """Carry out what a button means, away from the thread that serves the page."""

        def work() -> None:
            try:
                said = f'<div role="status">{html.escape(action())}</div>'
            except Exception as error:  # whatever it is, somebody has pressed a button and must be told
                said = html.error(error)
            self._said.value = html.block(said)

        threading.Thread(target=work, daemon=True, name="wasmlab-do").start()

    def _delete_chosen(self) -> str:
        row = next((one for one in self._rows if one.uid == self._pods.value), None)
        if row is None:
            raise ClusterError("no pod is chosen", remedy="choose one in the list")
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": row.name, "namespace": row.namespace},
        }
        self._cluster.delete(manifest)
        return f"pod {row.namespace}/{row.name} is being deleted"

    def _documents(self) -> list[dict[str, Any]]:
        try:
            documents = [one for one in yaml.safe_load_all(self._manifest.value) if one]
        except yaml.YAMLError as error:
            raise ClusterError(f"this is no YAML: {error}", remedy=_where(error)) from error
        if not documents:
            raise ClusterError(
                "there is nothing to apply", remedy="paste a manifest first, or press Example to see one"
            )
        if not all(isinstance(one, dict) for one in documents):
            raise ClusterError("this is no manifest", remedy="a manifest has apiVersion, kind and metadata")
        return documents

    def _apply_manifest(self) -> str:
        return "applied " + ", ".join(map(_named, self._cluster.apply(self._documents())))

    def _delete_manifest(self) -> str:
        documents = self._documents()
        for one in reversed(documents):  # what came last may need what came first
            self._cluster.delete(one)
        return ", ".join(map(_named, documents)) + " being deleted"

    def _show_editor(self, shown: bool) -> None:
        self._editor.layout.display = None if shown else "none"
        if shown:
            self._manifest.focus()

    def _write_example(self) -> None:
        with self._feed.lock:
            image = self._feed.state.an_image()
        image = image or f"{self._cluster.registry or 'REGISTRY'}/hello:v1"
        pod = wasm_pod("example", image, args=["from", "the", "board"])
        self._manifest.value = yaml.safe_dump(pod, sort_keys=False)
        self._manifest.focus()


def _button(text: str, icon: str, tooltip: str, **more: Any) -> widgets.Button:
    return widgets.Button(description=text, icon=icon, tooltip=tooltip, **more)


def _named(one: dict[str, Any]) -> str:
    return f"{one.get('kind')} {one.get('metadata', {}).get('name')}"


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"look at line {mark.line + 1}, column {mark.column + 1}" if mark else "check the indentation"


def _line(row: PodRow) -> str:
    name = row.name if row.namespace == "default" else f"{row.namespace}/{row.name}"
    # Blanks would be folded by HTML; these are not.
    return (
        f"{html.sign(row.status)} {row.status:<20} {name:<40} {row.node:<18} {row.created}"
        + (f"  {row.restarts} restarts" if row.restarts else "")
    ).replace(" ", "\N{NO-BREAK SPACE}")
