"""How the lab behaves in a cluster that is not its own: what it makes there it labels, remembers and removes.

Guarantees: everything goes into one namespace, the one that the kubeconfig's context names, else one that is made for
this run and goes with it; every object carries the label of the run (`rbac.RUN_LABEL`); `Guest.leave` removes what this
run made and nothing else, Pods first, while the node that runs them can still end them. What a run that was killed left
behind is found by its label: `leftovers`, `sweep`.
"""

from __future__ import annotations

import contextlib
import copy
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from wasmlab.cluster import rbac
from wasmlab.cluster.rest import Rest, describe
from wasmlab.errors import ClusterError, NotReady

NAMESPACES = "/api/v1/namespaces"
_NODES = "/api/v1/nodes"
_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
_POLL_S = 0.2
_GONE_S = 60.0
# How long Pods may take to end before they are removed without asking their node.
_PATIENCE_S = 20.0


class Guest:
    """One run of the lab in somebody else's cluster.

    Parameters
    ----------
    rest : Rest
        The API server, with the user's credentials.
    namespace : str
        Where to work, if that exists; empty: one of its own, made when it is first needed.
    """

    def __init__(self, rest: Rest, namespace: str = "") -> None:
        self.run = secrets.token_hex(4)
        self._rest = rest
        self._given = namespace
        self._own = ""
        self._made: list[dict[str, Any]] = []
        self._nodes: list[str] = []

    @property
    def labels(self) -> dict[str, str]:
        """On everything that this run makes."""
        return {**rbac.MANAGED, rbac.RUN_LABEL: self.run}

    @property
    def node_label(self) -> str:
        """The label of a Node, as ``wasmlab node run --label`` takes it."""
        return f"{rbac.RUN_LABEL}={self.run}"

    @property
    def current(self) -> str:
        """The namespace as far as it is known: empty if none is given and none has been made."""
        return self._given or self._own

    @property
    def namespace(self) -> str:
        """Where the lab works; made on first use if the kubeconfig names none.

        Raises
        ------
        ClusterError
            If it cannot be made.
        """
        if self.current:
            return self.current
        name = f"wasmlab-{self.run}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": self.labels}}
        try:
            self._rest.call("POST", NAMESPACES, body=body, what=f"create the namespace {name}")
        except ClusterError as error:
            if error.context.get("status") == 403:
                error.remedy = (
                    "name a namespace in the kubeconfig's context in which you may work, or have an administrator "
                    "make one: `wasmlab cluster grant --out FILE`"
                )
            raise
        self._own = name
        _wait(
            lambda: _exists(self._rest, f"{NAMESPACES}/{name}/serviceaccounts/default"),
            f"the namespace {name} to be usable",
        )
        return name

    def adopt(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest as the lab may apply it here: labelled, and in its namespace if it belongs to one.

        Raises
        ------
        ClusterError
            If it names another namespace, other than kube-system for a bootstrap token.
        """
        mine = copy.deepcopy(manifest)
        metadata = mine["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), **self.labels}
        template = mine.get("spec", {}).get("template")
        if isinstance(template, dict):  # the Pods that a controller makes of it
            inner = template.setdefault("metadata", {})
            inner["labels"] = {**inner.get("labels", {}), **self.labels}
        if self._rest.is_namespaced(mine):
            metadata.setdefault("namespace", self.namespace)
            is_token = mine.get("type") == "bootstrap.kubernetes.io/token"
            if metadata["namespace"] != self.namespace and not is_token:
                raise ClusterError(
                    f"{describe(mine)} is not in the lab's namespace {self.namespace}",
                    remedy="leave it out of the manifest: in a cluster that is not its own the lab works in one only",
                )
        return mine

    def claim(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest as `adopt` does, and remember it; refused if the object is there and is not this run's.

        Raises
        ------
        ClusterError
            If it is somebody else's.
        """
        mine = self.adopt(manifest)
        with _missing_is_fine():
            labels = self._rest.get(self._rest.path(mine))["metadata"].get("labels", {})
            if labels.get(rbac.RUN_LABEL) != self.run:
                raise ClusterError(
                    f"{describe(mine)} is there already, and this run of the lab did not make it",
                    remedy="choose another name; the lab changes and removes nothing but what it made",
                )
        self._remember(mine)
        return mine

    def create(self, manifest: dict[str, Any]) -> None:
        """Make an object that is not there yet; no right to read it is needed.

        Raises
        ------
        ClusterError
            If the API server refuses.
        """
        mine = self.adopt(manifest)
        collection = self._rest.path(mine).rpartition("/")[0]
        self._rest.call("POST", collection, body=mine, what=f"create {title(mine)}")
        self._remember(mine)

    def _remember(self, mine: dict[str, Any]) -> None:
        key = (mine["kind"], mine["metadata"].get("namespace"), mine["metadata"]["name"])
        if key not in (
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in self._made
        ):
            self._made.append(mine)

    def joins(self, node: str) -> None:
        """Remember a node that this run is about to join.

        Raises
        ------
        ClusterError
            If there is a Node of this name that this run has not joined.
        """
        if node in self._nodes:
            return
        if _exists(self._rest, f"{_NODES}/{node}"):
            raise ClusterError(
                f"the cluster has a node {node} already, and this run of the lab did not join it",
                remedy="give the lab's node another name",
            )
        self._nodes.append(node)

    def may_join(self) -> None:
        """See that nodes may join, and make the grants that are missing.

        Raises
        ------
        ClusterError
            If they are missing and these credentials may not make them.
        """
        for binding in rbac.bindings():
            name = binding["metadata"]["name"]
            if _exists(self._rest, f"{_BINDINGS}/{name}"):
                continue
            try:
                self.create(binding)
            except ClusterError as error:
                error.remedy = "have an administrator grant it: `wasmlab cluster rbac | kubectl apply -f -`"
                raise

    def remove_pods(self) -> None:
        """Remove this run's Pods and what makes them, and wait until they are gone.

        Raises
        ------
        NotReady
            If they do not go.
        """
        where = self.current
        if not where:
            return
        selector = self.node_label
        for one in reversed(self._made):  # controllers before the Pods that they would make again
            if one["metadata"].get("namespace") == where and one["kind"] != "Pod":
                with _missing_is_fine():
                    self._rest.delete(one)
        path = f"{NAMESPACES}/{where}/pods"
        began = time.monotonic()
        asked: dict[str, int] = {}

        def gone() -> bool:
            pods = self._rest.get(path, labelSelector=selector)["items"]
            grace_s = 1 if time.monotonic() - began < _PATIENCE_S else 0
            for pod in pods:
                name = pod["metadata"]["name"]
                if asked.get(name, 2) > grace_s:
                    asked[name] = grace_s
                    with _missing_is_fine():
                        self._rest.call("DELETE", f"{path}/{name}", body={"gracePeriodSeconds": grace_s})
            return not pods

        _wait(gone, f"the lab's Pods in {where} to be gone")

    def leave(self) -> None:
        """Remove everything that this run made; to be called when its nodes' agents have ended, or will.

        Raises
        ------
        ClusterError
            What could not be removed, after everything else was; with the remedy.
        """
        errors: list[str] = []
        for step in (self.remove_pods, self._forget_nodes, self._unmake, self._remove_namespace):
            try:
                step()
            except ClusterError as error:
                errors.append(error.message)
        if errors:
            raise ClusterError(
                f"not everything of the lab's run {self.run} could be removed: {'; '.join(errors)}",
                remedy="`wasmlab cluster clean --kubeconfig FILE` removes what a run left behind",
            )

    def _forget_nodes(self) -> None:
        for node in self._nodes:
            _remove_node(self._rest, node)
        self._nodes.clear()

    def _unmake(self) -> None:
        while self._made:
            with _missing_is_fine():
                self._rest.delete(self._made[-1])
            self._made.pop()

    def _remove_namespace(self) -> None:
        if self._own:
            _remove_namespace(self._rest, self._own)
            self._own = ""


def leftovers(rest: Rest, namespace: str = "") -> list[dict[str, Any]]:
    """Return what runs of the lab made and is still there: objects with `rbac.RUN_LABEL`, Nodes last.

    Parameters
    ----------
    rest : Rest
        The API server.
    namespace : str
        Where the kubeconfig's user works; empty if it may list namespaces.
    """
    found: list[dict[str, Any]] = []
    places = [("v1", "Secret", _SECRETS), ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", _BINDINGS)]
    if namespace:
        places.append(("v1", "Pod", f"{NAMESPACES}/{namespace}/pods"))
        places.append(("apps/v1", "Deployment", f"/apis/apps/v1/namespaces/{namespace}/deployments"))
    places += [("v1", "Namespace", NAMESPACES), ("v1", "Node", _NODES)]
    for version, kind, path in places:
        # A restricted user may not list all of these, and cannot have made what it may not list.
        with contextlib.suppress(ClusterError):
            for one in rest.get(path, labelSelector=rbac.RUN_LABEL)["items"]:
                found.append({"apiVersion": version, "kind": kind, "metadata": one["metadata"]})
    return found


def sweep(rest: Rest, namespace: str = "") -> list[str]:
    """Remove the `leftovers` of all runs; returns what was removed, in words.

    Raises
    ------
    ClusterError
        If something cannot be removed.
    """
    removed = []
    for one in leftovers(rest, namespace):
        name = one["metadata"]["name"]
        if one["kind"] == "Node":
            _remove_node(rest, name)
        elif one["kind"] == "Namespace":
            _remove_namespace(rest, name)
        else:
            rest.delete(one, grace_s=0)
        removed.append(title(one))
    return removed


def _remove_node(rest: Rest, node: str) -> None:
    """Remove a Node and what it asked for; its Lease goes with it."""
    rest.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    for request in rest.get(_CSRS)["items"]:
        if _is_of(request, node):
            name = request["metadata"]["name"]
            with _missing_is_fine():
                rest.call("DELETE", f"{_CSRS}/{name}", what=f"remove the certificate request {name}")


def _is_of(request: dict[str, Any], node: str) -> bool:
    """Whether a certificate request was made by a node, or by its bootstrap token for it."""
    asked = request["spec"].get("username", "")
    if asked == f"system:node:{node}":
        return True
    return asked.startswith("system:bootstrap:") and _subject(request) == f"system:node:{node}"


def _subject(request: dict[str, Any]) -> str:
    import base64

    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
        return str(asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    except (ValueError, KeyError, IndexError):
        return ""


def _remove_namespace(rest: Rest, name: str) -> None:
    rest.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    _wait(lambda: not _exists(rest, f"{NAMESPACES}/{name}"), f"the namespace {name} to be gone")


def _exists(rest: Rest, path: str) -> bool:
    try:
        rest.call("GET", path)
    except ClusterError as error:
        if error.context.get("status") == 404:
            return False
        raise
    return True


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        if error.context.get("status") != 404:
            raise


def _wait(condition: Callable[[], bool], what: str, timeout_s: float = _GONE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotReady(f"waited {timeout_s:g} s for {what}", events=[])
        time.sleep(_POLL_S)


def title(one: dict[str, Any]) -> str:
    """Return ``Pod lab/hello`` or ``Node wasm-node``."""
    return describe(one) if one["metadata"].get("namespace") else f"{one['kind']} {one['metadata']['name']}"
