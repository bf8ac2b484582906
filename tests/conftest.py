"""What every test shares: a private cache for cheap things, the real one for heavy builds, leftovers noticed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

# A shell that starts this in the background has its children ignore Ctrl-C, and theirs: no test of it could pass.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.plugins.cluster"] if (ROOT / "tests/plugins/cluster.py").exists() else []


# Tests that make the machine's own things (mounts, bridges, cgroups): one process runs them all, one after the other.
_SYSTEM = ("shim", "containerd", "notebooks/test_lab.py")
_LONG = ("integration", "notebooks", "ui", "docs")
_INTEGRATION_S = 300


def _group(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return "system" if any(word in path for word in _SYSTEM) else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests go first: they would otherwise be waited for at the end, by one process alone."""
    items.sort(key=lambda item: (_group(item.nodeid) != "system", item.path.parent.name not in _LONG))
    for item in items:
        # The first of them starts a cluster, and each waits with deadlines of its own: this is a net below them.
        if item.get_closest_marker("integration") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_INTEGRATION_S))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, so that its fixtures are made once, and those of path 2 in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Where the guests built for tests are."""
    return ROOT / "data" / "wasm" / "fixtures"
