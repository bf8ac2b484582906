"""metav1.Time, to and from unix seconds: pure."""

from __future__ import annotations

import functools
from datetime import UTC, datetime


def rfc3339(unix_s: float) -> str:
    """A metav1.Time: UTC, whole seconds."""
    return _rfc3339(int(unix_s))


# A status says the same few seconds a dozen times.
@functools.lru_cache(maxsize=64)
def _rfc3339(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time as the API server writes it (any number of decimals)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
