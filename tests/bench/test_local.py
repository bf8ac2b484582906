"""Small real measurements in the sandbox: every mode, both engines, nothing left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import struct
import time
import types
from pathlib import Path

import pytest

from wasmlab import engines
from wasmlab.bench.environment import fingerprint
from wasmlab.bench.local import LocalExecutor, feasible
from wasmlab.bench.phases import ENGINE_PHASES
from wasmlab.bench.plan import CONTROLS, Arm, Plan, cross
from wasmlab.bench.runner import carry_out, stack_of
from wasmlab.cluster.processes import sandboxes_under
from wasmlab.engines import Capabilities, CompileCache
from wasmlab.errors import Unsupported
from wasmlab.modules import workloads
from wasmlab.modules.files import data_dir


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> CompileCache:
    return CompileCache(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def results(cache):
    from wasmlab.bench.control import ControlExecutor

    arms = cross(("local",), ("wasmtime", "wasmer"), ("cold", "cached", "warm"), [workloads.get("hello")])
    with stack_of({"local": LocalExecutor(cache), "control": ControlExecutor()}) as executors:
        return carry_out(Plan(arms, 3, seed=2), executors, fingerprint(), quiet=True)


def test_every_arm_ran_and_gave_the_right_answer(results) -> None:
    assert [row["error"] for row in results.failures] == []
    assert len(results.rows) == 3 * (6 + len(CONTROLS))
    frame = results.frame
    assert frame.loc[frame["path"] == "local", "first_byte_ns"].notna().all()
    assert (frame["first_byte_ns"].dropna() <= frame.loc[frame["first_byte_ns"].notna(), "total_ns"]).all()
    assert set(frame.loc[frame["engine"] == "wasmtime", "engine_version"]) == {
        fingerprint()["engines"]["wasmtime"]
    }


def test_modes_differ_as_they_are_defined_to(results) -> None:
    frame = results.frame
    frame = frame[frame["path"] == "local"]
    assert frame.loc[frame["mode"] == "cold", "compile_ns"].notna().all()
    assert frame.loc[frame["mode"] != "cold", "compile_ns"].isna().all()
    assert frame.loc[frame["mode"] != "warm", "import_ns"].notna().all()
    assert frame.loc[frame["mode"] == "warm", "import_ns"].isna().all()
    for engine in ("wasmtime", "wasmer"):
        own = (
            frame[frame["engine"] == engine].groupby("mode")["total_ns"].min()
        )  # the least disturbed of three
        # A new interpreter and an import take tens of milliseconds; an idle worker has both behind it.
        assert own["warm"] < own["cached"] and own["warm"] < own["cold"]


def test_phases_lie_within_the_total(results) -> None:
    frame = results.frame
    frame = frame[(frame["path"] == "local") & (frame["engine"] == "wasmtime")]
    assert frame["run_ns"].notna().all()
    columns = [f"{name}_ns" for name in ENGINE_PHASES]
    assert (frame[columns].fillna(0).sum(axis=1) <= frame["total_ns"]).all()


def test_a_cold_run_leaves_the_cache_alone(tmp_path: Path) -> None:
    with LocalExecutor(CompileCache(tmp_path)) as executor:
        row = executor.run(Arm("local", "wasmtime", "cold", "hello"))
    assert row["ok"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_left_running(cache) -> None:
    with LocalExecutor(cache) as executor:
        executor.run(Arm("local", "wasmtime", "warm", "hello"))
        executor.run(Arm("local", "wasmtime", "cached", "hello"))
        scratch = executor._scratch
        assert sandboxes_under(scratch)  # the warm one is still there
    deadline = time.monotonic() + 30  # workers die with their zygote, a moment later
    while sandboxes_under(scratch) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sandboxes_under(scratch) == []
    assert not scratch.exists()


# One of every class, in the size that takes least; CPython (26 MB) is the bench's own.
WORKLOADS = tuple(
    name
    for name, work in workloads.catalogue().items()
    if name.endswith(("/small", "/component", "/factor")) or name == "hello"
)


@pytest.mark.parametrize("engine", ["wasmtime", "wasmer"])
def test_every_class_of_workload_gives_its_answer(engine: str, cache) -> None:
    assert {workloads.get(name).kind for name in WORKLOADS} == set(workloads.KINDS)
    with LocalExecutor(cache) as executor:
        for name in WORKLOADS:
            work = workloads.get(name)
            if engine not in work.engines or not can_run(engine, work):
                with pytest.raises(Unsupported, match=f"{engine} .* cannot run {name}"):
                    executor.run(Arm("local", engine, "warm", name))
                continue
            row = executor.run(Arm("local", engine, "warm", name))
            assert row["error"] is None, f"{name} on {engine}: {row['error']}"
            assert row["exit_code"] == work.expected_exit
        left = [path for path in executor._scratch.iterdir() if path.name.startswith("data-")]
        assert left == [], "a directory that a guest wrote to was left behind"


def can_run(engine: str, work: workloads.Workload) -> bool:
    able = engines.get(engine).capabilities
    return all(getattr(able, need) for need in work.needs)


def test_what_cannot_run_is_left_out_with_its_reason(monkeypatch) -> None:
    able = {
        "wasmtime": Capabilities(),
        "wasmer": Capabilities(directories=False, notes={"directories": "it has none"}),
    }
    known = {name: types.SimpleNamespace(version="1", capabilities=has) for name, has in able.items()}
    monkeypatch.setattr(engines, "get", known.__getitem__)
    arms = [Arm("local", engine, "warm", name) for engine in able for name in ("hello", "files")]
    kept, why = feasible([*arms, *CONTROLS])
    assert kept == (*arms[:3], *CONTROLS)
    assert why == ["wasmer 1 cannot run files: it has none"]


def test_the_catalogue_knows_which_engines_run_components() -> None:
    for name in engines.names():
        able = name in workloads.get("hello/component").engines
        assert engines.get(name).capabilities.components is able, name


def test_a_wrong_answer_is_a_failed_run(cache, monkeypatch) -> None:
    wrong = dataclasses.replace(workloads.get("hello"), expected_stdout="something else\n")
    monkeypatch.setattr(workloads, "get", lambda name: wrong)
    with LocalExecutor(cache) as executor:
        row = executor.run(Arm("local", "wasmtime", "warm", "hello"))
    assert row["ok"] is False
    assert "wrong output: b'hello from stdout!" in row["error"]
    assert "expected b'something else" in row["error"]
    assert row["total_ns"] > 0


def test_a_tampered_module_is_a_failed_run(cache, monkeypatch, tmp_path) -> None:
    """A module that answers wrongly, under the name and digest of one that is right: on disk it is noticed before it
    runs; with a digest of its own it runs, and its answer is what gives it away."""
    root = tmp_path / "data"
    shutil.copytree(data_dir("wasm"), root / "wasm")
    monkeypatch.setenv("WASMLAB_DATA", str(root))
    data = bytearray((root / "wasm" / "nbody.wasm").read_bytes())
    at = data.index(struct.pack("<d", 4.84143144246472090e00))  # where Jupiter is
    data[at] ^= 1
    (root / "wasm" / "nbody.wasm").write_bytes(data)
    arms = (Arm("local", "wasmtime", "warm", "nbody/small"),)
    with stack_of({"local": LocalExecutor(cache)}) as executors:
        (row,) = carry_out(Plan(arms, 1), executors, {"id": "x"}, quiet=True).rows
        assert not row["ok"]
        assert row["error"].startswith("DigestMismatch: nbody.wasm is not the module")
        assert row.get("run_ns") is None
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        changed = dataclasses.replace(workloads.get("nbody/small"), digest=digest)
        monkeypatch.setattr(workloads, "get", lambda name: changed)
        (row,) = carry_out(Plan(arms, 1), executors, {"id": "x"}, quiet=True).rows
    assert not row["ok"] and row["exit_code"] == 0
    assert (
        row["error"].startswith("wrong output: b'-0.1690") and "expected b'-0.169020000 bfc5" in row["error"]
    )


def test_a_trap_is_a_row_with_its_reason(cache, monkeypatch) -> None:
    from wasmlab.modules import Module
    from wasmlab.modules.files import fixture

    trap = dataclasses.replace(
        workloads.get("hello"), file="fixtures/trap.wasm", digest=Module.from_file(fixture("trap")).digest
    )
    monkeypatch.setattr(workloads, "get", lambda name: trap)
    arms = (Arm("local", "wasmtime", "warm", "hello"),)
    with stack_of({"local": LocalExecutor(cache)}) as executors:
        results = carry_out(Plan(arms, 2), executors, {"id": "x"}, quiet=True)
    assert len(results.rows) == len(results.failures) == 2
    assert all("unreachable" in row["error"] for row in results.rows)
