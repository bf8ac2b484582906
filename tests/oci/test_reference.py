from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oci.properties import relaxed
from wasmlab.errors import InvalidReference
from wasmlab.oci.reference import Reference, is_loopback

HEX = "4c7915b4c1f9b0c13f962998e4199ceb00db39a4a7fa4554f40ae0bed83d9510"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("127.0.0.1:5000/hello:v1", "127.0.0.1:5000", "hello", "v1", None),
        ("localhost/hello", "localhost", "hello", "latest", None),
        ("localhost:5000/a/b_c/d-e.f__g:x_Y.1", "localhost:5000", "a/b_c/d-e.f__g", "x_Y.1", None),
        (f"reg.example.org/a@sha256:{HEX}", "reg.example.org", "a", None, f"sha256:{HEX}"),
        (f"reg.example.org/a:v1@sha256:{HEX}", "reg.example.org", "a", "v1", f"sha256:{HEX}"),
        ("[::1]:5000/a:v", "[::1]:5000", "a", "v", None),
        ("[2001:db8::1]/a", "[2001:db8::1]", "a", "latest", None),
        ("hello", "docker.io", "library/hello", "latest", None),
        ("team/hello:v2", "docker.io", "team/hello", "v2", None),
        ("index.docker.io/hello", "docker.io", "library/hello", "latest", None),
        ("Registry/hello", "Registry", "hello", "latest", None),
    ],
)
def test_parses(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("http://127.0.0.1:5000/hello", "--use-http"),
        ("127.0.0.1:5000/Hello:v1", "lower case"),
        ("127.0.0.1:5000/hello:", "not a tag"),
        ("127.0.0.1:5000/hello:-x", "not a tag"),
        ("127.0.0.1:5000/hello:" + "x" * 129, "not a tag"),
        ("127.0.0.1:5000/", "no repository"),
        ("127.0.0.1:99999/a", "not a port"),
        ("127.0.0.1:0/a", "not a port"),
        ("[::zz]:5000/a", "not a"),
        ("reg.example.org/a@sha256:abc", "not a digest"),
        ("reg.example.org/a@sha256:" + HEX.upper(), "not a digest"),
        ("reg.example.org/a/../b", "not allowed"),
        ("reg.example.org//a", "not allowed"),
        ("reg.example.org/a%2fb", "not allowed"),
        ("reg.example.org/a?b", "not allowed"),
        ("reg.example.org/a b", "white space"),
        (" reg.example.org/a", "white space"),
        ("reg.example.org/" + "a/" * 130 + "a", "255"),
        ("user:pw@reg.example.org/a", "not a digest"),
    ],
)
def test_refuses_and_says_why(text: str, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert hint in str(caught.value)
    assert isinstance(caught.value, ValueError)


segment = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?", fullmatch=True)
host = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,10}\.[a-z]{2,5}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
references = st.builds(
    Reference,
    st.tuples(host, st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.lists(segment, min_size=1, max_size=4).map("/".join),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
)


@relaxed
@given(references)
def test_text_form_round_trips(ref: Reference) -> None:
    assert Reference.parse(str(ref)) == ref


@relaxed
@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_cleanly(text: str) -> None:
    try:
        ref = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(ref)) == ref
    assert not set(ref.repository) & set("%?#:@ \\")
    assert ".." not in ref.repository


def test_a_digest_decides_over_a_tag() -> None:
    assert Reference.parse(f"r.io/a:v@sha256:{HEX}").target == f"sha256:{HEX}"
    assert Reference.parse("r.io/a:v").target == "v"
    assert Reference.parse("docker.io/a").api_host == "registry-1.docker.io"


@pytest.mark.parametrize(
    "registry", ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"]
)
def test_loopback(registry: str) -> None:
    assert is_loopback(registry)


@pytest.mark.parametrize("registry", ["localhost.example.org", "10.0.0.1:5000", "example.org", "[::2]"])
def test_not_loopback(registry: str) -> None:
    assert not is_loopback(registry)
