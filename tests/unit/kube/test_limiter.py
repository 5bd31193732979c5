from __future__ import annotations

import asyncio

import pytest

from cloudhub.kube.limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))


def limiter(clock: Clock, *, qps: float = 10, burst: int = 2) -> RateLimiter:
    return RateLimiter(qps=qps, burst=burst, clock=lambda: clock.now, sleep=clock.sleep)


async def test_a_burst_passes_at_once_and_the_rest_in_turn() -> None:
    clock = Clock()
    limit = limiter(clock)
    for _ in range(5):
        await limit.acquire()
    assert clock.slept == [0.1, 0.2, 0.3]


async def test_time_gives_back_what_was_used_up_to_the_burst() -> None:
    clock = Clock()
    limit = limiter(clock)
    for _ in range(2):
        await limit.acquire()
    clock.now = 100.0
    for _ in range(3):
        await limit.acquire()
    assert clock.slept == [0.1]


async def test_a_place_that_is_given_up_goes_to_the_next() -> None:
    clock = Clock()

    async def cancelled(_: float) -> None:
        raise asyncio.CancelledError

    limit = RateLimiter(qps=10, burst=1, clock=lambda: clock.now, sleep=cancelled)
    await limit.acquire()
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await limit.acquire()
    clock.now = 0.1
    await limit.acquire()
