"""What path 2 of the bench reads: containerd's events, the kubelet's log, files that grow."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest

from wasmlab.bench.containerd_pods import (
    Lines,
    container_moments,
    kubelet_moments,
    monotonic_ns,
    parse_event,
    parse_rfc3339,
)

SANDBOX, CONTAINER = "5a" * 32, "c0" * 32


def event(second: float, topic: str, content: str) -> str:
    at = datetime.datetime(2026, 11, 24, 9, 17, tzinfo=datetime.UTC) + datetime.timedelta(seconds=second)
    return f"{at:%Y-%m-%d %H:%M:%S.%f}123 +0000 UTC k8s.io {topic} {content}"


def a_pod() -> list[str]:
    def about(id: str) -> str:
        return f'{{"container_id":"{id}","pid":7}}'

    def ended(container: str, id: str, second: float) -> str:
        return f'{{"container_id":"{container}","id":"{id}","exited_at":"2026-11-24T09:17:{second:04.1f}Z"}}'

    return [
        event(1, "/containers/create", f'{{"id":"{SANDBOX}","image":"pause"}}'),
        event(2, "/tasks/create", about(SANDBOX)),
        event(3, "/tasks/start", about(SANDBOX)),
        event(4, "/images/create", '{"name":"127.0.0.1:5000/hello:v1"}'),
        event(5, "/images/create", '{"name":"sha256:ab"}'),
        event(6, "/containers/create", f'{{"id":"{CONTAINER}","image":"hello"}}'),
        event(7, "/tasks/create", about(CONTAINER)),
        event(8, "/tasks/start", about(CONTAINER)),
        event(9, "/tasks/exit", ended(CONTAINER, "probe", 8.5)),
        event(11, "/tasks/exit", ended(CONTAINER, CONTAINER, 10)),
        event(12, "/images/create", '{"name":"of another pod"}'),
        event(13, "/tasks/exit", ended(SANDBOX, SANDBOX, 13)),
    ]  # fmt: skip


def test_events_become_moments() -> None:
    events = [found for line in a_pod() if (found := parse_event(line))]
    assert len(events) == len(a_pod())
    at = container_moments(events, CONTAINER)
    zero = events[0].at_ns
    seconds = {moment: round((when - zero) / 1e9 + 1) for moment, when in at.items()}
    # The end is that of the program: not that of an exec, not of the sandbox, and when it was, not when it was told.
    assert seconds == {
        "sandboxed": 3, "pulled": 5, "contained": 6, "created": 7, "started": 8, "exited": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["", "no event", "2026-11-24 09:17:39.1 +0000 UTC k8s.io /tasks/start {", "x y z u k8s.io /a {}"],
)
def test_lines_that_are_no_events_are_passed_over(line: str) -> None:
    assert parse_event(line) is None


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T01:00:01.5+01:00", 1_500_000_000),
        ("1970-01-01 00:00:01.07866013 +0000 UTC", 1_078_660_130),
    ],
)
def test_dates_keep_their_nanoseconds(text: str, nanoseconds: int) -> None:
    assert parse_rfc3339(text) == nanoseconds


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(ValueError, match="no date"):
        parse_rfc3339("yesterday")


def test_the_wall_clock_becomes_the_monotonic_one() -> None:
    assert abs(monotonic_ns(time.time_ns()) - time.monotonic_ns()) < 50_000_000


def test_the_kubelets_log_tells_when_it_saw_and_noticed() -> None:
    now = datetime.datetime.now().replace(microsecond=250_000)
    head = f"I{now:%m%d %H:%M:%S.%f}   15976 kubelet.go:2760] "
    later = now + datetime.timedelta(seconds=2)
    died = (
        f'I{later:%m%d %H:%M:%S.%f}   15976 kubelet.go:2788] "SyncLoop (PLEG): event for pod" pod="ns/run-1" '
    )
    lines = [
        head + '"SyncLoop ADD" source="api" pods=["ns/run-10"]',
        head + '"SyncLoop ADD" source="api" pods=["ns/run-1"]',
        died + f'event={{"Type":"ContainerStarted","Data":"{CONTAINER}"}}',
        died + f'event={{"Type":"ContainerDied","Data":"{SANDBOX}"}}',
        died + f'event={{"Type":"ContainerDied","Data":"{CONTAINER}"}}',
        "E1124 something else",
    ]
    at = kubelet_moments(lines, "ns/run-1", CONTAINER)
    assert set(at) == {"seen", "noticed"}
    assert at["noticed"] - at["seen"] == pytest.approx(2e9, abs=5e6)
    assert at["seen"] == pytest.approx(monotonic_ns(int(now.timestamp() * 1e9)), abs=5e6)
    assert kubelet_moments(lines[:1], "ns/run-1", CONTAINER) == {}


def test_only_whole_new_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = Lines(path)
    assert lines.new() == []
    path.write_text("one\ntw")
    assert lines.new() == ["one"]
    with path.open("a") as stream:
        stream.write("o\n")
    assert lines.new() == ["two"]
    path.write_text("x\n")  # rotated
    assert lines.new() == ["x"]
    assert Lines(path).new() == []
