"""What a probe's answers mean: thresholds, delays and targets. Pure; `prober` asks, `actions` does.

References
----------
``k8s.io/kubernetes/pkg/kubelet/prober/worker.go`` (``doProbe``), ``pkg/probe/util.go`` (``ResolveContainerPort``),
``pkg/probe/http/request.go`` (``NewRequestForHTTPGetAction``), ``pkg/kubelet/container/helpers.go``
(``ExpandContainerCommandOnlyStatic``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wasmlab.node.spec import env

Json = Mapping[str, Any]

LIVENESS, READINESS, STARTUP = "Liveness", "Readiness", "Startup"
_KINDS = {STARTUP: "startupProbe", LIVENESS: "livenessProbe", READINESS: "readinessProbe"}


class BadTarget(Exception):
    """A probe or hook names something that is not there; the message says what."""


@dataclass(frozen=True)
class Probe:
    """One probe of a container, with the API's defaults filled in.

    Parameters
    ----------
    kind : {"Liveness", "Readiness", "Startup"}
        As events name it.
    handler : dict
        v1.ProbeHandler: exec, httpGet, tcpSocket.
    initial_delay_s, period_s, timeout_s : float
        Seconds.
    success_threshold, failure_threshold : int
        How many answers in a row it takes.
    grace_s : float or None
        How long the container has to end when this probe ends it; the pod's grace period if None.
    """

    kind: str
    handler: Json
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int
    grace_s: float | None

    @classmethod
    def of(cls, container: Json, kind: str) -> Probe | None:
        """The container's probe of that kind, if it has one."""
        spec = container.get(_KINDS[kind])
        if not spec:
            return None
        grace = spec.get("terminationGracePeriodSeconds")
        return cls(
            kind=kind,
            handler=spec,
            initial_delay_s=float(spec.get("initialDelaySeconds") or 0),
            period_s=float(spec.get("periodSeconds") or 10),
            timeout_s=float(spec.get("timeoutSeconds") or 1),
            success_threshold=int(spec.get("successThreshold") or 1),
            failure_threshold=int(spec.get("failureThreshold") or 3),
            grace_s=None if grace is None else float(grace),
        )


def probed(container: Json) -> bool:
    """Whether it has any probe."""
    return any(container.get(key) for key in _KINDS.values())


@dataclass
class Tally:
    """Counts a probe's answers.

    Parameters
    ----------
    probe : Probe
        Whose thresholds count.
    """

    probe: Probe
    _last: bool | None = None
    _run: int = 0

    def count(self, success: bool) -> bool | None:
        """Take an answer; return it when as many of its kind came in a row as it takes, else None (no change)."""
        self._run = self._run + 1 if success is self._last else 1
        self._last = success
        threshold = self.probe.success_threshold if success else self.probe.failure_threshold
        return success if self._run >= threshold else None


def next_tick(begin: float, period_s: float, now: float) -> float:
    """When the next probe is due: on the beat that began at `begin`; beats that were missed are not made up for."""
    beats = int((now - begin) // period_s) + 1
    return begin + beats * period_s


def port_of(target: Json, container: Json) -> int:
    """The port of an httpGet or tcpSocket, looked up by name where it is one.

    Raises
    ------
    BadTarget
        There is no such port.
    """
    port = target.get("port")
    if isinstance(port, str) and not port.isdigit():
        found = [p["containerPort"] for p in container.get("ports") or () if p.get("name") == port]
        if not found:
            raise BadTarget(f'port "{port}" not found')
        port = found[0]
    number = int(port or 0)
    if not 0 < number < 65536:
        raise BadTarget(f"invalid port number: {number}")
    return number


def address(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(target: Json, container: Json, pod_ip: str) -> str:
    """The URL that an httpGet asks.

    Raises
    ------
    BadTarget
        There is no such port.
    """
    scheme = (target.get("scheme") or "HTTP").lower()
    path = target.get("path") or "/"
    if not path.startswith("/"):
        path = "/" + path
    return f"{scheme}://{address(target.get('host') or pod_ip, port_of(target, container))}{path}"


def headers_of(target: Json, purpose: str) -> list[tuple[str, str]]:
    """Request headers: the given ones, User-Agent and Accept unless given (an empty Accept leaves it out).

    Parameters
    ----------
    purpose : str
        ``probe`` or ``lifecycle``, for the User-Agent.
    """
    headers = [(h["name"], h.get("value") or "") for h in target.get("httpHeaders") or ()]
    names = {name.lower() for name, _ in headers}
    if "user-agent" not in names:
        headers.append(("User-Agent", f"kube-{purpose}/wasmlab"))
    if "accept" not in names:
        headers.append(("Accept", "*/*"))
    return [(name, value) for name, value in headers if not (name.lower() == "accept" and not value)]


def command_of(action: Json, container: Json) -> list[str]:
    """An exec action's command, ``$(NAME)`` replaced from the plain values of the container's environment only."""
    static = {e["name"]: e.get("value") or "" for e in container.get("env") or () if not e.get("valueFrom")}
    return [env.expand(part, static) for part in action.get("command") or ()]
