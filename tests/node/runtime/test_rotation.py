from __future__ import annotations

from pathlib import Path

import pytest

from wasmlab.errors import SandboxError
from wasmlab.node.runtime import rotation
from wasmlab.node.runtime.rotation import rotate, rotated


async def test_the_oldest_go_and_the_writer_gets_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.0.log"
    for second in range(8):
        monkeypatch.setattr(rotation.time, "strftime", lambda *_, s=second: f"20261124-09000{s}")
        path.write_text(f"{second}")

        async def reopen() -> None:
            path.write_text("")

        await rotate(path, reopen)
    assert [p.read_text() for p in rotated(path)] == ["4", "5", "6", "7"]
    assert path.exists()


async def test_a_writer_that_cannot_reopen_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "c.0.log"
    path.write_text("kept")

    async def reopen() -> None:
        raise SandboxError("no")

    with pytest.raises(SandboxError):
        await rotate(path, reopen)
    assert path.read_text() == "kept"
    assert rotated(path) == []


async def test_twice_within_a_second_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.0.log"

    async def reopen() -> None:
        path.write_text("new")

    path.write_text("old")
    await rotate(path, reopen)
    await rotate(path, reopen)
    assert {p.read_text() for p in [path, *rotated(path)]} >= {"old", "new"}
