"""How a cluster and a Pod show themselves: what an operator would ask first."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from wasmlab import markup
from wasmlab.errors import WasmlabError

if TYPE_CHECKING:
    from wasmlab.cluster.cluster import Cluster

# A cell must not hang because a cluster does.
_PATIENCE_S = 3.0
_MANY = 500


class Pod(dict[str, Any]):
    """A ``v1.Pod`` as the API server sent it: a dictionary that shows itself as an operator would look at it."""

    def __repr__(self) -> str:
        return f"<Pod {self._name}: {self._phase()}>"

    def _repr_html_(self) -> str:
        spec, status = self.get("spec", {}), self.get("status", {})
        good = {"Succeeded": True, "Failed": False}.get(status.get("phase", ""))
        facts: list[tuple[str, object]] = [
            ("node", spec.get("nodeName")),
            ("message", status.get("message")),
        ]
        kinds = ("initContainerStatuses", "containerStatuses")
        for one in (one for kind in kinds for one in status.get(kind) or ()):
            restarts = one.get("restartCount", 0)
            said = _state(one.get("state") or {}) + (f", restarted {restarts} times" if restarts else "")
            facts.append((one.get("name", "container"), said))
        if not status.get("containerStatuses"):
            facts += [(one.get("name", "container"), one.get("image")) for one in spec.get("containers", ())]
        return markup.card(markup.verdict(good, f"Pod {self._name}: {self._phase()}"), facts)

    @property
    def _name(self) -> str:
        meta = self.get("metadata", {})
        return f"{meta.get('namespace', 'default')}/{meta.get('name', '')}"

    def _phase(self) -> str:
        status = self.get("status", {})
        phase, reason = status.get("phase", "not in a cluster"), status.get("reason")
        return f"{phase}, {reason}" if reason and reason != phase else phase


def _state(state: dict[str, Any]) -> str:
    for name, facts in state.items():
        if facts is None:
            continue
        parts = [name]
        if "exitCode" in facts:
            parts.append(f"exit code {facts['exitCode']}")
        parts += [str(facts[key]) for key in ("reason", "message") if facts.get(key)]
        return ", ".join(parts)
    return "waiting"


def short(cluster: Cluster) -> str:
    """Return what `repr` shows of a cluster; nobody is asked for it."""
    parts = [str(cluster.dir or cluster.kubeconfig)]
    if cluster.nodes:
        parts.append(f"nodes {', '.join(cluster.nodes)}")
    return f"<{type(cluster).__name__} {', '.join(parts)}>"


def card(cluster: Cluster) -> str:
    """Return a cluster as HTML: asks it, and says so if it does not answer."""
    title = "Kubernetes cluster" if cluster.dir is None else f"Kubernetes in {cluster.dir}"
    facts: list[tuple[str, object]] = [("kubeconfig", markup.code(cluster.kubeconfig))]
    try:
        version = _get(cluster, "/version").get("gitVersion", "unknown version")
        facts.append(("server", f"{cluster.server}, {version}"))
    except (WasmlabError, OSError) as error:
        return markup.card(markup.verdict(False, f"{title}: no answer"), [*facts, ("asked", _why(error))])
    # Not the property: for a cluster of somebody else's that would start a registry.
    facts.append(("registry", cluster._registry or None))
    facts += [("nodes", _nodes(cluster)), (f"pods in {cluster.namespace}", _pods(cluster))]
    return markup.card(markup.verdict(True, f"{title}: running"), facts)


def _get(cluster: Cluster, path: str) -> dict[str, Any]:
    return json.loads(cluster.rest.call("GET", path, timeout_s=_PATIENCE_S))


def _why(error: Exception) -> str:
    return error.message if isinstance(error, WasmlabError) else str(error)


def _nodes(cluster: Cluster) -> object:
    try:
        found = _get(cluster, "/api/v1/nodes")["items"]
    except (WasmlabError, OSError) as error:  # a guest need not be allowed to see them
        return _why(error)
    return markup.Html("<br>".join(map(_node, found))) if found else "none"


def _pods(cluster: Cluster) -> str:
    try:
        found = _get(cluster, f"/api/v1/namespaces/{cluster.namespace}/pods?limit={_MANY}")
    except (WasmlabError, OSError) as error:
        return _why(error)
    phases = Counter(str(one.get("status", {}).get("phase", "Unknown")) for one in found["items"])
    said = ", ".join(f"{number} {phase}" for phase, number in sorted(phases.items())) or "none"
    return f"{said} (of the first {_MANY})" if found["metadata"].get("continue") else said


def _node(node: dict[str, Any]) -> markup.Html:
    meta, status = node["metadata"], node.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    ready = conditions.get("Ready") == "True"
    arch = meta.get("labels", {}).get("kubernetes.io/arch", "unknown architecture")
    return markup.verdict(ready, f"{meta['name']}: {'Ready' if ready else 'NotReady'}, {arch}")
