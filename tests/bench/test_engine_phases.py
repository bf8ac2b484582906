"""Every adapter, cold and cached: it tells exactly the phases that are declared for it, and they touch."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from tests.engines.adapters import ADAPTERS, chosen
from wasmlab import engines
from wasmlab.bench import phases
from wasmlab.bench.local import LocalExecutor
from wasmlab.bench.plan import Arm
from wasmlab.engines import CompileCache
from wasmlab.engines.spec import RunSpec, Span
from wasmlab.modules import workloads
from wasmlab.sandbox import Sandbox


@pytest.fixture(scope="module", params=ADAPTERS)
def engine(request):
    with chosen(request.param) as name:
        yield name


@pytest.fixture(scope="module")
def sandbox(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp(engine)
    with Sandbox(engine, dir=folder / "run", cache=CompileCache(folder / "cache")) as one:
        yield one


def run(sandbox: Sandbox, name: str, *, cold: bool) -> list[Span]:
    """Run a workload; return its engine phases by their beginning."""
    work = workloads.get(name)
    outcome = sandbox.run(RunSpec(str(work.path), work.digest, work.argv), cold=cold)
    assert work.check(outcome.stdout, outcome.exit_code) is None, outcome.message
    found = [span for span in outcome.spans if span.phase in phases.ENGINE_PHASES]
    reaped = outcome.span("reaped")
    assert reaped is not None and found
    # From the request to the end of the process. What was compiled ahead was compiled before.
    assert min(span.start_ns for span in found if span.phase == "spawn") == reaped.start_ns
    assert max(span.end_ns for span in found) == reaped.end_ns
    return sorted(found, key=lambda span: (span.start_ns, span.end_ns))


def check(found: list[Span], expected: tuple[str, ...]) -> None:
    assert tuple(span.phase for span in found) == expected
    for before, after in itertools.pairwise(found):
        assert before.end_ns == after.start_ns, f"{before} and {after} do not touch"
    assert all(span.end_ns >= span.start_ns for span in found)
    assert sum(span.end_ns - span.start_ns for span in found) == found[-1].end_ns - found[0].start_ns


@pytest.mark.parametrize("mode", ["cold", "cached"])
def test_a_run_has_the_declared_phases(engine: str, sandbox: Sandbox, mode: str) -> None:
    run(sandbox, "hello", cold=False)  # now it is in the cache
    hidden = engines.get(engine).capabilities.hidden_phases
    check(run(sandbox, "hello", cold=mode == "cold"), phases.declared(mode, hidden, within="worker"))


@pytest.mark.parametrize("mode", ["cold", "cached"])
def test_a_component_has_them_too(engine: str, sandbox: Sandbox, mode: str) -> None:
    able = engines.get(engine).capabilities
    if not able.components:
        pytest.skip(f"{engine}: {able.notes['components']}")
    run(sandbox, "hello/component", cold=False)
    hidden = {**able.hidden_phases, **phases.HIDDEN_IN_COMPONENTS}
    check(
        run(sandbox, "hello/component", cold=mode == "cold"), phases.declared(mode, hidden, within="worker")
    )


def test_what_is_compiled_ahead_is_told_by_its_child(engine: str, tmp_path) -> None:
    able = engines.get(engine).capabilities
    cache = CompileCache(tmp_path)
    assert cache.compiled == ()
    cache.artifact(engines.get(engine), workloads.get("hello").path)
    local = phases.declared("cold", able.hidden_phases)
    check(list(cache.compiled), local[local.index("child") : local.index("spawn")])
    # The next one finds it, and nothing is told of a compilation that was not.
    cache.artifact(engines.get(engine), workloads.get("hello").path)
    assert cache.compiled == ()


@pytest.mark.parametrize("mode", ["cold", "cached", "warm"])
def test_rows_of_the_bench_have_the_declared_phases(engine: str, sandbox: Sandbox, mode: str) -> None:
    with LocalExecutor(sandbox.cache) as executor:
        row = executor.run(Arm("local", engine, mode, "hello"))
    assert row["error"] is None
    told = {name for name in phases.ENGINE_PHASES if row.get(f"{name}_ns") is not None}
    assert told == set(phases.declared(mode, engines.get(engine).capabilities.hidden_phases))
    assert all(row[f"{name}_ns"] >= 0 for name in told)
    # What is left over is the time between processes: it is there, and never negative.
    assert sum(row[f"{name}_ns"] for name in told) <= row["total_ns"]


def test_what_is_hidden_has_its_reason(engine: str) -> None:
    able = engines.get(engine).capabilities
    assert able.phases is not bool(able.hidden_phases)
    assert set(able.hidden_phases) <= set(phases.ENGINE_PHASES)
    assert all(able.hidden_phases.values())
    assert able.hidden_phases.keys() <= {*phases.LOCAL["cold"], *phases.WORKER["cold"]}


def test_the_import_is_in_its_own_phase(engine: str, tmp_path) -> None:
    """A fresh interpreter, and a watcher of imports: the binding arrives within the phase ``import``."""
    code = """
import sys, time
from pathlib import Path
from wasmlab import engines

names = {"wasmtime", "wasmer_sdk", "wasmer_native"}
came = []

def watch(event, args):  # of imports only: to look where a module would come from costs next to nothing
    if event == "import" and args[0] in names:
        came.append(time.monotonic_ns())

sys.addaudithook(watch)
engine = engines.get(sys.argv[1])
engine.prepare(Path(sys.argv[2]))
spans = {span.phase: span for span in engine.prepared}
if not came:  # the native binding is loaded from its file, past the import system
    assert "wasmer_native" in sys.modules
for at in came:
    assert spans["import"].start_ns <= at <= spans["import"].end_ns, (at, spans)
print(*spans)
"""
    argv = [sys.executable, "-c", code, engine, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    hidden = engines.get(engine).capabilities.hidden_phases
    assert done.stdout.split() == [name for name in ("import", "bind") if name not in hidden]
