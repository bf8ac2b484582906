"""A live board of a cluster: its nodes, its pods, what one of them printed; apply and delete.

Everything can be reached by the keyboard: the pods are a list box, the rest are buttons and a text field.
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
from wasmlab.errors import ClusterError
from wasmlab.widgets import html
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
        self._changed = threading.Event()
        self._redraw_soon, self._ended = thinned(self._redraw, _REDRAW_S)
        # A log grows without a change of its pod.
        self._details_soon, self._details_ended = thinned(self._show_details, _REDRAW_S, refresh_s=2.0)
        self._nodes = widgets.HTML()
        self._pods = widgets.Select(
            description="", rows=10, layout=widgets.Layout(width="100%"), tooltip="pods, the youngest first"
        )
        self._pods.add_class("wasmlab-mono")
        self._view = widgets.ToggleButtons(options=_VIEWS, tooltips=[f"show its {one}" for one in _VIEWS])
        self._delete = widgets.Button(
            description="Delete pod", icon="trash", tooltip="delete the chosen pod", disabled=True
        )
        self._details = widgets.HTML()
        self._manifest = widgets.Textarea(
            placeholder="paste a manifest (YAML) here", rows=6, layout=widgets.Layout(width="100%")
        )
        self._apply = widgets.Button(description="Apply", icon="check", tooltip="apply the manifest")
        self._said = widgets.HTML()
        self._pods.observe(lambda _: self._details_soon(), "value")
        self._view.observe(lambda _: self._details_soon(), "value")
        self._delete.on_click(lambda _: self._do(self._delete_chosen))
        self._apply.on_click(lambda _: self._do(self._apply_manifest))
        editor = widgets.Accordion(
            [widgets.VBox([self._manifest, self._apply])], titles=("Apply a manifest",), selected_index=None
        )
        super().__init__(
            [
                self._nodes,
                self._pods,
                widgets.HBox([self._view, self._delete]),
                self._details,
                editor,
                self._said,
            ]
        )
        self._feed = Feed(cluster, self._hear)
        self._changed.wait(timeout_s)
        self._redraw()

    def close(self) -> None:
        """Stop following the cluster and take the board from the page."""
        self._feed.close()
        self._ended.set()
        self._details_ended.set()
        super().close()

    def as_html(self) -> str:
        """Return what the board shows now, as HTML that needs no kernel."""
        with self._feed.lock:
            nodes, pods = self._feed.state.nodes(), self._feed.state.pods()
            counts, trouble = self._feed.state.counts(), self._feed.trouble
        more = f"<p>and {len(pods) - _SHOWN:,} more</p>" if len(pods) > _SHOWN else ""
        return html.wrap(
            html.trouble(trouble),
            html.table(("node", "status", "runs", "pods", "version"), nodes, status_column=1),
            f"<p>{html.summary(counts)}</p>",
            html.table(
                ("namespace", "pod", "status", "restarts", "node", "age"),
                [row[1:] for row in pods[:_SHOWN]],
                status_column=2,
            ),
            more,
        )

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget where somebody can click on it, and always a table of what it shows."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options) or {}
        if os.environ.get("WASMLAB_REPORTS"):  # executed into a report: nobody will be there
            bundle = {}
        return {**bundle, "text/html": self.as_html()}

    def _hear(self) -> None:
        self._changed.set()
        self._redraw_soon()

    def _redraw(self) -> None:
        if not hasattr(self, "_feed") or self._feed.is_closed:
            return  # the feed hears of the cluster before this object is complete
        with self._feed.lock:
            nodes, pods = self._feed.state.nodes(), self._feed.state.pods()
            counts, trouble = self._feed.state.counts(), self._feed.trouble
        self._nodes.value = html.wrap(
            html.trouble(trouble and f"Not live: {trouble}"),
            html.table(("node", "status", "runs", "pods", "version"), nodes, status_column=1),
            f'<div role="status">{html.summary(counts)}'
            + (f", the youngest {_SHOWN} below" if len(pods) > _SHOWN else "")
            + "</div>",
        )
        self._rows = pods[:_SHOWN]
        options = [(_line(row), row.uid) for row in self._rows]
        if list(self._pods.options) != options:
            chosen = self._pods.value
            uids = [uid for _, uid in options]
            # Setting the options chooses the first one; who reads a pod's log wants to stay there.
            self._pods.options = options
            if chosen in uids:
                self._pods.value = chosen
            self._delete.disabled = not options
        self._details_soon()

    def _show_details(self) -> None:
        if not hasattr(self, "_feed") or self._feed.is_closed:
            return
        uid = self._pods.value
        with self._feed.lock:
            pod = self._feed.state.pod(uid) if uid else None
        if pod is None:
            self._details.value = html.wrap("<i>No pod is chosen.</i>") if not self._rows else ""
            return
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        try:
            shown = getattr(self, f"_{self._view.value}")(pod, name, namespace)
        except ClusterError as error:
            shown = error.message
        value = html.wrap(html.text(shown or f"(no {self._view.value})"))
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

    def _do(self, action: Callable[[], str]) -> None:
        """Carry out what a button means, away from the thread that serves the page."""

        def work() -> None:
            try:
                said = html.wrap(action())
            except (ClusterError, yaml.YAMLError) as error:
                said = html.wrap(html.trouble(str(error)))
            self._said.value = said

        threading.Thread(target=work, daemon=True, name="wasmlab-do").start()

    def _delete_chosen(self) -> str:
        row = next((one for one in self._rows if one.uid == self._pods.value), None)
        if row is None:
            return ""
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": row.name, "namespace": row.namespace},
        }
        self._cluster.delete(manifest)
        return f"pod {row.namespace}/{row.name} is being deleted"

    def _apply_manifest(self) -> str:
        documents = [one for one in yaml.safe_load_all(self._manifest.value) if one]
        if not documents:
            raise ClusterError("there is nothing to apply", remedy="paste a manifest first")
        if not all(isinstance(one, dict) for one in documents):
            raise ClusterError("this is no manifest", remedy="a manifest has apiVersion, kind and metadata")
        done = self._cluster.apply(documents)
        return "applied " + ", ".join(f"{one['kind']} {one['metadata']['name']}" for one in done)


def _line(row: PodRow) -> str:
    # Blanks would be folded by HTML; these are not.
    return f"{row.name:<36} {row.status:<20} {row.node:<18} {row.restarts:>3}  {row.age}".replace(
        " ", "\N{NO-BREAK SPACE}"
    )
