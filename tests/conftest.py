"""What every test shares: a private cache for cheap things, the real one for heavy builds, leftovers noticed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell that starts this in the background has its children ignore Ctrl-C, and theirs: no test of it could pass.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.plugins.cluster"] if (ROOT / "tests/plugins/cluster.py").exists() else []


# Tests that make the machine's own things (mounts, bridges, cgroups): one process runs them all, one after the other.
_SYSTEM = ("shim", "containerd", "notebooks/test_lab.py")
_LONG = ("integration", "notebooks", "ui", "docs")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, so that its fixtures are made once, and those of path 2 in one process.

    The longest go first: they would otherwise be waited for at the end, by one process alone.
    """
    groups = {}
    for item in items:
        path = item.path.relative_to(ROOT / "tests")
        groups[item] = "system" if any(word in str(path) for word in _SYSTEM) else str(path)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: (groups[item] != "system", item.path.parent.name not in _LONG))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Where the guests built for tests are."""
    return ROOT / "data" / "wasm" / "fixtures"
