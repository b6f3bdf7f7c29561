"""Answers that stand for a while: made once for all who ask, never kept when they failed."""

import asyncio

import pytest

from services.api.short_cache import ShortCache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_stands_for_its_time_and_is_then_made_anew() -> None:
    clock, made = Clock(), 0
    cache = ShortCache[int](2.0, now=clock)

    async def make() -> int:
        nonlocal made
        made += 1
        return made

    assert [await cache.get("a", make), await cache.get("a", make)] == [1, 1]
    clock.now += 1.9
    assert await cache.get("a", make) == 1
    clock.now += 0.2
    assert await cache.get("a", make) == 2
    assert await cache.get("b", make) == 3


async def test_all_who_ask_at_once_wait_for_one_answer() -> None:
    made, go = 0, asyncio.Event()
    cache = ShortCache[int](2.0)

    async def make() -> int:
        nonlocal made
        made += 1
        await go.wait()
        return made

    waiting = [asyncio.ensure_future(cache.get("a", make)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # one who goes away does not take it from the others
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*waiting[1:]) == [1, 1, 1, 1]


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    cache = ShortCache[int](2.0)

    async def fail() -> int:
        raise ValueError("no")

    async def make() -> int:
        return 7

    for found in await asyncio.gather(cache.get("a", fail), cache.get("a", fail), return_exceptions=True):
        assert isinstance(found, ValueError)
    with pytest.raises(ValueError, match="no"):
        await cache.get("a", fail)
    assert await cache.get("a", make) == 7


async def test_what_was_dear_stands_longer() -> None:
    clock = Clock()
    cache = ShortCache[float](2.0, now=clock)

    async def make() -> float:
        clock.now += 3.0
        return clock.now

    first = await cache.get("a", make)
    clock.now += 11.0
    assert await cache.get("a", make) == first
    clock.now += 1.5
    assert await cache.get("a", make) > first


async def test_only_so_many_answers_are_kept() -> None:
    cache = ShortCache[int](1000.0, keys_max=3)
    made: list[int] = []

    async def make() -> int:
        made.append(len(made))
        return len(made)

    for key in range(5):
        await cache.get(key, make)
    await cache.get(4, make)
    assert len(made) == 5
    await cache.get(0, make)
    assert len(made) == 6
