from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from wasmlab.errors import OCIError
from wasmlab.oci import answers, protocol
from wasmlab.oci.protocol import FilePart, Request, Response
from wasmlab.oci.reference import Reference

REF = Reference.parse("reg.example.org/a:v1")
GET = Request("GET", "https://reg.example.org/v2/a/blobs/x", "try", {"Authorization": "Bearer t"})
PUT = Request("PUT", "https://reg.example.org/v2/a/blobs/uploads/1", "try", idempotent=False)


def answer(status: int, url: str = GET.url, **headers: str) -> Response:
    return Response(status, {key.replace("_", "-"): value for key, value in headers.items()}, b"", url)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/a/blobs/uploads/1?_state=x", "https://reg.example.org/v2/a/blobs/uploads/1?_state=x"),
        ("1", "https://reg.example.org/v2/a/blobs/uploads/1"),
        ("https://other.example.org/up/1", "https://other.example.org/up/1"),
        # A registry behind a TLS proxy that it does not know about:
        (
            "http://reg.example.org/v2/a/blobs/uploads/1?s=2",
            "https://reg.example.org/v2/a/blobs/uploads/1?s=2",
        ),
        ("http://reg.example.org:5000/v2/a/x", "https://reg.example.org/v2/a/x"),
    ],
)
def test_upload_locations(location: str, expected: str) -> None:
    response = answer(202, "https://reg.example.org/v2/a/blobs/uploads/", location=location)
    assert answers.upload_location(response, "x") == expected


@pytest.mark.parametrize("location", ["", "ftp://x/y", "javascript:1", "http://[", "http://r:99999/x"])
def test_unusable_upload_locations(location: str) -> None:
    with pytest.raises(OCIError):
        answers.upload_location(answer(202, location=location), "x")


def test_the_digest_joins_the_locations_query_untouched() -> None:
    request = protocol.finish_upload_request("https://r/u?_state=a%2Fb%3D", REF, "sha256:ab", b"", 0)
    assert request.url == "https://r/u?_state=a%2Fb%3D&digest=sha256%3Aab"
    assert (
        protocol.finish_upload_request("https://r/u", REF, "sha256:ab", b"", 0).url
        == "https://r/u?digest=sha256%3Aab"
    )


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/elsewhere", True),
        ("https://reg.example.org:443/x", True),
        ("https://cdn.example.org/x", False),
        ("https://reg.example.org:444/x", False),
        ("https://reg.example.org.evil.example/x", False),
    ],
)
def test_credentials_stay_at_their_origin(location: str, kept: bool) -> None:
    following = answers.redirect(GET, answer(307, location=location), allow_downgrade=False)
    assert following is not None
    assert ("Authorization" in following.headers) is kept


def test_an_upload_is_redirected_only_with_its_body() -> None:
    assert answers.redirect(PUT, answer(307, PUT.url, location="/x"), allow_downgrade=False) is not None
    with pytest.raises(OCIError):
        answers.redirect(PUT, answer(302, PUT.url, location="/x"), allow_downgrade=False)
    assert answers.redirect(GET, answer(200), allow_downgrade=False) is None


def test_when_to_try_again() -> None:
    assert answers.retry_delay_s(GET, answer(503), 0) == answers.backoff_s(0)
    assert answers.retry_delay_s(GET, answer(503), answers.MAX_ATTEMPTS - 1) is None
    assert answers.retry_delay_s(PUT, answer(503, PUT.url), 0) is None
    assert answers.retry_delay_s(PUT, answer(429, PUT.url, retry_after="2"), 0) == 2
    assert answers.retry_delay_s(GET, answer(429, retry_after="11"), 0) is None
    assert answers.retry_delay_s(GET, answer(500), 0) is None
    assert answers.retry_delay_s(GET, answer(404), 0) is None
    soon = answers.retry_delay_s(GET, answer(429, retry_after=formatdate(time.time() + 5, usegmt=True)), 0)
    assert soon is not None and 2 < soon <= 5
    past = answers.retry_delay_s(GET, answer(429, retry_after=formatdate(time.time() - 50, usegmt=True)), 0)
    assert past == 0
    assert answers.retry_delay_s(GET, answer(429, retry_after="soon"), 0) == answers.backoff_s(0)


def test_chunks_say_where_they_belong() -> None:
    request = protocol.chunk_request("https://r/u", REF, FilePart(Path("x"), 1000, 500))
    assert request.headers["Content-Range"] == "1000-1499"
    assert not request.idempotent


@pytest.mark.parametrize("location", ["http://[", "https://r:99999/x", "file:///etc/passwd", ""])
def test_unusable_redirects(location: str) -> None:
    with pytest.raises(OCIError):
        answers.redirect(GET, answer(302, location=location), allow_downgrade=False)
