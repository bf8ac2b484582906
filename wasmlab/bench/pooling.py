"""What two measurements differ in, and whether that forbids to put them together. Pure.

Rows of two measurements may be pooled only if they answer the same question on the same machine. What is compared:

=========  ==============================================================  ============================================
kind       fields                                                          why
=========  ==============================================================  ============================================
host       cpu_model, cores, memory_gib, kernel, cgroup                    other milliseconds
engines    the versions of the engines, here and in the rows               another program is measured
software   python, kubernetes                                              it is part of every path
lab        wasmlab                                                         the code around the engines
settings   what the plan holds constant (`Plan.settings`)                  another question
workloads  the digests of the modules that both ran                        another question
=========  ==============================================================  ============================================

What may differ: when it was measured, the load then (that is what blocks and controls are for), seeds, the numbers of
blocks and repetitions, which arms were in the plan, and what the fingerprint only tells (``virtualization``). A
measurement without a cluster goes with one of any cluster, and of the engines only those that both know are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlab.bench.store import Results

FIELDS = {
    "host": ("cpu_model", "cores", "memory_gib", "kernel", "cgroup"),
    "engines": ("engines",),
    "software": ("python", "kubernetes"),
    "lab": ("wasmlab",),
}
KINDS = (*FIELDS, "settings", "workloads")


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    field : str
        What it is: a field of the fingerprint, an engine, a setting, a workload.
    before, after : object
        Its two values; None if one side does not say.
    """

    kind: str
    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field} is {self.before!r} here and {self.after!r} there"


def differences(before: Results, after: Results) -> list[Difference]:
    """Return everything that makes two measurements incomparable, in the order of `KINDS`."""
    found = [
        Difference(kind, name, before.environment.get(name), after.environment.get(name))
        for kind, names in FIELDS.items()
        for name in names
        if name != "engines" and not _alike(name, before.environment, after.environment)
    ]
    found += _engines(before, after)
    found += [
        Difference("settings", name, one, other)
        for name, one, other in _unequal(_settings(before), _settings(after))
    ]
    found += [
        Difference("workloads", name, one, other)
        for name, one, other in _unequal(_digests(before), _digests(after), shared=True)
    ]
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def describe(found: Sequence[Difference]) -> str:
    """Return the differences as one line."""
    return "; ".join(map(str, found))


def _alike(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if name == "kubernetes" and None in (one.get(name), other.get(name)):
        return True
    return one.get(name) == other.get(name)


def _engines(before: Results, after: Results) -> list[Difference]:
    installed = _unequal(
        before.environment.get("engines") or {}, after.environment.get("engines") or {}, shared=True
    )
    # The rows say what really ran: a binding may have been replaced between two measurements of one process.
    ran = _unequal(_versions(before), _versions(after), shared=True)
    found = {name: Difference("engines", name, one, other) for name, one, other in (*installed, *ran)}
    return list(found.values())


def _unequal(
    one: Mapping[str, Any], other: Mapping[str, Any], *, shared: bool = False
) -> list[tuple[str, Any, Any]]:
    names: Iterable[str] = (name for name in one if name in other) if shared else {**one, **other}
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def parts(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what `Results.plan` says about each measurement that was pooled, however often; else itself."""
    pooled = plan.get("pooled")
    if pooled is None:
        yield plan
    for one in pooled or ():
        yield from parts(one)


def _settings(results: Results) -> dict[str, Any]:
    return {
        name: value for part in parts(results.plan) for name, value in (part.get("settings") or {}).items()
    }


def _versions(results: Results) -> dict[str, Any]:
    return _single(
        (row["engine"], row.get("engine_version")) for row in results.rows if row["path"] != "control"
    )


def _digests(results: Results) -> dict[str, Any]:
    # A cold pod runs a salted copy that nobody has seen: every run has a digest of its own.
    return _single(
        (row["workload"], row.get("module_digest")) for row in results.rows if row["mode"] != "cold"
    )


def _single(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return name -> value for the names that have exactly one; several are shown as a sorted list."""
    found: dict[str, set[Any]] = {}
    for name, value in pairs:
        if value is not None:
            found.setdefault(name, set()).add(value)
    return {name: values.pop() if len(values) == 1 else sorted(values) for name, values in found.items()}
