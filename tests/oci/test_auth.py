from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oci.properties import relaxed
from wasmlab.errors import OCIError
from wasmlab.oci import auth
from wasmlab.oci.auth import Challenge, Secret


def test_reads_quoted_commas_and_several_challenges() -> None:
    value = (
        'Negotiate, Basic realm="a \\"b\\", c", Bearer realm="https://t.example/token",'
        'service=reg,scope="repository:a:pull,push repository:b:pull"'
    )
    assert auth.parse_challenges([value]) == [
        Challenge("negotiate"),
        Challenge("basic", {"realm": 'a "b", c'}),
        Challenge(
            "bearer",
            {
                "realm": "https://t.example/token",
                "service": "reg",
                "scope": "repository:a:pull,push repository:b:pull",
            },
        ),
    ]


@relaxed
@given(st.lists(st.text(max_size=80), max_size=3))
def test_junk_gives_no_exception(values: list[str]) -> None:
    auth.choose(auth.parse_challenges(values))


def test_bearer_before_basic_but_not_without_a_realm() -> None:
    assert auth.choose([Challenge("basic"), Challenge("bearer", {"realm": "https://t"})]).scheme == "bearer"  # type: ignore[union-attr]
    assert auth.choose([Challenge("basic"), Challenge("bearer")]).scheme == "basic"  # type: ignore[union-attr]
    assert auth.choose([Challenge("negotiate")]) is None


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b'{"token": "t"}', "t"),
        (b'{"access_token": "a"}', "a"),
        (b'{"token": "t", "access_token": "a"}', "t"),
        (b'{"token": "t", "access_token": ""}', "t"),  # Harbor; Krustlet failed on it
        (b'{"token": "", "access_token": "a"}', "a"),
        (b'{"token": null, "access_token": "a"}', "a"),
        (b'{"token": "t", "token": "t"}', "t"),
    ],
)
def test_token_shapes(body: bytes, token: str) -> None:
    assert auth.read_token(body, "svc").value == token


@pytest.mark.parametrize(
    "body", [b"{}", b'{"token": "", "access_token": ""}', b'{"token": 3}', b"<html>", b"[]"]
)
def test_no_token_is_an_error(body: bytes) -> None:
    with pytest.raises(OCIError, match="svc"):
        auth.read_token(body, "svc")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300), ("0", 60), ("-5", 60), ("null", 60), ('"x"', 60), ("true", 60), ("1e9", 86400)],
)
def test_lifetimes(text: str, seconds: float) -> None:
    assert auth.read_token(f'{{"token": "t", "expires_in": {text}}}'.encode(), "svc").lifetime_s == seconds


def test_token_request_keeps_the_realms_query_and_asks_each_scope() -> None:
    challenge = Challenge("bearer", {"realm": "https://t.example/token?x=1", "service": "s v"})
    request = auth.token_request(challenge, ["repository:a:pull", "repository:b:pull"], Secret("u", "p"))
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.url).query)
    assert query["scope"] == ["repository:a:pull", "repository:b:pull"]
    assert query["x"] == ["1"]
    assert query["service"] == ["s v"]
    assert request.headers["Authorization"] == "Basic dTpw"


def test_identity_tokens_are_posted_and_stay_out_of_the_url() -> None:
    challenge = Challenge("bearer", {"realm": "https://t.example/token", "service": "s"})
    request = auth.token_request(challenge, ["repository:a:pull"], Secret(identity_token="refresh-me"))
    assert request.method == "POST"
    assert "refresh-me" not in request.url
    form = urllib.parse.parse_qs((request.body or b"").decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["refresh-me"]


@pytest.mark.parametrize(
    "realm",
    ["file:///etc/passwd", "token", "ftp://x/y", "https://u:p@t.example/", "http://[", "https://t:999999/"],
)
def test_odd_realms_are_refused(realm: str) -> None:
    with pytest.raises(OCIError, match="token service"):
        auth.token_request(Challenge("bearer", {"realm": realm}), [], None)


def test_nothing_secret_in_any_repr() -> None:
    secret = Secret("u", "hunter2", "ident", "regtok")
    request = auth.token_request(Challenge("bearer", {"realm": "https://t"}), ["s"], Secret("u", "hunter2"))
    text = repr([secret, request, auth.Token("tok123")])
    assert not any(word in text for word in ("hunter2", "ident'", "regtok", "tok123", "Basic"))


def test_push_asks_for_both_rights_at_once() -> None:
    challenge = Challenge("bearer", {"realm": "https://t", "scope": "repository:a:pull other:x:y"})
    assert auth.scopes_for(challenge, auth.scope("a", push=True)) == ("repository:a:pull,push", "other:x:y")
