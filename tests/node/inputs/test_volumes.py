"""A pod's volumes against an API that a test plays: renewal, updates, what is missing, what is left."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.fakeapi import eventually
from wasmlab.node.inputs import filesystems
from wasmlab.node.inputs.apiobjects import Token
from wasmlab.node.inputs.notmounted import NotMounted
from wasmlab.node.inputs.volumes import VolumeManager
from wasmlab.node.spec.downward import NodeSide

SIDE = NodeSide("n", "192.0.2.1", "192.0.2.1")


class FakeObjects:
    def __init__(self) -> None:
        self.data: dict[Any, Any] = {}
        self.issued = 0
        self.life_s = 1000.0

    async def get(self, namespace: str, reference: Any) -> Any:
        return self.data.get(reference)

    async def token(self, pod: Any, request: Any) -> Token:
        self.issued += 1
        return Token(f"token-{self.issued}", asyncio.get_running_loop().time() + self.life_s)


class Setting:
    def __init__(self, path: Path) -> None:
        self.objects = FakeObjects()
        self.told: list[str] = []
        self.evicted: list[tuple[str, str]] = []
        self.pods = path / "pods"
        self.pods.mkdir()
        self.manager = VolumeManager(
            self.objects,  # type: ignore[arg-type]
            SIDE,
            self.pods,
            lambda pod, kind, reason, message: self.told.append(f"{reason}: {message}"),
            sync_s=0.02,
            watch_s=0.02,
        )
        self.manager.evict = lambda uid, message: self.evicted.append((uid, message))

    def root(self, name: str = "v") -> Path:
        return self.pods / "u" / "volumes" / name


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    await made.manager.aclose()


def pod(volume: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", **meta},
        "spec": {
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", **volume}, {"name": "unused", "nfs": {}}],
        },
    }


def config_map(**data: str) -> dict[str, Any]:
    return {"metadata": {"name": "c"}, "data": data}


TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


async def test_a_token_is_renewed_when_it_is_time_and_not_before(setting: Setting) -> None:
    await setting.manager.set_up(pod(TOKEN))
    running = asyncio.create_task(setting.manager.run())
    assert (setting.root() / "token").read_text() == "token-1"
    await asyncio.sleep(0.1)
    assert setting.objects.issued == 1
    running.cancel()
    later = Setting(setting.pods)
    later.objects.life_s = 0.0
    one = await later.manager.set_up(pod(TOKEN))
    running = asyncio.create_task(later.manager.run())
    await eventually(lambda: (one.roots["v"] / "token").read_text() != "token-1")
    running.cancel()
    await later.manager.aclose()


async def test_a_source_that_is_gone_leaves_what_was_mounted(setting: Setting) -> None:
    setting.objects.data[("ConfigMap", "c")] = config_map(k="1")
    await setting.manager.set_up(pod({"configMap": {"name": "c"}}))
    running = asyncio.create_task(setting.manager.run())
    setting.objects.data[("ConfigMap", "c")] = config_map(k="2")
    await eventually(lambda: (setting.root() / "k").read_text() == "2")
    setting.objects.data.clear()
    await asyncio.sleep(0.1)
    assert (setting.root() / "k").read_text() == "2"
    assert not running.done()
    running.cancel()


async def test_what_an_earlier_agent_set_up_is_looked_after(setting: Setting) -> None:
    setting.objects.data[("ConfigMap", "c")] = config_map(k="1")
    made = pod({"configMap": {"name": "c"}})
    await setting.manager.set_up(made)
    after = Setting(setting.pods)
    after.manager._pods_dir = setting.pods
    after.manager.adopt(made)
    running = asyncio.create_task(after.manager.run())
    await asyncio.sleep(0.1)  # its source is missing for the new agent: what was mounted stays
    assert (setting.root() / "k").read_text() == "1"
    after.objects.data[("ConfigMap", "c")] = config_map(k="2")
    await eventually(lambda: (setting.root() / "k").read_text() == "2")
    running.cancel()
    await after.manager.aclose()


async def test_what_is_not_needed_now_is_set_up_when_it_is(setting: Setting) -> None:
    one = await setting.manager.set_up(pod(TOKEN), {"v"})
    assert setting.objects.issued == 0
    assert one.roots == {}
    await setting.manager.set_up(pod(TOKEN))
    assert (setting.root() / "token").read_text() == "token-1"


async def test_labels_follow_at_once(setting: Setting) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volume = {"downwardAPI": {"items": items}}
    await setting.manager.set_up(pod(volume, labels={"a": "1"}))
    setting.manager.update(pod(volume, labels={"a": "2"}))
    await eventually(lambda: (setting.root() / "labels").read_text() == 'a="2"')


async def test_the_message_of_what_cannot_be_mounted(setting: Setting) -> None:
    with pytest.raises(NotMounted) as caught:
        await setting.manager.set_up(pod({"configMap": {"name": "c"}}))
    assert caught.value.message == 'MountVolume.SetUp failed for volume "v" : configmap "c" not found'
    with pytest.raises(NotMounted, match="type nfs is not supported"):
        await Setting(setting.root().parents[1]).manager.set_up(pod({"nfs": {"server": "x"}}))
    with pytest.raises(NotMounted, match="medium HugePages"):
        await Setting(setting.root().parents[0]).manager.set_up(pod({"emptyDir": {"medium": "HugePages"}}))


async def test_memory_without_the_right_to_mount_is_a_directory_and_said(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, size: int | None) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(filesystems, "tmpfs", refuse)
    one = await setting.manager.set_up(pod({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}))
    assert setting.root().is_dir()
    assert "MemoryVolumeOnDisk" in setting.told[0]
    assert list(one.limited()) == ["v"]  # its size is watched instead


async def test_what_grows_past_its_limit_is_evicted_once_it_is_seen(setting: Setting) -> None:
    await setting.manager.set_up(pod({"emptyDir": {"sizeLimit": "64Ki"}}))
    running = asyncio.create_task(setting.manager.run())
    await asyncio.sleep(0.1)
    assert setting.evicted == []
    (setting.root() / "x").write_bytes(b"x" * (1 << 20))
    await eventually(lambda: setting.evicted != [])
    assert setting.evicted[0] == ("u", 'Usage of EmptyDir volume "v" exceeds the limit "64Ki". ')
    running.cancel()


async def test_a_pod_that_is_over_keeps_no_volume(setting: Setting) -> None:
    setting.objects.data[("ConfigMap", "c")] = config_map(k="1")
    await setting.manager.set_up(pod({"configMap": {"name": "c"}}))
    (setting.pods / "u" / "c.0.log").write_text("kept")
    setting.manager.release("u")
    await eventually(lambda: not setting.root().parent.exists())
    assert (setting.pods / "u" / "c.0.log").exists()


async def test_a_pod_without_mounts_costs_nothing(setting: Setting) -> None:
    bare = pod({"emptyDir": {}})
    bare["spec"]["containers"] = [{"name": "c"}]
    await setting.manager.set_up(bare)
    assert list(setting.pods.iterdir()) == []
