"""A grace period that can be shortened, and only shortened."""

from __future__ import annotations

import asyncio

import pytest

from wasmlab.node.containers.grace import Grace


async def test_it_ends_what_takes_longer() -> None:
    grace = Grace(0.05)
    with pytest.raises(TimeoutError):
        async with grace.limit():
            await asyncio.sleep(30)
    assert grace.left_s == 0.0


async def test_who_waits_hears_that_it_is_shortened() -> None:
    grace = Grace(600)
    asyncio.get_running_loop().call_later(0.02, grace.shorten, 0.02)
    async with asyncio.timeout(30):
        with pytest.raises(TimeoutError):
            async with grace.limit():
                await asyncio.sleep(300)


async def test_it_is_never_lengthened() -> None:
    grace = Grace(0.05)
    grace.shorten(600)
    assert grace.left_s <= 0.05


async def test_a_least_period_is_kept_whatever_is_shortened() -> None:
    grace = Grace(600)
    async with grace.limit(least_s=30):
        grace.shorten(0)
        await asyncio.sleep(0.01)  # would be cut off if the least period were not kept
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30), grace.limit(least_s=0.01):
            await asyncio.sleep(300)


async def test_one_can_govern_another() -> None:
    outer, inner = Grace(500), Grace(600)
    outer.govern(inner)
    assert inner.left_s <= 500
    outer.shorten(1)
    assert inner.left_s <= 1
    outer.govern(outer)  # of itself it knows
    outer.shorten(0.5)
    assert outer.left_s <= 0.5
