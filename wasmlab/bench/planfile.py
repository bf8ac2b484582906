"""Plans as data: declared in a file, kept with the results, read back from them. Pure.

A plan file is YAML (or JSON); `wasmlab bench --plan FILE` carries it out. The same keys go into the metadata of the
results, from which the plan can be read back (`of`). `EXAMPLE` shows all keys.
In place of ``factors``, ``arms`` lists them one by one: ``[local, wasmtime, warm, hello]`` or
``local/wasmtime/warm/hello``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wasmlab.bench import pooling
from wasmlab.bench.plan import CONTROLS, PATHS, Arm, Plan, cross, is_count
from wasmlab.bench.stopping import Stopping
from wasmlab.bench.warmup import SETTLE
from wasmlab.errors import BenchmarkError

EXAMPLE = """\
factors:                     # every combination that can be run is an arm
  path: [local]
  engine: [wasmtime, wasmer]
  mode: [cold, warm]
  workload: [hello]
controls: true               # native processes and, for the path containerd, runc
blocks: 60                   # at most, if there is a rule for stopping
repetitions: 1               # runs of every arm in a block
seed: 1
every: {containerd: 2}       # a slow path is only in every second block
settings: {}                 # what is held constant; results with other settings are not pooled
warmup: settle               # the rule of wasmlab.bench.warmup, or a number of blocks
stopping: {precision: 0.05, max_seconds: 600}
"""

_KEYS = {
    "arms", "factors", "controls", "blocks", "repetitions", "seed", "every", "settings", "warmup", "stopping",
}  # fmt: skip


def from_dict(data: Mapping[str, Any], workload: Callable[[str], Any] | None = None) -> Plan:
    """Return the plan that `data` declares; see the top of this module.

    Parameters
    ----------
    data : mapping
        What `Plan.as_dict` returns, or a plan file holds.
    workload : callable, optional
        Finds a `Workload` by its name (`wasmlab.modules.workloads.get`); needed for ``factors`` without ``arms``.

    Raises
    ------
    BenchmarkError
        If a key or a value is not understood: nothing is guessed.
    """
    if not isinstance(data, Mapping):
        raise BenchmarkError("a plan is a mapping of keys", remedy="`wasmlab bench plan` prints an example")
    unknown = set(data) - _KEYS
    if unknown:
        raise BenchmarkError(
            f"a plan has no {', '.join(sorted(map(str, unknown)))}",
            remedy=f"it has {', '.join(sorted(_KEYS))}",
        )
    stopping = data.get("stopping")
    try:
        return Plan(
            _listed(data) if data.get("arms") else _combinations(data, workload),
            _count(data, "blocks"),
            _count(data, "seed", 1),
            {str(path): _count(data["every"], path) for path in data.get("every") or ()},
            _count(data, "repetitions", 1),
            dict(data.get("settings") or {}),
            data.get("warmup", SETTLE),
            None if stopping is None else Stopping(**stopping),
        )
    except (TypeError, ValueError) as error:
        raise BenchmarkError(
            f"the plan is not understood: {error}", remedy="`wasmlab bench plan` prints an example"
        ) from None


def from_yaml(text: str, workload: Callable[[str], Any] | None = None) -> Plan:
    """Return the plan that a YAML (or JSON) text declares.

    Raises
    ------
    BenchmarkError
        If it is no YAML, or no plan.
    """
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BenchmarkError(f"the plan is no YAML: {error}", remedy="correct the file") from None
    return from_dict(data, workload)


def of(metadata: Mapping[str, Any]) -> list[Plan]:
    """Return the plans that results came from: ``of(results.plan)``; pooled results have several.

    Results of other measurements than plans (the headline figures, say) have none.
    """
    found = []
    for one in pooling.parts(metadata):
        # What a measurement adds about its outcome is no part of the plan; early files say `repeats` for `blocks`.
        declared = {key: one[key] for key in _KEYS & set(one)}
        if "arms" in declared:
            declared.setdefault("blocks", one.get("repeats"))
            found.append(from_dict(declared))
    return found


def _count(data: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = data.get(key, default)
    if not is_count(value):
        raise BenchmarkError(f"the plan's {key} is {value!r}", remedy="give a whole number")
    assert isinstance(value, int)
    return value


def _listed(data: Mapping[str, Any]) -> tuple[Arm, ...]:
    arms = tuple(_arm(one) for one in data["arms"])
    # Whoever lists arms lists controls too, unless they are asked for by name.
    return (*arms, *(arm for arm in CONTROLS if data.get("controls") and arm not in arms))


def _arm(one: Any) -> Arm:
    # A workload may have a slash of its own: boolector/factor.
    parts = one.split("/", 3) if isinstance(one, str) else one
    if not (isinstance(parts, Sequence) and len(parts) == 4 and all(isinstance(part, str) for part in parts)):
        raise BenchmarkError(
            f"{one!r} is no arm", remedy="give path, engine, mode and workload: local/wasmtime/warm/hello"
        )
    arm = Arm(*parts)
    if arm.path not in PATHS:
        raise BenchmarkError(f"unknown path {arm.path!r}", remedy=f"choose from {', '.join(PATHS)}")
    return arm


def _combinations(data: Mapping[str, Any], workload: Callable[[str], Any] | None) -> tuple[Arm, ...]:
    factors = data.get("factors")
    if not isinstance(factors, Mapping) or set(factors) != set(Arm._fields) or workload is None:
        raise BenchmarkError(
            "a plan needs arms, or the factors path, engine, mode and workload",
            remedy="`wasmlab bench plan` prints an example",
        )
    levels = {
        name: [values] if isinstance(values, str) else list(values or ()) for name, values in factors.items()
    }
    return cross(
        levels["path"],
        levels["engine"],
        levels["mode"],
        [workload(name) for name in levels["workload"]],
        controls=bool(data.get("controls", True)),
    )
