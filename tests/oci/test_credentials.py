from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oci.properties import relaxed
from wasmlab.errors import CredentialError
from wasmlab.oci import Credentials, Reference
from wasmlab.oci.auth import Secret


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def auths(*keys: str) -> dict[str, Any]:
    return {"auths": {key: {"username": key, "password": "pw"} for key in keys}}


def best(credentials: Credentials, ref: str) -> Secret | None:
    return next(iter(credentials.candidates(Reference.parse(ref))), None)


def user(credentials: Credentials, ref: str) -> str | None:
    found = best(credentials, ref)
    return found.username if found else None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": b64("u:p:with:colons")}, Secret("u", "p:with:colons")),
        ({"auth": b64("u:p") + "\n"}, Secret("u", "p")),
        ({"auth": b64("u:p\0\0")}, Secret("u", "p")),
        ({"username": "u", "password": "p"}, Secret("u", "p")),
        ({"auth": b64("a:b"), "username": "u", "password": "p"}, Secret("a", "b")),
        ({"auth": b64("u:"), "identitytoken": "it"}, Secret("u", "", "it")),
        ({"registrytoken": "rt"}, Secret(registry_token="rt")),
    ],
)
def test_entries(tmp_path: Path, entry: dict[str, str], expected: Secret) -> None:
    credentials = Credentials.from_docker_config(config(tmp_path, {"auths": {"reg.example.org": entry}}))
    assert best(credentials, "reg.example.org/a") == expected


@pytest.mark.parametrize(
    ("key", "ref", "matches"),
    [
        ("reg.example.org", "reg.example.org/a", True),
        ("https://reg.example.org", "reg.example.org/a", True),
        ("https://reg.example.org/v2/", "reg.example.org/a", True),
        ("http://reg.example.org/v1/", "reg.example.org/a", True),
        ("reg.example.org", "reg.example.org:5000/a", False),
        ("reg.example.org:5000", "reg.example.org:5000/a", True),
        ("reg.example.org/team", "reg.example.org/team/a", True),
        ("reg.example.org/team", "reg.example.org/team", True),
        ("reg.example.org/team", "reg.example.org/team-other/a", False),
        ("reg.example.org/team", "reg.example.org/a", False),
        ("*.example.org", "reg.example.org/a", True),
        ("*.example.org", "a.b.example.org/a", False),
        ("*.example.org", "example.org.evil.test/a", False),
        ("https://index.docker.io/v1/", "docker.io/library/hello", True),
        ("https://index.docker.io/v1/", "hello", True),
        ("docker.io", "hello", True),
        ("https://index.docker.io/v1/", "reg.example.org/hello", False),
        ("localhost:5000", "127.0.0.1:5000/a", False),
    ],
)
def test_which_entry_covers_which_reference(key: str, ref: str, matches: bool) -> None:
    assert (user(Credentials.from_pull_secret(auths(key)), ref) == key) is matches


def test_the_longer_path_comes_first() -> None:
    credentials = Credentials.from_pull_secret(auths("r.io", "r.io/team/app", "r.io/team"))
    found = credentials.candidates(Reference.parse("r.io/team/app"))
    assert [secret.username for secret in found] == ["r.io/team/app", "r.io/team", "r.io"]


