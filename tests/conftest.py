"""What every test shares: a private cache for cheap things, the real one for heavy builds, leftovers noticed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell that starts this in the background has its children ignore Ctrl-C, and theirs: no test of it could pass.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.plugins.cluster"] if (ROOT / "tests/plugins/cluster.py").exists() else []


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Where the guests built for tests are."""
    return ROOT / "data" / "wasm" / "fixtures"
