from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.node.api.quantity import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64Mi", 64 << 20),
        ("1Gi", 1 << 30),
        ("1G", 10**9),
        ("100k", 100_000),
        ("1.5Ki", 1536),
        ("500m", 1),  # rounded up
        ("1e3", 1000),
        ("12E2", 1200),
        ("2E", 2 * 10**18),
        (1024, 1024),
        (".5Gi", 1 << 29),
    ],
)
def test_forms(text: str | int, value: int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "64MiB", "64mi", "1,5G", "0x10", "1e", "ten"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse(text)


@given(st.integers(min_value=0, max_value=2**60), st.sampled_from(["", "Ki", "Mi"]))
def test_integers_are_exact(number: int, suffix: str) -> None:
    assert parse(f"{number}{suffix}") == number * {"": 1, "Ki": 2**10, "Mi": 2**20}[suffix]
