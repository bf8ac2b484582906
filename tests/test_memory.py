from __future__ import annotations

from pathlib import Path

import pytest

from wasmlab import memory
from wasmlab.cluster import controlplane

_MIB = 1024**2


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A machine of 8 GiB, as (proc, cgroups), without groups."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroups.mkdir()
    (proc / "meminfo").write_text(
        f"MemTotal: {8 * 1024**2} kB\nMemFree: 1 kB\nMemAvailable: {6 * 1024**2} kB\n"
    )
    return proc, cgroups


def group(cgroups: Path, path: str, file: str, content: str) -> None:
    (cgroups / path).mkdir(parents=True, exist_ok=True)
    (cgroups / path / file).write_text(content)


def test_of_this_machine_it_is_plausible() -> None:
    total, available = memory.usable_bytes()
    assert 0 < available <= total
    assert total <= memory.machine_bytes()[0]


def test_without_groups_there_is_no_limit(machine: tuple[Path, Path]) -> None:
    assert memory.limit_bytes(*machine) is None


@pytest.mark.parametrize(
    ("lines", "path", "file"),
    [
        ("0::/user/session\n", "user/session", "memory.max"),
        ("0::/user/session\n", "user", "memory.max"),  # an ancestor's limit holds as well
        ("0::/../../elsewhere\n", "", "memory.max"),  # a container that shows the host's path
        ("4:memory:/a/b\n3:cpu,cpuacct:/\n", "memory/a/b", "memory.limit_in_bytes"),
        ("4:cpu,memory:/a\n0::/\n", "memory", "memory.limit_in_bytes"),
    ],
)
def test_the_limit_is_found(machine: tuple[Path, Path], lines: str, path: str, file: str) -> None:
    proc, cgroups = machine
    (proc / "self" / "cgroup").write_text(lines)
    group(cgroups, path, file, f"{2048 * _MIB}\n")
    assert memory.limit_bytes(proc, cgroups) == 2048 * _MIB


def test_the_lowest_of_several_counts_and_none_is_none(machine: tuple[Path, Path]) -> None:
    proc, cgroups = machine
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    group(cgroups, "a", "memory.max", "max\n")
    assert memory.limit_bytes(proc, cgroups) is None
    group(cgroups, "a", "memory.max", f"{3 * _MIB}\n")
    group(cgroups, "a/b", "memory.max", f"{5 * _MIB}\n")
    assert memory.limit_bytes(proc, cgroups) == 3 * _MIB
    group(cgroups, "memory", "memory.limit_in_bytes", "9223372036854771712\n")
    assert memory.limit_bytes(proc, cgroups) == 3 * _MIB


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, {}), (8192 * _MIB, {}), (2048 * _MIB, {"GOMEMLIMIT": str(2048 * _MIB // 5)}),
     (512 * _MIB, {"GOMEMLIMIT": str(256 * _MIB)})],
)  # fmt: skip
def test_the_control_plane_is_thrifty_where_there_is_little(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(controlplane, "limit_bytes", lambda: limit)
    assert controlplane._thrift() == expected
