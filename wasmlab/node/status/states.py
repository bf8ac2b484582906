"""The state table of a container: what a state does, what it reports, where it may go.

Pure data and one guard. The worker drives it; nothing else changes a container's state, and a move that the table
does not list is a programming error that fails loudly instead of a status that lies.

::

    QUEUED -> PULLING -> CREATING -> STARTING -> RUNNING -> EXITED -> DONE
                |  ^        |  ^                    ^          |
                v  |        v  |                    |          v
           PULL_BACKOFF  CONFIG_ERROR               +-- CRASH_BACKOFF (through PULLING again: the policy may be Always)

STARTING is only for a container with a postStart hook: its module runs, and is not said to until the hook has ended.

References
----------
The cut (does / reports / next) is Krustlet's; the reasons are the kubelet's: ``pkg/kubelet/images/types.go``,
``pkg/kubelet/container/sync_result.go``, ``pkg/kubelet/kubelet_pods.go`` (``ContainerCreating``, ``PodInitializing``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a container is."""

    QUEUED = "queued"
    PULLING = "pulling"
    PULL_BACKOFF = "pull-backoff"
    CREATING = "creating"
    CONFIG_ERROR = "config-error"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    CRASH_BACKOFF = "crash-backoff"
    DONE = "done"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    does : str
        What the agent does while a container is here.
    reports : str
        Which of waiting, running, terminated the API shows. ``DONE`` reports what it ended with, and ``waiting`` when
        the container never started.
    reasons : tuple of str
        The waiting reasons a container here may carry.
    goes : frozenset of State
        Where it may go next.
    """

    does: str
    reports: str
    reasons: tuple[str, ...]
    goes: frozenset[State]


CONTAINER_CREATING = "ContainerCreating"
POD_INITIALIZING = "PodInitializing"
ERR_IMAGE_PULL = "ErrImagePull"
IMAGE_PULL_BACKOFF = "ImagePullBackOff"
ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull"
INVALID_IMAGE_NAME = "InvalidImageName"
CONFIG_ERROR = "CreateContainerConfigError"
CREATE_ERROR = "CreateContainerError"
CRASH_LOOP = "CrashLoopBackOff"

_FRESH = (CONTAINER_CREATING, POD_INITIALIZING)
_PULL = (ERR_IMAGE_PULL, IMAGE_PULL_BACKOFF, ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME)
# While a failed step is tried again the API goes on showing why it failed, as the kubelet's reason cache does: a reader
# who looks at that moment must not be told that all is new.
_CREATING = (*_FRESH, *_PULL, CONFIG_ERROR, CREATE_ERROR, CRASH_LOOP)

TABLE: dict[State, Row] = {
    State.QUEUED: Row(
        "waits for its turn (init containers run one after the other)",
        "waiting",
        _FRESH,
        # RUNNING and EXITED: a run that an earlier agent started is adopted.
        frozenset({State.PULLING, State.RUNNING, State.EXITED, State.CRASH_BACKOFF, State.DONE}),
    ),
    State.PULLING: Row(
        "gets the module by policy, verified against its digest",
        "waiting",
        _CREATING,
        frozenset({State.CREATING, State.PULL_BACKOFF, State.DONE}),
    ),
    State.PULL_BACKOFF: Row(
        "waits before it asks the registry again",
        "waiting",
        _PULL,
        frozenset({State.PULLING, State.DONE}),
    ),
    State.CREATING: Row(
        "resolves environment and mounts, compiles, hands the run to the sandbox",
        "waiting",
        _CREATING,
        frozenset({State.STARTING, State.RUNNING, State.CONFIG_ERROR, State.EXITED, State.DONE}),
    ),
    State.CONFIG_ERROR: Row(
        "waits before it reads the configuration again",
        "waiting",
        (CONFIG_ERROR, CREATE_ERROR),
        frozenset({State.CREATING, State.PULLING, State.DONE}),
    ),
    State.STARTING: Row(
        "runs the postStart hook beside the module",
        "waiting",
        _CREATING,
        frozenset({State.RUNNING, State.EXITED}),
    ),
    State.RUNNING: Row("waits for the module's end", "running", (), frozenset({State.EXITED})),
    State.EXITED: Row(
        "decides by restartPolicy",
        "terminated",
        (),
        frozenset({State.PULLING, State.CRASH_BACKOFF, State.DONE}),
    ),
    State.CRASH_BACKOFF: Row(
        "waits 10 s doubling to 300 s before it starts again",
        "waiting",
        (CRASH_LOOP,),
        frozenset({State.PULLING, State.DONE}),
    ),
    State.DONE: Row("nothing: this container never runs again", "terminated", (), frozenset()),
}


class IllegalTransition(AssertionError):
    """A move that the table does not list."""


def check(old: State, new: State, reason: str) -> State:
    """Return `new` if the table lets a container go there from `old`, waiting for `reason`.

    Raises
    ------
    IllegalTransition
        It does not, or a container there does not wait for such a reason.
    """
    if new is not old and new not in TABLE[old].goes:
        raise IllegalTransition(f"a container cannot go from {old} to {new}")
    if TABLE[new].reports == "waiting" and reason not in TABLE[new].reasons:
        raise IllegalTransition(f"a container in {new} cannot wait for {reason}")
    return new


def should_restart(
    restart_policy: str | None, exit_code: int, rules: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """Whether an ended container is started again.

    Parameters
    ----------
    restart_policy : str or None
        The container's own, else the pod's.
    rules : sequence of v1.ContainerRestartRule
        The container's own (`restartPolicyRules`): the first that matches the exit code is asked before the policy.
        The only action served is Restart; the scheduler keeps RestartAllContainers away from a node that does not
        declare it.

    References
    ----------
    ``k8s.io/kubernetes/pkg/api/v1/pod/util.go``, ``ContainerShouldRestart``: the default is Always.
    """
    for rule in rules:
        codes = rule.get("exitCodes") or {}
        if {
            "In": exit_code in codes.get("values", ()),
            "NotIn": exit_code not in codes.get("values", ()),
        }.get(codes.get("operator", ""), False):
            if rule.get("action") == "Restart":
                return True
            break
    if restart_policy == "Never":
        return False
    if restart_policy == "OnFailure":
        return exit_code != 0
    return True
