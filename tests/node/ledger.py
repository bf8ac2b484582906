"""The ledger of a fault test: what was asked, what ran, what was reported, and where the three differ. Pure.

A pod of the ledger runs ``data/wasm/fixtures/ledger.c`` with a token of its own: every run of it leaves one mark in a
directory of the host, prints a known sequence of lines, and ends with a known code. Whoever kills something says which
runs were lost by that (`Ledger.lost`); every other run has to have gone as if nothing had ever happened.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
KILLED = 137


@dataclass
class Asked:
    """One pod: what was asked for.

    Parameters
    ----------
    name : str
        Of the pod, its container and its token.
    lines, every_ms : int
        How many lines it prints between its first and its last, and the wait before each.
    code : int
        What it exits with.
    failures : int
        So many of its first runs exit with 1 instead.
    policy : str
        ``restartPolicy``.
    stays : bool
        It does not end by itself within the test.
    """

    name: str
    lines: int = 0
    every_ms: int = 0
    code: int = 0
    failures: int = 0
    policy: str = "Never"
    stays: bool = False
    uid: str = ""
    deleted: bool = False

    @property
    def args(self) -> list[str]:
        """Arguments of the guest."""
        return [self.name, *(str(n) for n in (self.lines, self.every_ms, self.code, self.failures))]

    def output(self) -> list[str]:
        """What a run prints that nobody disturbs."""
        return [f"begin {self.name}", *(f"{self.name} {i}" for i in range(self.lines)), f"end {self.name}"]


def draw(name: str, chance: random.Random) -> Asked:
    """Make up a pod: mostly short ones, some that print much, fail, try again or stay."""
    kind = chance.choices(
        ("short", "prints", "slow", "fails", "retries", "stays"), weights=(40, 20, 15, 8, 10, 7)
    )[0]
    if kind == "short":
        return Asked(name, lines=chance.randint(0, 3))
    if kind == "prints":
        return Asked(name, lines=chance.randint(100, 1500), policy=chance.choice(("Never", "OnFailure")))
    if kind == "slow":
        return Asked(name, lines=chance.randint(10, 40), every_ms=chance.randint(20, 100))
    if kind == "fails":
        return Asked(name, lines=chance.randint(0, 20), code=chance.randint(2, 125))
    if kind == "retries":
        lines = chance.randint(0, 20)
        return Asked(name, lines=lines, failures=chance.randint(1, 2), policy="OnFailure")
    return Asked(name, lines=100_000, every_ms=200, stays=True)


@dataclass
class Ran:
    """What is known of a pod's runs from outside the node's word: the marks on the host, and the logs."""

    marks: int = 0
    log: list[str] | None = None  # of the last run; None if it could not be had


@dataclass
class Ledger:
    """All pods of one test."""

    asked: dict[str, Asked] = field(default_factory=dict)
    # Ids of runs that had not ended when their process, their zygote or the node was killed.
    lost: set[str] = field(default_factory=set)
    # What the API said that no honest node says, noted while it was said.
    lies: list[str] = field(default_factory=list)
    _last: dict[str, Json] = field(default_factory=dict)

    def add(self, one: Asked) -> None:
        """Note a pod before it is created."""
        self.asked[one.name] = one

    def saw(self, pod: Json) -> None:
        """Take in what the API shows of a pod; each time it changes."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        one = self.asked.get(name)
        if one is None:
            return
        one.uid = one.uid or uid
        before, self._last[name] = self._last.get(name), pod
        if before is None:
            return
        was, now = (p["status"].get("phase") for p in (before, pod))
        if was in ("Succeeded", "Failed") and now != was:
            self.lies.append(f"{name}: was {was}, then {now}")
        if now == "Pending" and was == "Running":
            self.lies.append(f"{name}: was Running, then Pending")
        if restarts(pod) < restarts(before):
            self.lies.append(f"{name}: restartCount went from {restarts(before)} to {restarts(pod)}")

    def differences(self, pods: dict[str, Json], ran: dict[str, Ran]) -> list[str]:
        """Compare; empty if the node kept its promises.

        Parameters
        ----------
        pods : dict of str to dict
            The pods that exist at the end, by name.
        ran : dict of str to Ran
            What is known of each pod's runs.
        """
        found = list(self.lies)
        for name, one in self.asked.items():
            says = self._deleted(one, pods, ran) if one.deleted else self._kept(one, pods.get(name), ran)
            found += [f"{name} ({one}): {text}" for text in says]
        found += [f"{name}: nobody asked for it" for name in pods if name not in self.asked]
        return found

    def _lost_of(self, one: Asked, attempt: int) -> bool:
        return f"{one.uid}.{one.name}.{attempt}" in self.lost

    def _deleted(self, one: Asked, pods: dict[str, Json], ran: dict[str, Ran]) -> list[str]:
        found = ["was deleted and is still there"] if one.name in pods else []
        marks = ran.get(one.name, Ran()).marks
        if one.policy == "Never" and marks > 1:
            found.append(f"ran {marks} times")
        return found

    def _kept(self, one: Asked, pod: Json | None, ran: dict[str, Ran]) -> list[str]:
        if pod is None:
            return ["forgotten: it is not there"]
        mine = ran.get(one.name, Ran())
        phase, attempts = pod["status"].get("phase"), restarts(pod) + 1
        lost = [self._lost_of(one, attempt) for attempt in range(attempts)]
        found = []
        # A run that was lost may have been lost before its first instruction; every other leaves its mark.
        if not attempts - sum(lost) <= mine.marks <= attempts:
            ends = pod["status"].get("containerStatuses")
            found.append(f"ran {mine.marks} times, reported {attempts} (of which lost {sum(lost)}): {ends}")
        if one.policy == "Never" and attempts > 1:
            found.append(f"restarted {attempts - 1} times under Never")
        if attempts - 1 > one.failures + sum(lost):
            found.append(f"restarted {attempts - 1} times, failed {one.failures}, lost {sum(lost)}")
        wanted = self._wanted(one, lost[-1])
        said = (phase, exit_code(pod))
        if said not in wanted:
            found.append(
                f"reported {said}, wanted {' or '.join(map(str, sorted(wanted, key=str)))}; {why(pod)}"
            )
        if mine.log is not None:
            found += self._log(one, mine.log, whole=phase == "Succeeded" or (not lost[-1] and not one.stays))
        elif mine.marks and not lost[-1]:
            found.append("its log is not there")
        return found

    def _wanted(self, one: Asked, lost: bool) -> set[tuple[str, int | None]]:
        if one.stays:
            wanted: set[tuple[str, int | None]] = {("Running", None)}
        else:
            wanted = {("Failed" if one.code else "Succeeded", one.code)}
        if lost and one.policy == "Never":
            # Lost, or just over when it was: both may be.
            wanted.add(("Failed", KILLED))
            if one.stays:
                wanted.discard(("Running", None))
        return wanted

    def _log(self, one: Asked, log: list[str], *, whole: bool) -> list[str]:
        expected = one.output()
        if whole and log != expected:
            return [f"its log differs: {_difference(log, expected)}"]
        if log != expected[: len(log)]:
            return [f"its log is not the beginning of what it prints: {_difference(log, expected)}"]
        return []


def _difference(log: list[str], expected: list[str]) -> str:
    for index, (got, wanted) in enumerate(zip(log, expected, strict=False)):
        if got != wanted:
            return f"line {index} is {got!r}, not {wanted!r} ({len(log)} of {len(expected)} lines)"
    return f"{len(log)} lines of {len(expected)}"


def _container(pod: Json) -> Json:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return statuses[0]


def restarts(pod: Json) -> int:
    """``restartCount`` of the pod's container."""
    return int(_container(pod).get("restartCount") or 0)


def exit_code(pod: Json) -> int | None:
    """The exit code that the pod's container shows, if it has ended."""
    code = _container(pod).get("state", {}).get("terminated", {}).get("exitCode")
    return None if code is None else int(code)


def why(pod: Json) -> str:
    """What the pod's container says of itself."""
    state = _container(pod).get("state", {})
    return "; ".join(
        f"{kind} {detail.get('reason', '')} {detail.get('message', '')}" for kind, detail in state.items()
    )
