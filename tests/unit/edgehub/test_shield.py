"""What must be finished is finished, and the cancellation is not lost over it."""

from __future__ import annotations

import asyncio

import pytest

from edgehub.tasks.shield import to_the_end


async def test_work_ends_although_its_caller_is_cancelled_and_the_cancellation_comes_after() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(to_the_end(work(), name="commit"))
    await begun.wait()
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_without_a_cancellation_it_is_just_awaited() -> None:
    async def work() -> int:
        return 5

    assert await to_the_end(work(), name="commit") == 5
