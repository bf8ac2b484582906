"""The API server's REST interface as raw dictionaries, over a kubernetes client's connection and credentials.

The client's models are convenient to type, but building them costs more than the requests themselves (hundreds of
milliseconds for the first listing), and this package only reads a few fields.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wasmlab.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes import client
    from urllib3.response import HTTPResponse

FIELD_MANAGER = "wasmlab"
TIMEOUT_S = 30.0
_CONNECT_S = 5.0


class Unreachable(ClusterError, ConnectionError):
    """The API server did not answer; a moment later it may."""


class Rest:
    """Requests to one API server.

    Parameters
    ----------
    api : kubernetes.client.ApiClient
        Where the connection pool and the credentials come from.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._kinds: dict[str, dict[str, dict[str, Any]]] = {}

    def get(self, path: str, *, what: str = "", **query: Any) -> dict[str, Any]:
        """GET `path` and return the JSON object."""
        answer: dict[str, Any] = json.loads(self.call("GET", path, what=what, query=query))
        return answer

    def call(
        self,
        method: str,
        path: str,
        *,
        what: str = "",
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float = TIMEOUT_S,
    ) -> bytes:
        """Send a request and return the body of the answer.

        Raises
        ------
        ClusterError
            With what the API server said, and the HTTP ``status``.
        Unreachable
            If it did not answer.
        """
        from urllib3.exceptions import HTTPError

        what = what or f"{method} {path}"
        try:
            response = self._open(method, path, query, body, content_type, (_CONNECT_S, timeout_s))
            try:
                data = response.read()
            finally:
                response.release_conn()
        except (HTTPError, OSError) as error:
            raise unreachable(what, error) from error
        if not 200 <= response.status < 300:
            raise refused(what, response.status, data)
        return data

    def watch(self, path: str, *, timeout_s: int, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield watch events until the server closes the watch, at the latest after `timeout_s` seconds.

        Raises
        ------
        ClusterError, Unreachable
            As `call`.
        """
        from urllib3.exceptions import HTTPError

        query |= {"watch": "true", "timeoutSeconds": timeout_s}
        what = f"watch {path}"
        try:
            response = self._open("GET", path, query, None, "", (_CONNECT_S, timeout_s + 5.0))
            try:
                if response.status != 200:
                    raise refused(what, response.status, response.read())
                pending = b""
                for chunk in response.stream(amt=None, decode_content=True):
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield json.loads(line)
            finally:
                # Not released to the pool: an unread stream cannot serve another request.
                response.close()
        except (HTTPError, OSError) as error:
            raise unreachable(what, error) from error

    def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create or change one object by server-side apply.

        References
        ----------
        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        answer: dict[str, Any] = json.loads(
            self.call(
                "PATCH",
                self.path(manifest),
                what=f"apply {describe(manifest)}",
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=manifest,
                content_type="application/apply-patch+yaml",
            )
        )
        return answer

    def delete(self, manifest: dict[str, Any], grace_s: int | None = None) -> None:
        """Delete one object; a missing one is no error."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self.call("DELETE", self.path(manifest), what=f"delete {describe(manifest)}", body=options)
        except ClusterError as error:
            if error.context.get("status") != 404:
                raise

    def path(self, manifest: dict[str, Any]) -> str:
        """Return where an object lives, by discovery.

        Raises
        ------
        ClusterError
            If the manifest lacks a name or kind, or the cluster does not know the kind.
        """
        base, resource, name = self._resource(manifest)
        if not resource["namespaced"]:
            return f"{base}/{resource['name']}/{name}"
        return (
            f"{base}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{resource['name']}/{name}"
        )

    def is_namespaced(self, manifest: dict[str, Any]) -> bool:
        """Whether objects of this kind are in namespaces, by discovery.

        Raises
        ------
        ClusterError
            As `path`.
        """
        return bool(self._resource(manifest)[1]["namespaced"])

    def _resource(self, manifest: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
        """Return the path of the object's API group and version, what discovery says of its kind, and its name."""
        try:
            version, kind, name = manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]
        except (KeyError, TypeError) as error:
            raise ClusterError(f"this is no manifest, it has no {error}: {str(manifest)[:200]}") from None
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if base not in self._kinds:
            found = self.get(base, what=f"list what is in {version}")["resources"]
            self._kinds[base] = {one["kind"]: one for one in found if "/" not in one["name"]}
        resource = self._kinds[base].get(kind)
        if resource is None:
            raise ClusterError(
                f"the cluster knows no {kind} in {version}", remedy="`wasmlab kubectl api-resources`"
            )
        return base, resource, name

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        timeout: tuple[float, float],
    ) -> HTTPResponse:
        headers = {"Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        method, url, headers, body, _ = self._api.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in (query or {}).items() if value is not None],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._api.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=timeout
        )
        response: HTTPResponse = answer.response
        return response


def describe(manifest: dict[str, Any]) -> str:
    """Return ``Pod default/hello``."""
    metadata = manifest.get("metadata", {})
    return f"{manifest.get('kind', '?')} {metadata.get('namespace', 'default')}/{metadata.get('name', '?')}"


def refused(what: str, status: int, body: bytes) -> ClusterError:
    """Say what was tried and what the API server answered."""
    said = body.decode(errors="replace")[:500]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(body)["message"]
    return ClusterError(f"cannot {what}: {said} (HTTP {status})", status=status)


def unreachable(what: str, error: Exception) -> Unreachable:
    """Say that nobody answered."""
    return Unreachable(
        f"cannot {what}: the API server did not answer ({error})",
        remedy="`wasmlab status` tells whether it runs",
    )
