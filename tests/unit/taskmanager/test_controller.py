"""The queue of keys: nothing twice at once, nothing forgotten, four outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from cloudhub.taskmanager.controller import DONE, Again, Controller, Result, Retry, Terminal
from tests.integration.taskmanager.world import FakeClock


class Handler:
    def __init__(self, *results: Result | Exception) -> None:
        self.results = list(results)
        self.calls: list[str] = []
        self.at_work: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key: str) -> Result:
        assert key not in self.at_work
        self.calls.append(key)
        self.at_work.add(key)
        try:
            await self.gate.wait()
            result = self.results.pop(0) if self.results else DONE
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            self.at_work.discard(key)


@asynccontextmanager
async def _running(
    handle: Callable[[str], Awaitable[Result]], clock: FakeClock, *, workers: int = 4
) -> AsyncIterator[Controller]:
    controller = Controller(name="test", handle=handle, clock=clock, workers=workers)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_a_key_that_waits_is_not_put_twice() -> None:
    handler = Handler()
    async with _running(handler, FakeClock()) as controller:
        for _ in range(5):
            controller.add("a")
        controller.add("b")
        await _turns()
    assert sorted(handler.calls) == ["a", "b"]


async def test_what_is_urgent_comes_first_and_once() -> None:
    handler = Handler()
    handler.gate.clear()
    async with _running(handler, FakeClock(), workers=1) as controller:
        for key in ("a", "b", "c", "d"):
            controller.add(key)
        await _turns()
        # It waits already, behind others; and one that is handled now is wanted once more.
        controller.add("d", urgent=True)
        controller.add("a", urgent=True)
        controller.add("e")
        handler.gate.set()
        await _turns()
    assert handler.calls == ["a", "d", "a", "b", "c", "e"]


async def test_an_event_while_a_key_is_handled_makes_it_be_handled_again_after() -> None:
    handler = Handler()
    handler.gate.clear()
    async with _running(handler, FakeClock()) as controller:
        controller.add("a")
        await _turns()
        controller.add("a")
        controller.add("a")
        controller.add("b")
        await _turns()
        assert handler.calls == ["a", "b"]
        handler.gate.set()
        await _turns()
    assert handler.calls == ["a", "b", "a"]


async def test_again_is_after_that_time_and_not_before() -> None:
    clock, handler = FakeClock(), Handler(Again(5.0))
    async with _running(handler, clock) as controller:
        controller.add("a")
        await _turns()
        clock.advance(4.9)
        await _turns()
        assert handler.calls == ["a"]
        clock.advance(0.2)
        await _turns()
        assert handler.calls == ["a", "a"]
        clock.advance(1000)
        await _turns()
    assert handler.calls == ["a", "a"]


async def test_an_event_makes_a_key_be_handled_before_its_time_and_only_then() -> None:
    clock, handler = FakeClock(), Handler(Again(5.0))
    async with _running(handler, clock) as controller:
        controller.add("a")
        await _turns()
        controller.add("a")
        await _turns()
        assert handler.calls == ["a", "a"]
        clock.advance(6)
        await _turns()
    assert handler.calls == ["a", "a"]


async def test_the_sooner_of_two_times_holds() -> None:
    clock, handler = FakeClock(), Handler()
    async with _running(handler, clock) as controller:
        controller.add("a", after=50)
        await _turns()
        controller.add("a", after=5)
        controller.add("a", after=20)
        await _turns()
        clock.advance(6)
        await _turns()
        assert handler.calls == ["a"]
        clock.advance(100)
        await _turns()
    assert handler.calls == ["a"]


async def test_retries_come_later_and_later_up_to_a_limit_and_do_not_end() -> None:
    clock, handler = FakeClock(), Handler(*[Retry("away")] * 12)
    waits: list[float] = []
    async with _running(handler, clock) as controller:
        controller.add("a")
        await _turns()
        for count in range(2, 14):
            begun = clock.time()
            while len(handler.calls) < count:
                clock.advance(0.05)
                await _turns()
            waits.append(clock.time() - begun)
    assert waits[0] <= 0.6
    assert waits[0] < waits[3] < waits[5]
    assert all(4.9 <= wait <= 10.1 for wait in waits[6:])


async def test_success_makes_the_next_failure_the_first() -> None:
    clock, handler = FakeClock(), Handler(*[Retry("away")] * 8, DONE, Retry("away"))
    async with _running(handler, clock) as controller:
        controller.add("a")
        while len(handler.calls) < 9:
            clock.advance(1)
            await _turns()
        controller.add("a")
        await _turns()
        clock.advance(0.6)
        await _turns()
        assert len(handler.calls) == 11


async def test_what_the_handler_raises_is_tried_again_and_kills_nobody() -> None:
    clock, handler = FakeClock(), Handler(RuntimeError("a defect"))
    async with _running(handler, clock) as controller:
        controller.add("a")
        await _turns()
        controller.add("b")
        await _turns()
        clock.advance(1)
        await _turns()
    assert handler.calls == ["a", "b", "a"]


async def test_what_is_terminal_is_not_tried_again() -> None:
    clock, handler = FakeClock(), Handler(Terminal("never"))
    async with _running(handler, clock) as controller:
        controller.add("a")
        await _turns()
        clock.advance(1000)
        await _turns()
    assert handler.calls == ["a"]


async def test_a_slow_key_does_not_hold_up_the_others() -> None:
    handler = Handler()
    handler.gate.clear()
    async with _running(handler, FakeClock()) as controller:
        for key in "abcd":
            controller.add(key)
        await _turns()
        assert handler.calls == ["a", "b", "c", "d"]
        handler.gate.set()
