"""Which directories a module is given for its mounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wasmlab.node.inputs import atomicwriter, hostpath, volumemounts
from wasmlab.node.inputs.volumes import used_bytes
from wasmlab.node.spec.env import ConfigError
from wasmlab.node.spec.payload import File
from wasmlab.node.spec.podspec import Mount, Refused
from wasmlab.sandbox import Preopen

VOLUMES: dict[str, Any] = {
    "e": {"name": "e", "emptyDir": {}},
    "c": {"name": "c", "configMap": {"name": "c"}},
    "h": {"name": "h", "hostPath": {"path": "/x"}},
}


class Setting:
    def __init__(self, path: Path) -> None:
        self.aside = path / "mounts" / "c"
        self.roots = {name: path / name for name in VOLUMES}
        for name in ("e", "h"):
            self.roots[name].mkdir()
        atomicwriter.write(self.roots["c"], {"app.conf": File(b"a=1", 0o644), "sub/deep": File(b"d", 0o644)})

    def preopens(self, *mounts: Mount) -> dict[str, Preopen]:
        made = volumemounts.preopens(mounts, VOLUMES, self.roots, self.aside)
        return {one.guest: one for one in made}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_whole_volumes(setting: Setting) -> None:
    made = setting.preopens(Mount("/e/", "e"), Mount("/c", "c"), Mount("/h", "h", read_only=True))
    assert made["/e"] == Preopen(str(setting.roots["e"]), "/e", False)
    assert made["/c"].read_only  # what the API fills is never written by a module
    assert made["/h"].read_only


def test_a_sub_path_is_made_and_guarded(setting: Setting) -> None:
    made = setting.preopens(Mount("/logs", "e", sub_path="a/b"))
    root = setting.roots["e"]
    assert made["/logs"] == Preopen(str(root / "a/b"), "/logs", False, root=str(root))
    assert (root / "a/b").is_dir()


@pytest.mark.parametrize("target", ["/etc", "../..", "real"])
def test_no_link_on_the_way_is_followed(setting: Setting, target: str) -> None:
    root = setting.roots["e"]
    (root / "real").mkdir()
    (root / "link").symlink_to(target)
    for sub_path in ("link", "link/x"):
        with pytest.raises(Refused, match="symbolic link"):
            setting.preopens(Mount("/v", "e", sub_path=sub_path))


def test_single_files_are_shown_in_a_directory_of_their_own(setting: Setting) -> None:
    made = setting.preopens(
        Mount("/etc/app.conf", "c", sub_path="app.conf"), Mount("/etc/other.conf", "c", sub_path="sub/deep")
    )
    assert list(made) == ["/etc"]
    shown = Path(made["/etc"].host)
    assert made["/etc"].read_only
    assert {p.name: p.read_text() for p in shown.iterdir()} == {"app.conf": "a=1", "other.conf": "d"}
    atomicwriter.write(setting.roots["c"], {"app.conf": File(b"a=2", 0o644)})
    assert (shown / "app.conf").read_text() == "a=1"  # a subPath does not follow, as in Kubernetes
    again = setting.preopens(Mount("/etc/app.conf", "c", sub_path="app.conf"))  # the next start sees it
    assert (Path(again["/etc"].host) / "app.conf").read_text() == "a=2"


def test_a_directory_of_a_config_map(setting: Setting) -> None:
    made = setting.preopens(Mount("/d", "c", sub_path="sub"))
    assert (Path(made["/d"].host) / "deep").read_text() == "d"


def test_a_file_of_a_writable_volume_is_the_file_itself(setting: Setting) -> None:
    note = setting.roots["e"] / "note"
    note.write_text("1")
    made = setting.preopens(Mount("/data/note", "e", sub_path="note"))
    assert not made["/data"].read_only
    (Path(made["/data"].host) / "note").write_text("2")
    assert note.read_text() == "2"


def test_a_file_that_is_a_link_is_not_followed(setting: Setting) -> None:
    (setting.roots["e"] / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="symbolic link"):
        setting.preopens(Mount("/data/passwd", "e", sub_path="passwd"))


def test_what_cannot_be_both_is_refused(setting: Setting) -> None:
    with pytest.raises(Refused, match="single file"):
        setting.preopens(Mount("/etc", "e"), Mount("/etc/app.conf", "c", sub_path="app.conf"))
    with pytest.raises(Refused, match="two volumes"):
        setting.preopens(Mount("/v", "e"), Mount("/v/", "h"))
    (setting.roots["e"] / "note").write_text("1")
    with pytest.raises(Refused, match="read-only or all writable"):
        setting.preopens(
            Mount("/etc/note", "e", sub_path="note"), Mount("/etc/app.conf", "c", sub_path="app.conf")
        )
    with pytest.raises(ConfigError, match="has no none"):
        setting.preopens(Mount("/v", "c", sub_path="none"))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("Directory", "file", "is not a directory"),
        ("File", "dir", "is not a file"),
        ("Socket", "file", "is not a socket"),
        ("Directory", "none", "is not a directory"),
        ("Weird", "dir", "unknown"),
    ],
)
def test_host_paths_are_what_their_type_says(tmp_path: Path, kind: str, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    with pytest.raises(hostpath.WrongType, match=said):
        hostpath.prepare(str(tmp_path / name), kind)


def test_host_paths_are_made_if_their_type_says_so(tmp_path: Path) -> None:
    assert hostpath.prepare(str(tmp_path / "a/b"), "DirectoryOrCreate").is_dir()
    assert hostpath.prepare(str(tmp_path / "f"), "FileOrCreate").is_file()
    assert hostpath.prepare(str(tmp_path / "a"), "Directory").is_dir()
    assert hostpath.prepare(str(tmp_path / "new"), "").is_dir()
    with pytest.raises(hostpath.WrongType, match="absolute"):
        hostpath.prepare(str(tmp_path / ".." / "x"), "")


def test_used_bytes_counts_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    alone = used_bytes(tmp_path)
    assert alone >= 100_000
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "etc").symlink_to("/usr")
    assert used_bytes(tmp_path) <= alone + 4096
