"""Which modules go when the disk fills, on a store of real files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.host.disk import Disk
from wasmlab.node.host.imagegc import ImageGc
from wasmlab.node.host.imagepolicy import GcPolicy, victims, wanted_bytes
from wasmlab.oci.store import Entry, ModuleStore

MI = 1 << 20


def entry(name: str, used: float, size: int = MI) -> Entry:
    return Entry(f"sha256:{name}", Path(f"/{name}"), size, used, (f"r/{name}:1",))


def test_how_much() -> None:
    policy = GcPolicy()
    assert wanted_bytes(Disk(1000, 160), policy) == 0
    assert wanted_bytes(Disk(1000, 150), policy) == 50
    assert wanted_bytes(Disk(1000, 0), policy) == 200
    assert wanted_bytes(Disk(0, 0), policy) == 0


def test_the_least_recently_used_go_first_and_none_in_use() -> None:
    entries = [entry("a", 0), entry("b", 10), entry("c", 20), entry("d", 990)]
    policy = GcPolicy(min_age_s=100)
    names = [e.digest[7:] for e in victims(entries, {"r/a:1", "sha256:none"}, 2 * MI, policy, 1000)]
    assert names == ["b", "c"]
    assert [e.digest[7:] for e in victims(entries, {"sha256:b"}, MI, policy, 1000)] == ["a"]
    assert len(victims(entries, set(), 100 * MI, policy, 1000)) == 3  # d was used just now


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def node(self, kind: str, reason: str, message: str) -> None:
        self.told.append((reason, message))


@pytest.fixture
def store(tmp_path: Path) -> ModuleStore:
    made = ModuleStore(tmp_path)
    for number in range(4):
        path = tmp_path / "blobs" / "sha256" / f"{number:064x}.wasm"
        path.write_bytes(b"\0" * MI)
        os.utime(path, (time.time() - 1000 + number,) * 2)
    return made


def left(store: ModuleStore) -> list[int]:
    return sorted(int(one.digest[7:], 16) for one in store.entries())


def collector(store: ModuleStore, free: int, in_use: set[str], events: Any) -> ImageGc:
    # A small disk of 10 MiB: the four modules and what else is on it.
    policy = GcPolicy(high_percent=80, low_percent=60)
    return ImageGc(store, lambda: in_use, lambda: Disk(10 * MI, free), events, policy, period_s=60)


def test_nothing_is_removed_from_a_roomy_disk(store: ModuleStore) -> None:
    assert collector(store, 3 * MI, set(), Events()).collect() == []
    assert left(store) == [0, 1, 2, 3]


def test_a_full_disk_is_freed_to_the_low_line(store: ModuleStore) -> None:
    events = Events()
    used = {f"sha256:{0:064x}"}
    assert len(collector(store, 2 * MI, used, events).collect()) == 2
    assert left(store) == [0, 3]
    assert events.told == []


def test_what_cannot_be_freed_is_said(store: ModuleStore) -> None:
    events = Events()
    used = {f"sha256:{number:064x}" for number in range(3)}
    collector(store, 1 * MI, used, events).collect()
    assert left(store) == [0, 1, 2]
    ((reason, message),) = events.told
    assert reason == "FreeDiskSpaceFailed"
    assert f"Attempted to free {3 * MI} bytes, but only found {MI} bytes" in message


def test_under_pressure_all_that_is_unused_goes(store: ModuleStore) -> None:
    collector(store, 9 * MI, {f"sha256:{1:064x}"}, Events()).collect(everything=True)
    assert left(store) == [1]
