"""What a bundle says, and where its module is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wasmlab.shim import bundle as bundles
from wasmlab.shim.bundle import Bundle, BundleError, Process

WASM = b"\0asm\x01\0\0\0"


def make(tmp_path: Path, files: dict[str, bytes], **config: object) -> Bundle:
    for name, content in files.items():
        path = tmp_path / "rootfs" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "rootfs").mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({"root": {"path": "rootfs"}, **config}))
    return bundles.load(str(tmp_path), "box")


def process(*args: str, **more: object) -> dict[str, object]:
    return {"process": {"args": list(args), **more}}


def test_a_kubernetes_container(tmp_path):
    one = make(
        tmp_path,
        {},
        process={
            "args": ["/x", "y"],
            "env": ["A=b=c", "EMPTY="],
            "cwd": "/srv",
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "capabilities": {"effective": ["CAP_CHOWN", "CAP_NO_SUCH"]},
            "oomScoreAdj": 999,
        },
        root={"path": "rootfs", "readonly": True},
        mounts=[{"destination": "/dev/termination-log", "source": "/host/log", "options": ["rbind"]}],
        annotations={"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod"},
        linux={
            "cgroupsPath": "/kubepods/x",
            "resources": {"memory": {"limit": 1 << 20}},
            "namespaces": [{"type": "network", "path": "/var/run/netns/cni"}, {"type": "pid"}],
        },
    )
    assert one.process == Process(("/x", "y"), (("A", "b=c"), ("EMPTY", "")), "/srv", 5, 6, (7,), 1, 999)
    assert (one.read_only, one.cgroup, one.network) == (True, "/kubepods/x", "/var/run/netns/cni")
    assert (one.memory_limit_bytes, one.is_sandbox, one.termination_log()) == (1 << 20, False, "/host/log")


@pytest.mark.parametrize("limit", [0, -1, 1 << 63, None])
def test_no_memory_limit_has_several_forms(tmp_path, limit):
    assert make(tmp_path, {}, linux={"resources": {"memory": {"limit": limit}}}).memory_limit_bytes is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"root": 3}', '{"process": {"user": {"uid": "x"}}}'])
def test_rubbish_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BundleError, match=r"config\.json"):
        bundles.load(str(tmp_path), "box")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, "wasmtime"),
        ({"wasmlab.dev/engine": "wasmer"}, "wasmer"),
        ({"wasmlab.dev/engine.app": "wasmer"}, "wasmtime"),
        ({"wasmlab.dev/engine.app": "wasmer", "io.kubernetes.cri.container-name": "app"}, "wasmer"),
        (
            {
                "wasmlab.dev/engine.app": "wasmtime",
                "wasmlab.dev/engine": "wasmer",
                "io.kubernetes.cri.container-name": "app",
            },
            "wasmtime",
        ),
    ],
)
def test_the_engine_of_a_container(annotations, expected):
    assert bundles.engine_of(annotations, "wasmtime") == expected


@pytest.mark.parametrize(
    ("args", "more", "found"),
    [
        (["/bin/m.wasm"], {}, "/bin/m.wasm"),
        (["bin/m.wasm"], {}, "/bin/m.wasm"),
        (["./m.wasm"], {"cwd": "/bin"}, "/bin/m.wasm"),
        (["../bin/m.wasm"], {"cwd": "/etc"}, "/bin/m.wasm"),
        (["m.wasm"], {}, "/bin/m.wasm"),
        (["m.wasm"], {"env": ["PATH=/opt:/bin"]}, "/bin/m.wasm"),
        (["top.wasm"], {}, "/top.wasm"),
        (["here.wasm"], {"cwd": "/srv"}, "/srv/here.wasm"),
    ],
)
def test_where_a_module_is_looked_for(tmp_path, args, more, found):
    files = dict.fromkeys(("/bin/m.wasm", "/top.wasm", "/srv/here.wasm"), WASM)
    one = make(tmp_path, files, **process(*args, **more))
    assert bundles.read_module(one, one.process) == (found, WASM)
    assert bundles.names_module(one, one.process)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x7fELF\x02", "an ELF program for the host"),
        (b"#!/bin/sh\n", "a script"),
        (b"", "an empty file"),
        (b"(module)", "WebAssembly text"),
        (b"\xff\xfe\0\0", "it begins with ff fe 00 00"),
    ],
)
def test_what_is_no_module_is_named(tmp_path, content, says):
    one = make(tmp_path, {"/x": content}, **process("/x"))
    with pytest.raises(BundleError, match=says):
        bundles.read_module(one, one.process)
    assert not bundles.names_module(one, one.process)


def test_no_command_and_no_such_module(tmp_path):
    one = make(tmp_path, {}, **process())
    with pytest.raises(BundleError, match="no command"):
        bundles.read_module(one, one.process)
    one = make(tmp_path, {}, **process("/nothing.wasm"))
    with pytest.raises(BundleError, match=r"no such module in the image: /nothing\.wasm"):
        bundles.read_module(one, one.process)
    (tmp_path / "rootfs/dir").mkdir()
    one = make(tmp_path, {}, **process("/dir"))
    with pytest.raises(BundleError, match="it is not a file"):
        bundles.read_module(one, one.process)


def test_a_module_in_a_mount(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "m.wasm").write_bytes(WASM + b"!")
    mounts = [
        {"destination": "/app", "type": "bind", "source": str(volume), "options": ["rbind"]},
        {
            "destination": "/single.wasm",
            "type": "bind",
            "source": str(volume / "m.wasm"),
            "options": ["bind"],
        },
        {"destination": "/proc", "type": "proc", "source": "proc"},
    ]
    one = make(tmp_path, {"/app/m.wasm": WASM}, mounts=mounts, **process("/app/m.wasm"))
    # The mount hides what the image has there.
    assert bundles.read_module(one, one.process)[1] == WASM + b"!"
    one = make(tmp_path, {}, mounts=mounts, **process("/single.wasm"))
    assert bundles.read_module(one, one.process)[1] == WASM + b"!"


def test_links_are_followed_inside_the_root_only(tmp_path):
    (tmp_path / "secret.wasm").write_bytes(WASM)
    one = make(tmp_path, {"/real.wasm": WASM}, **process("/link.wasm"))
    link = tmp_path / "rootfs/link.wasm"
    link.symlink_to("/real.wasm")
    assert bundles.read_module(one, one.process)[1] == WASM
    for target in (str(tmp_path / "secret.wasm"), "../secret.wasm", "/../../secret.wasm"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(BundleError, match="no such module"):
            bundles.read_module(one, one.process)


def test_user_namespaces_are_refused(tmp_path):
    with pytest.raises(BundleError, match="hostUsers"):
        make(tmp_path, {}, linux={"namespaces": [{"type": "user"}]})


def test_the_group_is_the_sandbox():
    assert bundles.group_of({"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}, "box") == "pod"
    assert bundles.group_of({}, "box") == "box"
    assert bundles.group_of({"annotations": None}, "box") == "box"
