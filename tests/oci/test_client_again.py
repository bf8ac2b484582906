"""What is tried again, and where else a registry may send one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import MODULE, Face, failing, untouched
from tests.oci.fake_registry import FakeRegistry
from wasmlab.errors import (
    OCIError,
    RegistryError,
    RegistryUnavailable,
)


def test_429_is_waited_out(face: Face, registry: FakeRegistry, module: Path) -> None:
    pushed = face("push", module, f"{registry.host}/hello:v1")
    registry.before = failing(2, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "0"}))
    assert face("resolve", f"{registry.host}/hello:v1") == pushed.digest


def test_429_without_end_fails_and_says_so(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(
        1000, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "0"})
    )
    with pytest.raises(RegistryError, match="429 TOOMANYREQUESTS"):
        face("inspect", f"{registry.host}/hello:v1")
    assert len(registry.seen) <= 5


def test_a_long_retry_after_is_not_slept_through(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(
        1000, lambda h: h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "3600"})
    )
    start = time.monotonic()
    with pytest.raises(RegistryError, match="429"):
        face("inspect", f"{registry.host}/hello:v1")
    assert time.monotonic() - start < 60


def test_503_and_a_broken_connection_are_tried_again(
    face: Face, registry: FakeRegistry, module: Path, out: Path
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    registry.before = failing(1, lambda handler: handler.answer(503))
    face("inspect", f"{registry.host}/hello:v1")
    registry.before = failing(1, lambda handler: handler.drop())
    face("inspect", f"{registry.host}/hello:v1")
    registry.before = failing(1000, lambda handler: handler.drop())
    with pytest.raises(RegistryUnavailable, match="broke"):
        face("pull", f"{registry.host}/hello:v1", out)
    assert untouched(out)


def test_500_is_not_tried_again(face: Face, registry: FakeRegistry) -> None:
    registry.before = failing(1000, lambda handler: handler.error(500, "UNKNOWN", "boom"))
    with pytest.raises(RegistryError, match="500 UNKNOWN: boom"):
        face("inspect", f"{registry.host}/hello:v1")
    assert len(registry.seen) == 1


def test_an_upload_is_not_repeated_blindly(face: Face, registry: FakeRegistry, module: Path) -> None:
    registry.before = lambda handler: handler.command == "PUT" and handler.drop()
    with pytest.raises(RegistryUnavailable):
        face("push", module, f"{registry.host}/hello:v1")
    assert registry.count("PUT", "/uploads/") == 1


# Redirects -----------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Any:
    fake = FakeRegistry().start()
    yield fake
    fake.stop()


def test_blobs_may_be_elsewhere(
    face: Face, registry: FakeRegistry, other: FakeRegistry, module: Path, out: Path
) -> None:
    face("push", module, f"{registry.host}/hello:v1")
    signature = "X-Sig=a%2Fb%2B%3D&x=%7e"

    def elsewhere(handler: Any) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path:
            return False
        handler.answer(307, b"", {"Location": f"http://{other.host}/store/abc?{signature}"})
        return True

    def serve(handler: Any) -> bool:
        handler.answer(200, MODULE)
        return True

    registry.before, other.before = elsewhere, serve
    face("pull", f"{registry.host}/hello:v1", out)
    assert out.read_bytes() == MODULE
    assert other.seen[0].path == f"/store/abc?{signature}"  # a signature survives only untouched


def test_a_circle_of_redirects_ends(face: Face, registry: FakeRegistry, out: Path) -> None:
    def around(handler: Any) -> bool:
        handler.answer(302, b"", {"Location": handler.path})
        return True

    registry.before = around
    with pytest.raises(OCIError, match="redirects"):
        face("pull", f"{registry.host}/hello:v1", out)
    registry.before = lambda handler: handler.answer(302, b"", {"Location": "file:///etc/passwd"}) is None
    with pytest.raises(OCIError, match="redirects to"):
        face("pull", f"{registry.host}/hello:v1", out)
