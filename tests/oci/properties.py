"""Hypothesis settings for a machine that is busy with other things: no per-example deadline, modest counts."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

relaxed = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow], database=None
)
