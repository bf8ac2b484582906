"""What is shown to Prometheus and metrics-server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from wasmlab.node import promtext
from wasmlab.node.endpoint.metrics import Requests
from wasmlab.node.endpoint.summary import (
    ContainerFigures,
    Figures,
    NodeFigures,
    PodFigures,
    resource_families,
    summary,
)
from wasmlab.node.host import usage
from wasmlab.node.host.disk import Disk, DiskUse
from wasmlab.node.promtext import Family, Sample
from wasmlab.node.runtime.crilog import StreamSplitter

NOW = 1_800_000_000.25
DISK = Disk(total_bytes=1000, free_bytes=400, total_inodes=10, free_inodes=4)


def figures(cpu_ns: int = 0, memory: int = 0, **more: int) -> Figures:
    return Figures(NOW, NOW - 10, cpu_ns, cpu_ns // 10, memory, memory, **more)


def test_the_text_format() -> None:
    families = [
        Family("a_total", "counter", 'says "a"\nand \\', [Sample(3, {"x": 'q"\n\\'}), Sample(0.5, time=NOW)]),
        Family("b", "gauge", "nothing", []),
        Family("c", "histogram", "c", [Sample(1, {"le": "+Inf"}, suffix="_bucket")]),
    ]
    assert promtext.text(families).splitlines() == [
        '# HELP a_total says "a"\\nand \\\\',
        "# TYPE a_total counter",
        'a_total{x="q\\"\\n\\\\"} 3',
        "a_total 0.5 1800000000250",
        "# HELP c c",
        "# TYPE c histogram",
        'c_bucket{le="+Inf"} 1',
    ]
    assert promtext.text([]) == ""


def test_a_pod_is_the_sum_of_its_containers() -> None:
    one, two = figures(3_000_000_000, 100, limit_bytes=150), figures(1_000_000_000, 50)
    pod = PodFigures(
        "p",
        "ns",
        "u",
        NOW - 20,
        [ContainerFigures("a", one, 7), ContainerFigures("b", two, 0)],
        DiskUse(99, 3),
    )
    node = NodeFigures("n", figures(9_000_000_000, 500, limit_bytes=1000), figures(), figures(), DISK)
    shown = summary(node, [pod])["pods"][0]
    assert shown["podRef"] == {"name": "p", "namespace": "ns", "uid": "u"}
    assert shown["cpu"]["usageCoreNanoSeconds"] == 4_000_000_000
    assert shown["cpu"]["usageNanoCores"] == 400_000_000
    assert shown["memory"]["workingSetBytes"] == 150
    assert "availableBytes" not in shown["memory"]  # b has no limit, so the pod has none
    assert shown["containers"][0]["memory"]["availableBytes"] == 50
    assert shown["containers"][0]["logs"]["usedBytes"] == 7
    assert (shown["ephemeral-storage"]["usedBytes"], shown["ephemeral-storage"]["inodesUsed"]) == (99, 3)
    assert summary(node, [])["node"]["fs"]["usedBytes"] == 600

    text = promtext.text(resource_families(node, [pod]))
    assert 'container_cpu_usage_seconds_total{container="a",pod="p",namespace="ns"} 3 1800000000250' in text
    assert 'pod_memory_working_set_bytes{pod="p",namespace="ns"} 150 1800000000250' in text
    assert "node_cpu_usage_seconds_total 9 1800000000250" in text
    assert "resource_scrape_error 0" in text


def test_a_histogram_counts_what_is_at_most_as_large() -> None:
    histogram = promtext.Histogram("h", "help", (1, 2.5))
    for value in (0.5, 1, 2, 7):
        histogram.add(value, kind="a")
    histogram.add(3, kind="b")
    lines = promtext.text([histogram.family()]).splitlines()[2:]
    assert lines[:5] == [
        'h_bucket{kind="a",le="1"} 2',
        'h_bucket{kind="a",le="2.5"} 3',
        'h_bucket{kind="a",le="+Inf"} 4',
        'h_sum{kind="a"} 10.5',
        'h_count{kind="a"} 4',
    ]
    assert lines[5:] == [
        'h_bucket{kind="b",le="1"} 0',
        'h_bucket{kind="b",le="2.5"} 0',
        'h_bucket{kind="b",le="+Inf"} 1',
        'h_sum{kind="b"} 3',
        'h_count{kind="b"} 1',
    ]


def test_requests_are_counted_by_what_is_known() -> None:
    requests = Requests()
    requests.count("pods", "GET", 200, 0.01)
    requests.count("pods", "GET", 200, 3.0)
    requests.count("exec", "GET", 101, 600.0)
    requests.count("made-up", "BREW", 404, 0.0)
    text = promtext.text(requests.families())
    labels = 'code="200",long_running="false",method="GET",path="pods",server_type="readwrite"'
    assert f"kubelet_http_requests_total{{{labels}}} 2" in text
    assert 'path="other"' in text
    assert "made-up" not in text
    assert "BREW" not in text
    assert 'duration_seconds_bucket{path="pods",server_type="readwrite",le="0.025"} 1' in text
    assert 'duration_seconds_bucket{path="pods",server_type="readwrite",le="+Inf"} 2' in text
    assert 'duration_seconds_sum{path="pods",server_type="readwrite"} 3.01' in text
    assert 'path="exec",server_type="readwrite",le' not in text  # a session's length is no duration


def test_a_process_is_measured_and_a_stranger_is_not() -> None:
    own = usage.of_process(os.getpid())
    assert own is not None
    assert own.cpu_ns > 0
    assert 1 << 20 < own.working_set_bytes <= own.rss_bytes * 1.1
    assert usage.of_process(os.getpid(), "no-such-name") is None
    # A worker is known by its name: this process is none, whatever number somebody remembers.
    assert usage.of_workers([os.getpid(), 0, 1 << 22]) == usage.Usage()


def test_a_process_with_a_name_that_looks_like_its_fields() -> None:
    code = "import ctypes,sys;ctypes.CDLL(None).prctl(15,b'wasm-) R 1 (');print(flush=True);sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        found = usage.of_workers([child.pid])
        child.stdin.close()
    assert found.processes == 1
    assert found.rss_bytes > 1 << 20
    assert found.cpu_ns % 10_000_000  # exact, not in ticks: a short module has not used one of those


def test_the_machine_is_measured() -> None:
    machine = usage.machine()
    assert 0 < machine.memory_working_set_bytes <= machine.memory_usage_bytes < machine.memory_total_bytes
    assert machine.cpu_ns > 0


def test_a_control_group_knows_better_what_it_counts(tmp_path: Path) -> None:
    used = usage.Usage(cpu_ns=7, working_set_bytes=8, rss_bytes=9, processes=2)
    assert usage.in_groups(used, [str(tmp_path / "absent")]) == used
    one, two = tmp_path / "memory", tmp_path / "v2"
    one.mkdir()
    (one / "memory.usage_in_bytes").write_text("1000\n")
    (one / "memory.stat").write_text("cache 1\ninactive_file 1\ntotal_inactive_file 300\ntotal_rss 600\n")
    # Version 1 without its accounting: the processes' CPU time stays.
    assert usage.in_groups(used, [str(one)]) == usage.Usage(7, 700, 600, processes=2)
    two.mkdir()
    (two / "memory.current").write_text("1000\n")
    (two / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    (two / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\n")
    assert usage.in_groups(used, [str(two)]) == usage.Usage(5000, 900, 500, processes=2)


def test_links_are_not_followed_when_a_directory_is_measured(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    (tmp_path / "d" / "e" / "small").write_bytes(b"x" * 10_000)
    (tmp_path / "d" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    used = usage.of_directory(tmp_path / "d")
    assert 10_000 <= used.bytes < 100_000
    assert used.inodes == 5


def test_a_log_is_split_into_its_streams() -> None:
    splitter = StreamSplitter()
    t = b"2026-11-24T09:00:00.000000001Z"
    pieces = (b"stdout P ab\n", b"stdout F c\n", b"stdout F d\n", b"stderr F e\n", b"stdout P f\n")
    lines = b"".join(t + b" " + piece for piece in pieces)
    assert splitter.feed(lines[:70]) == [("stdout", b"ab")]
    assert splitter.feed(lines[70:]) == [("stdout", b"c\nd\n"), ("stderr", b"e\n"), ("stdout", b"f")]
    assert splitter.feed(b"nonsense\n") == []
