"""Session fixtures: the control plane that many tests share, once without and once with a node.

Tests that stop, kill or break a control plane start their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def processes_with(text: str) -> list[str]:
    """Return the command lines that contain `text`: what should be empty after a lab has stopped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(f"{entry.name} {line}")
    return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A control plane and a registry, no node."""
    from wasmlab.cluster import Cluster

    root = tmp_path_factory.mktemp("cluster") / "lab"
    with Cluster.embedded(root, node=False) as one:
        yield one
    assert processes_with(str(root)) == [], "the shared control plane left processes behind"


@pytest.fixture(scope="session")
def node_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A control plane, a registry and one Ready node whose default engine is wasmtime."""
    from wasmlab.cluster import Cluster

    root = tmp_path_factory.mktemp("node-cluster") / "lab"
    with Cluster.embedded(root) as one:
        yield one
    assert processes_with(str(root)) == [], "the shared cluster left processes behind"


_numbers = itertools.count(1)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Names that no other test of this session uses: the shared clusters keep objects."""
    return lambda prefix: f"{prefix}-{next(_numbers)}"
