"""The parts of the scale experiments without a cluster: how Pods are written, loops closed, budgets kept."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from wasmlab.bench import scale_burst, scale_command, scale_density
from wasmlab.bench.flood import Flood, Written, flood, remove
from wasmlab.bench.scale import Sizes
from wasmlab.bench.scale_concurrency import closed_loop
from wasmlab.bench.scale_rows import Budget, Lab, Rows
from wasmlab.errors import BenchmarkError, ClusterError


class Server:
    """An API server and a watch in one: a Pod ends when the test says so, or `after_s` after it was written."""

    def __init__(self, *, refuse: frozenset[str] = frozenset(), after_s: float | None = 0.0) -> None:
        self._changed = threading.Condition()
        self._refuse, self._after_s = refuse, after_s
        self.seen: dict[str, dict[str, int]] = {}
        self.last: dict[str, dict] = {}
        self.ended = self.live = self.most = self.lists = 0
        self.stored: set[str] = set()

    def must(self, method: str, path: str, headers: dict[str, str]) -> dict:
        assert (method, path) == ("GET", "/api/v1/namespaces/ns/pods") and "Metadata" in headers["Accept"]
        self.lists += 1
        if self.lists == 2:
            raise ClusterError("GET failed: too busy")
        return {"items": [{"metadata": {"name": name}} for name in sorted(self.stored)]}

    def _delete(self, name: str) -> tuple[int, bytes]:
        if name in self._refuse and self.lists < 3:
            raise ClusterError("DELETE failed: too busy")
        if name != "stuck":
            self.stored.discard(name)
        return 200, b"{}"

    def request(self, method: str, path: str, body: bytes | dict) -> tuple[int, bytes]:
        if method == "DELETE":
            assert isinstance(body, dict) and body["gracePeriodSeconds"] == 1
            return self._delete(path.removeprefix("/api/v1/namespaces/ns/pods/"))
        assert (method, path) == ("POST", "/api/v1/namespaces/ns/pods")
        assert isinstance(body, bytes)
        name = json.loads(body)["name"]
        if name in self._refuse:
            return 403, b"quota exceeded"
        if name == "broken":
            raise ClusterError("POST failed: connection reset")
        with self._changed:
            self.live += 1
            self.most = max(self.most, self.live)
        if self._after_s is not None:
            threading.Timer(self._after_s, self.end, [name]).start()
        return 201, json.dumps({"metadata": {"uid": f"uid-{name}"}}).encode()

    def end(self, name: str) -> None:
        with self._changed:
            self.live -= 1
            self.ended += 1
            self.seen[name] = {"scheduled": time.monotonic_ns(), "done": time.monotonic_ns()}
            self.last[name] = {"status": {"phase": "Succeeded"}}
            self._changed.notify_all()

    def wait(self, condition, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def close(self) -> None:
        pass


def bodies(*names: str) -> list[tuple[str, bytes]]:
    return [(name, json.dumps({"name": name}).encode()) for name in names]


NAMES = [f"p{n}" for n in range(30)]


def test_a_burst_is_written_although_nothing_ends() -> None:
    server = Server(after_s=None)
    done = flood(server, server, "ns", bodies(*NAMES), timeout_s=30)
    assert set(done.written) == set(NAMES) and done.errors == []
    assert server.live == 30
    one = done.written["p3"]
    assert one.uid == "uid-p3" and one.began_ns <= one.answered_ns


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_than_so_many_are_in_flight(limit: int) -> None:
    server = Server(after_s=0.002)
    server.ended = 7  # of an earlier measurement
    done = flood(server, server, "ns", bodies(*NAMES), in_flight=limit, timeout_s=60)
    assert set(done.written) == set(NAMES)
    assert server.most <= limit


def test_a_refusal_does_not_take_a_place_in_flight() -> None:
    server = Server(refuse=frozenset(NAMES[:10]), after_s=0.001)
    done = flood(server, server, "ns", bodies("broken", *NAMES), in_flight=2, timeout_s=60)
    assert set(done.written) == set(NAMES[10:])
    assert sorted(done.errors)[0] == "403 quota exceeded" and "POST failed: connection reset" in done.errors


def test_a_flood_ends_at_its_deadline() -> None:
    server = Server(after_s=None)
    done = flood(server, server, "ns", bodies(*NAMES), in_flight=5, timeout_s=2.0)
    assert len(done.written) == 5


def test_all_pods_are_removed_also_by_a_server_that_is_too_busy_at_times() -> None:
    server = Server(refuse=frozenset(NAMES[:5]))
    server.stored = set(NAMES)
    assert remove(server, "ns", timeout_s=60) and server.stored == set()
    assert server.lists >= 4  # one saw all, one failed, one saw the rest, one saw nothing


def test_what_does_not_go_is_told_at_the_deadline() -> None:
    server = Server()
    server.stored = {"stuck", "a"}
    assert not remove(server, "ns", timeout_s=3.0) and server.stored == {"stuck"}


def test_every_pod_that_was_to_be_is_a_row() -> None:
    server = Server(after_s=None)
    server.end("good")
    server.seen["bad"] = {"scheduled": 2, "done": 9}
    failed = {"reason": "Error", "message": "a trap", "exitCode": 134}
    server.last["bad"] = {
        "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": failed}}]}
    }
    rows = Rows("abc")
    lab = SimpleNamespace(pods=SimpleNamespace(watch=server), rows=rows)
    flooded = Flood(
        {"good": Written("1", 100, 150), "bad": Written("2", 90, 95), "late": Written("3", 120, 130)}
    )
    flooded.errors.append("403 quota exceeded")
    work = SimpleNamespace(name="hello", digest="sha256:x")
    pods = bodies("good", "bad", "late", "refused")
    scale_burst.keep(lab, "burst", 4, 0, "wasmtime", work, pods, flooded, 0.05)
    good, bad, late, refused = rows.rows
    assert good["ok"] and good["begun_ns"] == 10 and good["api_write_ns"] == 50 and good["mode"] == "burst-4"
    assert not bad["ok"] and "a trap" in bad["error"] and bad["exit_code"] == 134 and bad["begun_ns"] == 0
    assert not late["ok"] and "not ended within" in late["error"]
    assert refused["error"] == "403 quota exceeded" and refused.get("begun_ns") is None


def test_a_closed_loop_keeps_so_many_going() -> None:
    lock = threading.Lock()
    now = most = 0

    def run() -> dict:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return {"error": None, "total_ns": 1}

    rows = closed_loop(run, 3, 20)
    assert len(rows) == 20 and most <= 3
    assert all(row["begun_ns"] >= 0 for row in rows)


def test_a_run_that_raises_is_a_failed_row() -> None:
    answers = iter([{"error": None}, ValueError("odd"), {"error": None}])

    def run() -> dict:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert [row["error"] for row in closed_loop(run, 1, 3)] == [None, "ValueError: odd", None]


def test_a_budget_remembers_what_it_did_not_allow() -> None:
    now = [0.0]
    budget = Budget(10, clock=lambda: now[0])
    assert budget.allows("a", 9) and not budget.allows("b", 11)
    now[0] = 9.5
    assert budget.allows("c") and not budget.allows("d", 1)
    assert budget.left_out == ["b", "d"]
    assert Budget(None).allows("anything", 1e9)


def test_a_spent_budget_leaves_out_instead_of_measuring(tmp_path: Path) -> None:
    prepared = SimpleNamespace(prepare=lambda engine, work: "image")
    node = SimpleNamespace(dir=tmp_path)
    lab = Lab(None, node, prepared, Rows("x"), Budget(0.001))  # type: ignore[arg-type]
    scale_burst.burst(lab, "wasmtime", (10, 30), 1, random.Random(1))
    assert sorted(lab.budget.left_out) == [
        "burst of 10 on wasmtime, block 1", "burst of 30 on wasmtime, block 1"
    ]  # fmt: skip
    assert lab.rows.rows == []


def test_available_memory_is_read() -> None:
    free = scale_density.available_bytes()
    assert free is None or free > 1 << 20


@pytest.mark.parametrize(
    "wrong", [{"engines": ()}, {"engines": ("wasmtime-winch",)}, {"blocks": 0}, {"burst": (0,)}, {"density": (-1,)},
              {"probes": 0}, {"burst": (), "density": (), "concurrency": ()}],
)  # fmt: skip
def test_sizes_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(BenchmarkError):
        Sizes(**wrong)


def test_the_node_takes_what_is_asked() -> None:
    assert Sizes().most_pods > 1000 and Sizes.quick().most_pods >= 110
    assert Sizes(burst=(1,), density=(400,), probes=20).most_pods > 420


def test_options_become_sizes() -> None:
    sizes = scale_command._sizes(["burst"], ["wasmer", "wasmer"], "30,10,10", "", "", 2, 7, quick=True)
    assert sizes.burst == (10, 30) and sizes.density == () == sizes.concurrency
    assert sizes.engines == ("wasmer",) and (sizes.blocks, sizes.seed) == (2, 7)
    assert (
        scale_command._sizes(["burst", "density"], [], "", "", "", None, 1, quick=False).density
        == Sizes().density
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [(["-x", "bursts"], "choose from burst"), (["--burst", "10;20"], "10,30,100"), (["-e", "wasmedge"], "wasmedge"),
     (["--burst", "0"], "count from 1")],
)  # fmt: skip
def test_wrong_options_are_refused_before_anything_starts(words, said, monkeypatch) -> None:
    from wasmlab.bench import scale
    from wasmlab.cli import build_app

    monkeypatch.setattr(scale, "measure", lambda *_, **__: pytest.fail("something was started"))
    done = CliRunner().invoke(build_app("bench"), ["bench", "scale", *words])
    assert done.exit_code != 0
    assert said in str(done.exception)
