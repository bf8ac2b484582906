"""What is known of a pod and its containers, before it becomes a v1.PodStatus: plain records, pure.

Times are unix seconds here; `wasmlab.node.api.times` goes to and from the API's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wasmlab.node.api.times import parse_time
from wasmlab.node.status.states import CONTAINER_CREATING, State, check, should_restart

Json = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How one run of a container ended.

    Parameters
    ----------
    exit_code : int
        As a shell would say it: 128 + signal for a killed one.
    reason : str
        Completed, Error, OOMKilled, StartError...
    message : str
        For people; empty when there is nothing to add.
    started_at, finished_at : float
        Unix seconds.
    run_id : str
        The sandbox's id of the run.
    """

    exit_code: int
    reason: str
    message: str
    started_at: float
    finished_at: float
    run_id: str


def ended_of(terminated: Json) -> Ended:
    """Read a v1.ContainerStateTerminated back."""

    def moment(key: str) -> float:
        return parse_time(terminated[key]) if terminated.get(key) else 0.0

    return Ended(
        exit_code=int(terminated.get("exitCode") or 0),
        reason=terminated.get("reason") or "",
        message=terminated.get("message") or "",
        started_at=moment("startedAt"),
        finished_at=moment("finishedAt"),
        run_id=(terminated.get("containerID") or "").removeprefix("wasmlab://"),
    )


@dataclass
class ContainerRecord:
    """What the worker knows of one container.

    Parameters
    ----------
    sidecar : bool
        An init container that goes on beside the others (restartPolicy Always).
    ephemeral : bool
        Added to the pod while it ran (``kubectl debug``): never restarted, of no account for the pod.
    policy : str or None
        Its own restartPolicy, where it has one.
    rules : sequence of dict
        Its own restartPolicyRules.
    started, ready : bool
        What its startup and readiness probes say; without any, True. They count only while it runs.
    """

    name: str
    image: str
    init: bool = False
    sidecar: bool = False
    ephemeral: bool = False
    policy: str | None = None
    rules: Sequence[Json] = ()
    started: bool = True
    ready: bool = True
    state: State = State.QUEUED
    reason: str = CONTAINER_CREATING  # the waiting reason
    message: str = ""
    started_at: float | None = None
    ended: Ended | None = None  # this attempt's end
    last: Ended | None = None  # the previous attempt's
    restarts: int = 0
    image_id: str = ""
    run_id: str = ""

    def move(self, state: State, reason: str | None = None, message: str = "") -> None:
        """Go to another state, if the table allows it.

        Parameters
        ----------
        reason, message : str, optional
            What it waits for there; unchanged if not given.
        """
        self.state = check(self.state, state, self.reason if reason is None else reason)
        if reason is not None:
            self.reason, self.message = reason, message

    def runs(self) -> None:
        """Go to RUNNING: the end before this attempt becomes the last state."""
        self.move(State.RUNNING)
        if self.ended is not None:
            self.last, self.ended = self.ended, None

    def ends(self, end: Ended) -> None:
        """Go to EXITED."""
        self.move(State.EXITED)
        if self.ended is not None:  # an attempt that was never said to run
            self.last = self.ended
        self.ended, self.run_id = end, end.run_id

    @property
    def running(self) -> bool:
        """Whether its module runs."""
        return self.state is State.RUNNING

    @property
    def title(self) -> str:
        """As the events of its end call it."""
        return f"{'Init container' if self.init else 'Container'} {self.name}"

    @property
    def main(self) -> bool:
        """Whether it is one of ``spec.containers``: what the pod is for."""
        return not self.init and not self.ephemeral

    @property
    def is_started(self) -> bool:
        """Whether it runs and its startup probe is content."""
        return self.running and self.started

    @property
    def is_ready(self) -> bool:
        """Whether it runs and both probes are content."""
        return self.running and self.started and self.ready and not self.ephemeral

    @property
    def has_run(self) -> bool:
        """Whether it was ever seen running, or ended."""
        return self.running or self.ended is not None or self.last is not None

    def restarts_after(self, exit_code: int, pod_policy: str | None) -> bool:
        """Whether it is started again when it has ended so.

        Parameters
        ----------
        pod_policy : str or None
            ``spec.restartPolicy`` of the pod.
        """
        if self.sidecar:
            return True
        if self.ephemeral:
            return False
        if self.init and exit_code == 0:
            return False  # what it was for is done
        return should_restart(self.policy or pod_policy, exit_code, self.rules if self.policy else ())

    @property
    def terminated(self) -> Ended | None:
        """The end that the API shows as the current state, if it does."""
        return self.ended if self.state in (State.EXITED, State.DONE) else None


@dataclass(frozen=True)
class Verdict:
    """A phase that does not follow from the containers: DeadlineExceeded, refused, evicted."""

    phase: str
    reason: str
    message: str
    disruption: bool = False  # the node ended a pod that ran: Jobs count that apart from failures


@dataclass
class PodFacts:
    """What the status says beside the containers."""

    host_ip: str
    start_time: float
    now: float
    pod_ip: str = ""  # the node's if not given
    krustlet: bool = False
    terminal: bool = False  # nothing of this pod will ever start again (deleted, or failed for good)
    verdict: Verdict | None = None
    previous: Sequence[Json] = ()  # the conditions written last, for their transition times
    generation: int | None = None  # of the spec that the status is about
    closed_gates: Sequence[str] = ()  # readiness gates whose condition is not True
