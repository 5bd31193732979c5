"""What is told of a task's progress, when, and to whom. The clock is the test's."""

from __future__ import annotations

import asyncio

import pytest

from edgehub.tasks.live import ImageState, LiveTask, Phase
from edgehub.tasks.progress import ProgressReporter, progress_of
from shared.wire import MAX_AMOUNT, Feature, Progress, task_resource
from tests.unit.edgehub.scripted import NODE, RecordingChannel, task

INTERVAL = 5.0


def live_task(*images: str, uid: str | None = "uid-1") -> LiveTask:
    live = LiveTask(task=task(*images, uid=uid), deadline=1000.0)
    live.phase = Phase.PULLING
    return live


def pulled(live: LiveTask, image: str, done: int, total: int) -> None:
    progress = live.images[image]
    progress.done_bytes, progress.total_bytes = done, total


class Bench:
    def __init__(self, *lives: LiveTask, interval: float = INTERVAL) -> None:
        self.now = 100.0
        self.lives = list(lives)
        self.reporter = ProgressReporter(
            live=lambda: self.lives, interval=interval, monotonic=lambda: self.now, sleep=self._sleep
        )
        self.channel = RecordingChannel(*Feature)
        self.reporter.connected(self.channel)

    async def _sleep(self, _seconds: float) -> None:
        self.now += 1
        await asyncio.sleep(0)

    async def after(self, seconds: float) -> list[dict[str, object]]:
        """What has been told in all, when so much time has passed and was looked at each second."""
        for _ in range(int(seconds)):
            await self.reporter.look()
            self.now += 1
        await self.reporter.look()
        return self.told

    @property
    def told(self) -> list[dict[str, object]]:
        return [message.content for message in self.channel.sent]


async def test_a_task_that_takes_long_is_told_of_at_most_once_an_interval() -> None:
    live = live_task("a")
    bench = Bench(live)
    for second in range(21):
        pulled(live, "a", 10 * second, 1000)
        await bench.after(1)
    assert [told["done_bytes"] for told in bench.told] == [40, 90, 140, 190]
    (message, *_) = bench.channel.sent
    assert message.route.model_dump() == {
        "source": "websocket",
        "destination": "",
        "group": "hub",
        "operation": "Progress",
        "resource": task_resource("job", NODE),
    }
    assert message.content == {
        "job_uid": "uid-1",
        "attempt": 1,
        "done_images": 0,
        "total_images": 1,
        "done_bytes": 40,
        "total_bytes": 1000,
    }


async def test_a_task_that_is_done_within_the_interval_tells_nothing() -> None:
    live = live_task("a")
    bench = Bench(live)
    pulled(live, "a", 10, 1000)
    assert await bench.after(INTERVAL - 1) == []
    bench.lives.clear()
    assert await bench.after(60) == []


async def test_what_did_not_change_is_not_said_again() -> None:
    live = live_task("a")
    bench = Bench(live)
    pulled(live, "a", 10, 1000)
    assert len(await bench.after(60)) == 1
    pulled(live, "a", 11, 1000)
    assert len(await bench.after(60)) == 2


async def test_a_busy_link_gets_the_newest_when_it_has_room_and_nothing_of_before() -> None:
    live = live_task("a")
    bench = Bench(live)
    bench.channel.busy = True
    pulled(live, "a", 10, 1000)
    assert await bench.after(30) == []
    pulled(live, "a", 20, 1000)
    bench.channel.busy = False
    assert [told["done_bytes"] for told in await bench.after(30)] == [20]


@pytest.mark.parametrize("missing", [Feature.PROGRESS, None])
async def test_a_hub_that_did_not_ask_for_it_is_told_nothing(missing: Feature | None) -> None:
    live = live_task("a")
    bench = Bench(live)
    bench.channel = RecordingChannel(*(feature for feature in Feature if missing and feature != missing))
    bench.reporter.connected(bench.channel)
    pulled(live, "a", 10, 1000)
    assert await bench.after(60) == []


async def test_an_interval_of_zero_turns_it_off() -> None:
    live = live_task("a")
    bench = Bench(live, interval=0)
    pulled(live, "a", 10, 1000)
    assert await bench.after(60) == []


async def test_only_pulls_of_a_hub_that_numbers_its_attempts_are_told_of() -> None:
    checking, cloudcores = live_task("a"), live_task("a", uid=None)
    checking.phase = Phase.CHECKING
    bench = Bench(checking, cloudcores)
    for live in bench.lives:
        pulled(live, "a", 10, 1000)
    assert await bench.after(60) == []


async def test_without_a_session_nothing_is_kept_and_the_next_hub_is_told_where_it_stands() -> None:
    live = live_task("a")
    bench = Bench(live)
    pulled(live, "a", 10, 1000)
    await bench.after(10)
    bench.reporter.disconnected()
    pulled(live, "a", 20, 1000)
    assert len(await bench.after(60)) == 1
    bench.reporter.connected(bench.channel)
    assert [told["done_bytes"] for told in await bench.after(1)] == [10, 20]
    bench.channel = RecordingChannel(*Feature)
    bench.reporter.connected(bench.channel)
    assert [told["done_bytes"] for told in await bench.after(10)] == [20]


async def test_a_link_that_breaks_meanwhile_ends_nothing() -> None:
    live = live_task("a")
    bench = Bench(live)
    bench.channel.broken = True
    pulled(live, "a", 10, 1000)
    assert await bench.after(10) == []
    bench.channel = RecordingChannel(*Feature)
    bench.reporter.connected(bench.channel)
    assert len(await bench.after(10)) == 1


async def test_the_loop_looks_when_something_moved_and_sleeps_for_good_when_nothing_does() -> None:
    live = live_task("a")
    bench = Bench(live)
    running = asyncio.create_task(bench.reporter.run())
    pulled(live, "a", 10, 1000)
    bench.reporter.changed()
    async with asyncio.timeout(60):
        await bench.channel.something.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    stood = bench.now
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.now == stood
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(bench.told) == 1


def test_the_total_is_told_once_all_sizes_are_known() -> None:
    live = live_task("a", "b", "c")
    pulled(live, "a", 100, 100)
    live.images["a"].state = ImageState.SUCCESSFUL
    pulled(live, "b", 30, 50)
    assert progress_of(live) == Progress(job_uid="uid-1", attempt=1, done_images=1, total_images=3, done_bytes=130)
    pulled(live, "c", 0, 20)
    assert progress_of(live).total_bytes == 170


def test_numbers_of_a_runtime_that_lies_are_cut() -> None:
    live = live_task("a")
    pulled(live, "a", 1 << 64, 1 << 63)
    assert (progress_of(live).done_bytes, progress_of(live).total_bytes) == (MAX_AMOUNT, MAX_AMOUNT)
    pulled(live, "a", 7, 5)
    assert (progress_of(live).done_bytes, progress_of(live).total_bytes) == (7, 7)
