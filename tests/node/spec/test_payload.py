"""What is in API-filled volumes, and how it gets to disk."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.inputs import atomicwriter
from wasmlab.node.inputs.atomicwriter import UnsafePath
from wasmlab.node.spec import payload
from wasmlab.node.spec.downward import NodeSide
from wasmlab.node.spec.payload import File, PayloadError, TokenRequest

SIDE = NodeSide("n", "192.0.2.1", "192.0.2.2", {"cpu": "2"})
POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
    "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "64Mi"}}}, {"name": "d"}]},
}
OBJECTS: dict[Any, Any] = {
    ("ConfigMap", "c"): {
        "metadata": {"name": "c"},
        "data": {"a": "1", "b": "ü"},
        "binaryData": {"raw": base64.b64encode(b"\xff\0").decode()},
    },
    ("Secret", "s"): {"metadata": {"name": "s"}, "data": {"pw": base64.b64encode(b"hunter2").decode()}},
}


def files(volume: dict[str, Any], tokens: Any = None) -> dict[str, File]:
    return payload.files({"name": "v", **volume}, POD, SIDE, OBJECTS, tokens or {})


def test_a_config_map_with_its_binary_data() -> None:
    made = files({"configMap": {"name": "c", "defaultMode": 0o440}})
    assert {path: (one.data, one.mode) for path, one in made.items()} == {
        "a": (b"1", 0o440),
        "b": ("ü".encode(), 0o440),
        "raw": (b"\xff\0", 0o440),
    }


def test_items_choose_name_and_mode() -> None:
    made = files({"configMap": {"name": "c", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}})
    assert made == {"x/y": File(b"1", 0o400)}
    with pytest.raises(PayloadError, match="configmap references non-existent config key: z"):
        files({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}})
    assert files({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}], "optional": True}}) == {}


def test_secrets_are_for_the_module_alone() -> None:
    made = files({"secret": {"secretName": "s", "defaultMode": 0o644}})
    assert made == {"pw": File(b"hunter2", 0o600)}
    assert files({"secret": {"secretName": "s", "defaultMode": 0o044}})["pw"].mode == 0o400


def test_what_is_missing() -> None:
    with pytest.raises(PayloadError, match='secret "none" not found'):
        files({"secret": {"secretName": "none"}})
    assert files({"secret": {"secretName": "none", "optional": True}}) == {}


def test_downward_api() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {
            "path": "mem",
            "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"},
            "mode": 0o400,
        },
        {"path": "cpu", "resourceFieldRef": {"containerName": "d", "resource": "limits.cpu"}},
    ]
    made = files({"downwardAPI": {"items": items}})
    assert made == {
        "labels": File(b'app="x"', 0o644),
        "mem": File(b"64", 0o400),
        "cpu": File(b"2", 0o644),
    }


def test_a_projected_volume_joins_them() -> None:
    volume = {
        "projected": {
            "defaultMode": 0o640,
            "sources": [
                {"configMap": {"name": "c", "items": [{"key": "a", "path": "both"}]}},
                {"secret": {"name": "s", "items": [{"key": "pw", "path": "both"}]}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "a"}},
            ],
        }
    }
    one = {"name": "v", **volume}
    assert payload.references(one) == [("ConfigMap", "c"), ("Secret", "s")]
    assert payload.token_requests(one) == [TokenRequest("a", 600)]
    made = files(volume, {TokenRequest("a", 600): "ey"})
    assert made == {
        "both": File(b"hunter2", 0o600),
        "name": File(b"p", 0o640),
        "token": File(b"ey", 0o600),
    }
    with pytest.raises(PayloadError, match="clusterTrustBundle"):
        files({"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}})


def test_a_token_is_renewed_at_80_percent_or_daily() -> None:
    assert payload.renew_after(600.0) == 480.0
    assert payload.renew_after(1e6) == 86400.0


# ---- the writer ----


def put(directory: Path, **contents: str) -> bool:
    return atomicwriter.write(
        directory, {k.replace("__", "/"): File(v.encode(), 0o644) for k, v in contents.items()}
    )


def test_files_appear_behind_links(tmp_path: Path) -> None:
    assert put(tmp_path / "v", a="1", d__x="2")
    root = tmp_path / "v"
    assert (root / "a").read_text() == "1"
    assert (root / "d" / "x").read_text() == "2"
    assert os.readlink(root / "a") == "..data/a"
    assert os.readlink(root / "d") == "..data/d"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert len([p for p in root.iterdir() if p.name.startswith("..2")]) == 1


def test_an_update_is_one_swap_and_leaves_nothing_old(tmp_path: Path) -> None:
    root = tmp_path / "v"
    put(root, a="1", gone="x")
    before = os.readlink(root / "..data")
    held = (root / "a").open()
    assert put(root, a="2", b="3")
    assert os.readlink(root / "..data") != before
    assert sorted(p.name for p in root.iterdir() if not p.name.startswith("..")) == ["a", "b"]
    assert (root / "a").read_text() == "2"
    assert held.read() == "1"  # who had it open keeps what it had
    held.close()
    assert not (root / before).exists()


def test_a_reader_never_sees_half_of_an_update(tmp_path: Path) -> None:
    root = tmp_path / "v"
    put(root, a="0", b="0")
    stop = threading.Event()
    torn: list[tuple[str, str]] = []
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):  # the directory that was current has just gone
                current = root / os.readlink(root / "..data")
                both = (current / "a").read_text(), (current / "b").read_text()
                seen.add(both[0])
                if both[0] != both[1]:
                    torn.append(both)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 200):
        put(root, a=str(number), b=str(number))
    stop.set()
    reader.join(10)
    assert torn == []
    assert seen


def test_what_is_the_same_is_not_touched(tmp_path: Path) -> None:
    root = tmp_path / "v"
    put(root, a="1")
    before = os.readlink(root / "..data")
    assert not put(root, a="1")
    assert os.readlink(root / "..data") == before
    assert atomicwriter.write(root, {"a": File(b"1", 0o600)})  # the mode counts
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o600
    assert atomicwriter.write(root, {})
    assert [p.name for p in root.iterdir() if not p.name.startswith("..")] == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..data", "..", "", "a/" + "x" * 300])
def test_a_path_out_of_the_volume_is_refused_and_nothing_changes(tmp_path: Path, path: str) -> None:
    root = tmp_path / "v"
    put(root, a="1")
    with pytest.raises(UnsafePath):
        atomicwriter.write(root, {"a": File(b"2", 0o644), path: File(b"x", 0o644)})
    assert (root / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["v"]


def test_a_killed_writers_leftovers_are_cleared(tmp_path: Path) -> None:
    root = tmp_path / "v"
    put(root, a="1")
    (root / "..data_tmp").symlink_to("nowhere")
    (root / "..2026_01_01_00_00_00.x").mkdir()
    put(root, a="2")
    assert (root / "a").read_text() == "2"
    assert len([p for p in root.iterdir() if p.name.startswith("..2")]) == 1
