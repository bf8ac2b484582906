"""What a run asks of its worker: control groups, a data limit, and directories that nobody leads astray."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlab.sandbox import Preopen, RunSpec, Sandbox, cgroups


@pytest.fixture(scope="module")
def sandbox(cache) -> Iterator[Sandbox]:
    with Sandbox("wasmtime", cache=cache) as one:
        yield one


def test_a_directory_below_a_root_is_opened_without_following_links(sandbox, spec, tmp_path):
    (tmp_path / "volume" / "in").mkdir(parents=True)
    (tmp_path / "volume" / "in" / "note").write_text("mine")
    (tmp_path / "other").mkdir()
    root = str(tmp_path / "volume")
    run = spec("probe", "ls:/v")
    good = Preopen(f"{root}/in", "/v", root=root)
    assert b"ls:/v > note" in sandbox.run(dataclasses.replace(run, preopens=(good,))).stdout
    (tmp_path / "volume" / "in").rename(tmp_path / "volume" / "was")
    (tmp_path / "volume" / "in").symlink_to(tmp_path / "other")
    refused = sandbox.run(dataclasses.replace(run, preopens=(good,)))
    assert (refused.exit_code, refused.trap) == (None, "failed")
    assert refused.stdout == b""
    outside = Preopen(str(tmp_path / "other"), "/v", root=root)
    assert sandbox.run(dataclasses.replace(run, preopens=(outside,))).trap == "failed"


def test_a_data_limit_stops_a_guest_that_has_no_other(sandbox, spec):
    free = sandbox.run(spec("probe", "eat:200"))
    assert b"200 MiB" in free.stdout
    # It holds the host's side too: whether the guest's growth fails, or the engine's next allocation and with it the
    # worker (SIGABRT), is a matter of bytes.
    held = sandbox.run(spec("probe", "eat:200", data_bytes=64 << 20))
    assert (held.exit_code, held.trap) in ((0, None), (None, "crash"))
    assert held.max_rss_bytes < free.max_rss_bytes - (100 << 20)


def _group() -> cgroups.V1 | cgroups.V2:
    name = f"/wasmlab-test-{uuid.uuid4().hex[:12]}"
    return cgroups.V2(cgroups.ROOT + name) if cgroups.is_v2() else cgroups.V1(cgroups.ROOT, name, ("memory",))


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not make control groups")
@pytest.mark.parametrize("engine_name", ["wasmtime", "wasmer-sdk"])
def test_a_worker_joins_a_control_group_and_is_held_by_it(sandbox, spec, cache, engine_name):
    """The SDK runs the guest in a thread of its own, which has to come along."""
    if engine_name != "wasmtime":
        with Sandbox(engine_name, cache=cache) as other:
            _is_held(other, spec)
    else:
        _is_held(sandbox, spec)


def _is_held(sandbox, spec):
    group = _group()
    try:
        group.create({"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    except OSError as error:
        pytest.skip(f"no control groups here: {error}")
    try:
        held = sandbox.run(spec("probe", "eat:100", cgroups=tuple(group.directories)))
        assert (held.exit_code, held.trap) == (None, "killed")
        assert group.oom_kills() == 1
    finally:
        group.remove()


def test_a_group_that_is_gone_is_a_failure_and_no_run(sandbox, spec):
    outcome = sandbox.run(spec("hello", cgroups=("/sys/fs/cgroup/none/such",)))
    assert (outcome.exit_code, outcome.trap) == (None, "failed")
    assert "/sys/fs/cgroup/none/such" in outcome.message


def test_what_an_earlier_version_recorded_can_be_read():
    old = RunSpec("m", "sha256:1", ("m",)).to_json()
    for name in ("cgroups", "data_bytes", "oom_score_adj"):
        del old[name]
    old["preopens"] = [["/h", "/g", True]]
    read = RunSpec.from_json(old)
    assert read.preopens == (Preopen("/h", "/g", True),)
    assert (read.cgroups, read.data_bytes) == ((), None)


def test_a_spec_crosses_whole():
    spec = RunSpec("m", "sha256:1", ("m",), preopens=(Preopen("/a/b", "/g", False, "/a"),), cgroups=("/c",))
    assert RunSpec.from_json(spec.to_json()) == spec
    assert Path(spec.preopens[0].root) == Path("/a")
