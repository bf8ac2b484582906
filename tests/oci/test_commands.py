"""``wasmlab oci`` as a user types it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.oci.conftest import MODULE
from tests.oci.fake_registry import FakeRegistry, TokenService, digest_of
from wasmlab.errors import WasmlabError
from wasmlab.oci import commands
from wasmlab.oci.progress import ProgressBar
from wasmlab.reference.documents import DOCUMENTS


def run(*argv: Any) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    return CliRunner().invoke(app, ["oci", *map(str, argv)])


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


def test_push_and_pull_print_what_wasm_to_oci_prints(
    registry: FakeRegistry, module: Path, tmp_path: Path
) -> None:
    ref = f"{registry.host}/hello:v1"
    pushed = run("push", module, ref)
    manifest = digest_of(registry.manifests["hello", "v1"][1])
    assert pushed.output == f"Pushed: {ref}\nSize: {len(MODULE)}\nDigest: {manifest}\n"
    pulled = run("pull", ref, "--out", tmp_path / "out.wasm")
    assert pulled.output == f"Pulled: {ref}\nSize: {len(MODULE)}\nDigest: {digest_of(MODULE)}\n"
    assert (tmp_path / "out.wasm").read_bytes() == MODULE
    shown = run("inspect", ref).output
    assert f"Digest: {manifest}" in shown and "Layout: wasm-to-oci" in shown
    assert '"mediaType": "application/vnd.wasm.content.layer.v1+wasm"' in shown


def test_json(registry: FakeRegistry, module: Path, tmp_path: Path) -> None:
    ref = f"{registry.host}/hello:v1"
    pushed = json.loads(run("push", module, ref, "--layout", "cncf", "--json").output)
    assert (pushed["layout"], pushed["size"], pushed["layerDigest"]) == (
        "cncf",
        len(MODULE),
        digest_of(MODULE),
    )
    pulled = json.loads(run("pull", ref, "-o", tmp_path / "o", "--json").output)
    assert (pulled["manifestDigest"], pulled["digest"]) == (pushed["digest"], digest_of(MODULE))
    found = json.loads(run("inspect", ref, "--json").output)
    packed = json.loads(run("pack", module, ref, "--json").output)
    for command, said in {"push": pushed, "pull": pulled, "inspect": found, "pack": packed}.items():
        assert set(said) == set(DOCUMENTS[f"oci {command}"])
    assert (found["layout"], found["layer"]["size"], found["problem"]) == ("cncf", len(MODULE), None)


def test_credentials_come_from_the_docker_configuration(
    registry: FakeRegistry, module: Path, docker_config: Path
) -> None:
    service = TokenService(registry)
    registry.before = service
    auth = base64.b64encode(f"{service.user}:{service.password}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    assert run("push", module, f"{registry.host}/hello:v1").exit_code == 0
    docker_config.unlink()
    assert isinstance(run("push", module, f"{registry.host}/hello:v1").exception, WasmlabError)


@pytest.mark.parametrize(
    "argv",
    [
        ("push",),
        ("push", "FILE"),
        ("pull", "http://x/y"),
        ("inspect", "127.0.0.1:5000/Hello"),
        ("push", "FILE", "127.0.0.1:5000/hello", "--layout", "tar"),
        ("pull", "127.0.0.1:5000/hello", "--timeout", "0"),
    ],
)
def test_wrong_usage(argv: tuple[str, ...]) -> None:
    assert run(*argv).exit_code == 2


def test_a_container_image_is_explained(registry: FakeRegistry) -> None:
    manifest = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(b"c"),
            "size": 1,
        },
        "layers": [],
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    registry.put("nginx", "1", json.dumps(manifest).encode(), kind)
    assert "Not runnable here: this is a container image" in run("inspect", f"{registry.host}/nginx:1").output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_waits_two_seconds_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    now = 100.0
    terminal, pipe = Terminal(), io.StringIO()
    with (
        ProgressBar("pulling x", terminal, clock=lambda: now) as bar,
        ProgressBar("pulling x", pipe, clock=lambda: now) as lines,
    ):
        now += 1.9
        bar(1, 10)
        assert terminal.getvalue() == ""
        now += 0.6
        bar(5_000_000, 10_000_000)
        lines(5_000_000, 10_000_000)
        assert " 50%  5.0 of 10.0 MB, 2.0 MB/s, about 2 s left" in terminal.getvalue()
        now += 0.01
        before = terminal.getvalue()
        bar(6_000_000, 10_000_000)
        assert (terminal.getvalue(), pipe.getvalue()) == (before, "")
        now += 30
        lines(9_000_000, 10_000_000)
    assert terminal.getvalue().endswith("\r\033[K")
    assert pipe.getvalue() == " … pulling x  9.0 of 10.0 MB, 0.3 MB/s, about 4 s left\n"
