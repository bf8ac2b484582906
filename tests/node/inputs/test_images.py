from __future__ import annotations

from wasmlab.node.inputs.images import Progress


def test_a_long_pull_is_told_of_now_and_then() -> None:
    now, told = [0.0], []
    progress = Progress("r/x:1", told.append, 10.0, lambda: now[0])
    for second in range(35):
        now[0] = float(second)
        progress(second * 1_000_000, 40_000_000)
    assert told == [
        'Pulling image "r/x:1": 25% (10.0 of 40.0 MB, 1.0 MB/s)',
        'Pulling image "r/x:1": 50% (20.0 of 40.0 MB, 1.0 MB/s)',
        'Pulling image "r/x:1": 75% (30.0 of 40.0 MB, 1.0 MB/s)',
    ]


def test_a_short_one_is_not() -> None:
    told: list[str] = []
    progress = Progress("r/x:1", told.append, 10.0, iter(range(100)).__next__)
    for _ in range(5):
        progress(5, 10)
    progress(10, 10)
    assert told == []
