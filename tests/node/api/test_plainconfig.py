"""Kubeconfigs read without the client library, and those left to it."""

from __future__ import annotations

import base64
import copy
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from wasmlab.errors import PrerequisiteError
from wasmlab.node.api import plainconfig
from wasmlab.node.api.kubeapi import KubeApi

_CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "b",
    "contexts": [
        {"name": "a", "context": {"cluster": "none", "user": "none"}},
        {"name": "b", "context": {"cluster": "c", "user": "u"}},
    ],
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "secret"}}],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(cluster={...}, user={...}) -> a kubeconfig with that in its current context."""

    def made(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Path:
        config = copy.deepcopy(_CONFIG)
        config["clusters"][0]["cluster"] |= cluster or {}
        if user is not None:
            config["users"][0]["user"] = user
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    return made


def test_a_token_and_an_authority(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"PEM")
    assert plainconfig.read(write({"certificate-authority": "ca.crt"})) == plainconfig.PlainConfig(
        "https://127.0.0.1:1", authority=b"PEM", token="secret"
    )


def test_data_wins_over_files(write: Callable[..., Path]) -> None:
    data = base64.b64encode(b"PEM").decode()
    user = {"client-certificate-data": data, "client-certificate": "x", "client-key-data": data}
    found = plainconfig.read(write({"insecure-skip-tls-verify": True}, user))
    assert found is not None
    assert (found.certificate, found.key, found.token, found.verify) == (b"PEM", b"PEM", None, False)


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({"proxy-url": "http://proxy"}, {"token": "x"}),
        ({"tls-server-name": "other"}, {"token": "x"}),
        ({}, {"exec": {"command": "login"}}),
        ({}, {"tokenFile": "/t"}),
        ({}, {"auth-provider": {"name": "gcp"}}),
        ({}, {"client-certificate": "nowhere"}),
        ({"certificate-authority-data": "abc"}, {"token": "x"}),
    ],
)
def test_other_forms_are_left_to_the_library(
    write: Callable[..., Path], cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    assert plainconfig.read(write(cluster, user)) is None


@pytest.mark.parametrize("text", ["", "[]", "a: {", "contexts: 7\ncurrent-context: b\n"])
def test_so_is_damage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    assert plainconfig.read(path) is None
    path.write_text(text)
    assert plainconfig.read(path) is None


async def test_a_certificate_that_is_none_is_told(write: Callable[..., Path], tmp_path: Path) -> None:
    data = base64.b64encode(b"no certificate").decode()
    path = write(user={"client-certificate-data": data, "client-key-data": data})
    with pytest.raises(PrerequisiteError, match="cannot be used") as caught:
        await KubeApi.from_kubeconfig(path, temporary=tmp_path)
    assert caught.value.remedy
    assert [one.name for one in tmp_path.iterdir()] == ["kubeconfig"]


async def test_what_it_gives_is_used(write: Callable[..., Path], tmp_path: Path) -> None:
    api = await KubeApi.from_kubeconfig(write({"insecure-skip-tls-verify": True}), temporary=tmp_path)
    try:
        assert api.server == "https://127.0.0.1:1"
        assert api._headers["Authorization"] == "Bearer secret"
        assert isinstance(api._ssl, ssl.SSLContext)
        assert api._ssl.verify_mode is ssl.CERT_NONE
    finally:
        await api.aclose()


def test_the_client_library_is_not_imported_for_it(write: Callable[..., Path], tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from wasmlab.node.api.kubeapi import KubeApi
async def main():
    api = await KubeApi.from_kubeconfig(Path(sys.argv[1]), temporary=Path(sys.argv[2]))
    await api.aclose()
asyncio.run(main())
assert "kubernetes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(write()), str(tmp_path)], check=True, timeout=120)
