"""What one does with a cluster: apply, wait, read logs and events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wasmlab.cluster.access import Access
from wasmlab.cluster.shown import Pod
from wasmlab.cluster.wait import wait_for


class Workloads(Access):
    """Objects and pods of a cluster."""

    def apply(self, manifest: dict[str, Any] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Create or change objects (server-side apply, as field manager ``wasmlab``).

        Parameters
        ----------
        manifest : dict or iterable of dict
            One object or several; without a namespace they go to the lab's, `Access.namespace`. In somebody else's
            cluster they are labelled, and removed by `Cluster.stop`.

        Returns
        -------
        list of dict
            The objects as the API server now has them.

        Raises
        ------
        ClusterError
            With what the API server said; or, in somebody else's cluster, that such an object is there already.
        """
        return [self.rest.apply(self._own(one)) for one in _listed(manifest)]

    def delete(
        self, manifest: dict[str, Any] | Iterable[dict[str, Any]], *, grace_s: int | None = None
    ) -> None:
        """Delete objects; those that do not exist are passed over. Does not wait until they are gone.

        Parameters
        ----------
        manifest : dict or str or sequence of them
            Objects, as `apply` takes them.
        grace_s : int, optional
            How long they may take to end, in seconds; what they themselves say by default.
        """
        for one in _listed(manifest):
            self.rest.delete(self._own(one), grace_s)

    def _own(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest as the lab may apply or delete it; in somebody else's cluster only if it is the lab's."""
        return self.guest.claim(manifest) if self.guest else manifest

    def wait_pod(
        self,
        name: str,
        namespace: str | None = None,
        phase: Sequence[str] = ("Succeeded", "Failed"),
        timeout_s: float = 30.0,
    ) -> Pod:
        """Wait until a pod is in one of the phases, by watching it.

        Parameters
        ----------
        name : str
            Of the Pod.
        phase : sequence of str
            One or more of Pending, Running, Succeeded, Failed.
        namespace : str, optional
            The lab's namespace by default.
        timeout_s : float
            The deadline, in seconds.

        Returns
        -------
        Pod
            The ``v1.Pod``, a dictionary.

        Raises
        ------
        NotReady
            At the deadline, with the pod's ``events``.
        """
        namespace = namespace or self.namespace

        def arrived(pod: dict[str, Any] | None) -> bool:
            return pod is not None and pod["status"].get("phase") in phase

        found = wait_for(
            self.rest,
            _pods(namespace),
            name,
            arrived,
            timeout_s,
            what=f"pod {namespace}/{name} to be {' or '.join(phase)}",
            events=lambda: [f"{e['reason']}: {e['message']}" for e in self.events(name, namespace)],
        )
        assert found is not None
        return Pod(found)

    def wait_gone(self, name: str, namespace: str | None = None, timeout_s: float = 30.0) -> None:
        """Wait until a pod no longer exists.

        Parameters
        ----------
        name : str
            Of the Pod.
        namespace : str, optional
            The lab's namespace by default.
        timeout_s : float
            The deadline, in seconds.

        Raises
        ------
        NotReady
            At the deadline.
        """
        namespace = namespace or self.namespace
        wait_for(
            self.rest,
            _pods(namespace),
            name,
            lambda pod: pod is None,
            timeout_s,
            what=f"pod {namespace}/{name} to be gone",
        )

    def logs(
        self,
        name: str,
        namespace: str | None = None,
        *,
        container: str | None = None,
        previous: bool = False,
        timestamps: bool = False,
        tail_lines: int | None = None,
        since_s: int | None = None,
        limit_bytes: int | None = None,
    ) -> str:
        """Return a pod's logs, as ``kubectl logs`` would: through the API server, from the node.

        Parameters
        ----------
        name : str
            Of the Pod.
        namespace : str, optional
            The lab's namespace by default.
        container : str, optional
            Which of several.
        previous : bool
            Of the run before this one.
        since_s : int, optional
            Only what is younger, in seconds.
        tail_lines : int, optional
            Only so many of the last lines.
        limit_bytes : int, optional
            At most so much.
        timestamps : bool
            With the time before every line.

        Raises
        ------
        ClusterError
            With what the API server said, e.g. that the container has not started.
        """
        query = {
            "container": container,
            "previous": "true" if previous else None,
            "timestamps": "true" if timestamps else None,
            "tailLines": tail_lines,
            "sinceSeconds": since_s,
            "limitBytes": limit_bytes,
        }
        namespace = namespace or self.namespace
        what = f"read the logs of pod {namespace}/{name}"
        return self.rest.call("GET", f"{_pods(namespace)}/{name}/log", query=query, what=what).decode(
            errors="replace"
        )

    def events(self, name: str | None = None, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return the events about an object (or all), oldest first: raw ``v1.Event`` dictionaries.

        Parameters
        ----------
        name : str, optional
            Of the object.
        namespace : str, optional
            Where to look; the lab's namespace by default.
        """
        selector = f"involvedObject.name={name}" if name else None
        namespace = namespace or self.namespace
        items: list[dict[str, Any]] = self.rest.get(
            f"/api/v1/namespaces/{namespace}/events", fieldSelector=selector
        )["items"]
        return sorted(items, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _listed(manifest: dict[str, Any] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(manifest, dict):
        return list(manifest["items"]) if manifest.get("kind") == "List" else [manifest]
    return list(manifest)