def test_pull_secrets_of_both_kinds() -> None:
    new = {
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "pull"},
        "data": {".dockerconfigjson": b64(json.dumps(auths("r.io")))},
    }
    legacy_content = auths("https://r.io")["auths"]
    legacy = {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": b64(json.dumps(legacy_content))}}
    for secret in (new, auths("r.io")):
        assert user(Credentials.from_pull_secret(secret), "r.io/a") == "r.io"
    for secret in (legacy, legacy_content):
        assert user(Credentials.from_pull_secret(secret), "r.io/a") == "https://r.io"
    with pytest.raises(CredentialError, match="'pull'"):
        Credentials.from_pull_secret({**new, "data": {"other": "x"}})
    with pytest.raises(CredentialError, match="base64"):
        Credentials.from_pull_secret({**new, "data": {".dockerconfigjson": "%%%"}})


def test_a_pull_secret_cannot_make_the_node_run_a_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    helper(tmp_path, monkeypatch, f"touch {marker}")
    secret = {"auths": {}, "credsStore": "test", "credHelpers": {"r.io": "test"}}
    assert Credentials.from_pull_secret(secret).candidates(Reference.parse("r.io/a")) == []
    assert not marker.exists()


def test_where_docker_config_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert not Credentials.from_docker_config()
    (tmp_path / ".docker").mkdir()
    config(tmp_path / ".docker", auths("home.io"))
    assert user(Credentials.from_docker_config(), "home.io/a") == "home.io"
    (tmp_path / "elsewhere").mkdir()
    config(tmp_path / "elsewhere", auths("set.io"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "elsewhere"))
    assert user(Credentials.from_docker_config(), "set.io/a") == "set.io"


@pytest.mark.parametrize(
    "content",
    [
        '{"auths": {"r.io": {"auth": "hunter2',
        '{"auths": {"r.io": {"auth": "hunter2"}}}',
        json.dumps({"auths": {"r.io": {"auth": b64("hunter2")}}}),
        '{"auths": ["hunter2"]}',
        '["hunter2"]',
    ],
)
def test_damaged_configuration_is_named_but_never_quoted(tmp_path: Path, content: str) -> None:
    path = config(tmp_path, content)
    with pytest.raises(CredentialError) as caught:
        Credentials.from_docker_config(path)
    assert str(path) in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "hunter2" not in str(chain) + repr(chain)
        chain = chain.__cause__


def test_nothing_secret_in_repr() -> None:
    credentials = Credentials.of("r.io", "ada", "hunter2") | Credentials.from_pull_secret(auths("b.io"))
    assert "hunter2" not in repr(credentials) + repr(credentials._sources) + credentials.fingerprint()


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / "docker-credential-test"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def ask(tmp_path: Path, content: dict[str, Any], ref: str = "r.io/a") -> Secret | None:
    return best(Credentials.from_docker_config(config(tmp_path, content)), ref)


def test_helpers_get_the_server_and_give_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'read -r s; echo "{\\"Username\\":\\"$1:$s\\",\\"Secret\\":\\"pw\\"}"')
    assert ask(tmp_path, {"credHelpers": {"r.io": "test"}}) == Secret("get:r.io", "pw")
    assert ask(tmp_path, {"credHelpers": {"other.io": "test"}}) is None
    assert ask(tmp_path, {"credsStore": "test", "auths": {"r.io": {}}}) == Secret("get:r.io", "pw")
    hub = ask(tmp_path, {"credsStore": "test"}, "hello")
    assert hub == Secret("get:https://index.docker.io/v1/", "pw")


def test_a_helper_may_give_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, """echo '{"Username":"<token>","Secret":"it"}'""")
    assert ask(tmp_path, {"credsStore": "test"}) == Secret(identity_token="it")


def test_a_helper_without_an_entry_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert ask(tmp_path, {"credsStore": "test"}) is None
    both = {"credsStore": "test", **auths("r.io")}
    assert ask(tmp_path, both) == Secret("r.io", "pw")


def test_helpers_that_fail_or_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"credsStore": "test"}
    helper(tmp_path, monkeypatch, "echo keyring is locked >&2; exit 3")
    with pytest.raises(CredentialError, match=r"exit code 3: keyring is locked"):
        ask(tmp_path, content)
    helper(tmp_path, monkeypatch, "echo nonsense")
    with pytest.raises(CredentialError, match="protocol"):
        ask(tmp_path, content)
    helper(tmp_path, monkeypatch, "exec sleep 100")
    monkeypatch.setattr("wasmlab.oci.credentials.HELPER_TIMEOUT_S", 0.3)
    start = time.monotonic()
    with pytest.raises(CredentialError, match="did not answer"):
        ask(tmp_path, content)
    assert time.monotonic() - start < 60
    with pytest.raises(CredentialError, match="not on the PATH"):
        ask(tmp_path, {"credsStore": "missing"})
    with pytest.raises(CredentialError, match="not on the PATH"):
        ask(tmp_path, {"credsStore": "../../bin/sh"})


@relaxed
@given(
    st.recursive(
        st.none() | st.text(max_size=6), lambda i: st.dictionaries(st.text(max_size=12), i, max_size=3)
    )
)
def test_any_pull_secret_is_read_or_refused_cleanly(value: Any) -> None:
    if not isinstance(value, dict):
        return
    try:
        Credentials.from_pull_secret(value).candidates(Reference.parse("r.io/a"))
    except CredentialError:
        pass
