"""A node's shims without containerd, for the tests of the Task service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shim.pod import Bundle, Node


@pytest.fixture(scope="module")
def node(fixtures_dir: Path) -> Iterator[Node]:
    one = Node(fixtures_dir)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def pod(node: Node, name: str) -> Iterator[object]:
    made: list[Bundle] = []

    def make(*args: str, id: str = name, **options: object) -> Bundle:
        made.append(node.bundle(id, *args, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.remove()
