"""The kubelet's back-off: 10 s, doubled at each failure up to 300 s, forgotten after 10 good minutes.

References
----------
``k8s.io/kubernetes/pkg/kubelet/kubelet.go`` (``initialImageBackOff``/``MaxCrashLoopBackOff`` = 10 s / 300 s) and
``k8s.io/client-go/util/flowcontrol/backoff.go`` (an entry expires after twice its maximum, which is 10 minutes).
"""

from __future__ import annotations

from dataclasses import dataclass

BASE_S = 10.0
CAP_S = 300.0


@dataclass
class Backoff:
    """How long to wait before trying the same thing again.

    Parameters
    ----------
    base_s, cap_s : float
        First and longest wait. Tests shrink them; nothing else should.
    """

    base_s: float = BASE_S
    cap_s: float = CAP_S
    current_s: float = 0.0

    @property
    def reset_after_s(self) -> float:
        """A thing that went well for this long starts again from the first wait."""
        return 2 * self.cap_s

    def failed(self, went_well_s: float = 0.0) -> float:
        """Take note of a failure and return the wait before the next try.

        Parameters
        ----------
        went_well_s : float
            How long the thing had gone well before it failed.
        """
        if went_well_s > self.reset_after_s:
            self.current_s = 0.0
        self.current_s = min(self.cap_s, self.current_s * 2 if self.current_s else self.base_s)
        return self.current_s

    def to_cap(self) -> float:
        """Give up hope: from now on only the longest wait (for what no retry can mend)."""
        self.current_s = self.cap_s
        return self.current_s

    def reset(self) -> None:
        """Forget all failures."""
        self.current_s = 0.0


@dataclass
class CrashBackoff:
    """When to start an ended container again.

    The kubelet's rule has one surprise, kept here: the first restart is immediate, the second waits 10 s, then 20,
    40...
    """

    base_s: float = BASE_S
    cap_s: float = CAP_S
    current_s: float | None = None

    def ended(self, ran_s: float) -> float:
        """Take note of an end and return the wait before the next start (0 for the first).

        Parameters
        ----------
        ran_s : float
            How long this run of the container lasted.
        """
        if self.current_s is None or ran_s > 2 * self.cap_s:
            self.current_s = 0.0
            return 0.0
        self.current_s = min(self.cap_s, self.current_s * 2 if self.current_s else self.base_s)
        return self.current_s

    def resume(self, restarts: int) -> None:
        """Continue after an agent restart: as if `restarts` ends had been counted here."""
        self.current_s = None
        for _ in range(min(restarts, 16)):
            self.ended(0.0)
