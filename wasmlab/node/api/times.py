"""metav1.Time, to and from unix seconds: pure."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(unix_s: float) -> str:
    """A metav1.Time: UTC, whole seconds."""
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time as the API server writes it (any number of decimals)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
