"""How far the tasks at work are, told to a hub that wants to know.

Problem: a pull over a thin line takes an hour, and an operator wants to see it move. What is told so must cost nobody
anything: not the line that carries the image, nor the hub, nor the report that says how it ended.

Guarantee: only to a hub that announced the feature, so never to a CloudCore. Of one task at most one message in
``interval`` seconds, none in the first, none that says what the last one said; a task that is done sooner tells
nothing. A message that the link cannot take at once is dropped, and so is one that could not be sent: what is true a
moment later takes its place. Nothing is kept on the disk. An agent without work has no timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from edgehub.link.connection import Channel
from edgehub.link.errors import NotConnected
from edgehub.tasks.live import ImageState, LiveTask, Phase
from shared.wire import MAX_AMOUNT, Feature, Group, Operation, Progress, Source, new_message

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at tasks that have moved."""


@dataclass(slots=True)
class _Told:
    at: float
    what: Progress | None = None


class ProgressReporter:
    """``live`` gives the tasks at work. ``interval`` 0: nothing is told."""

    def __init__(
        self,
        *,
        live: Callable[[], Iterable[LiveTask]],
        interval: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._interval = interval
        self._sleep = sleep
        self._monotonic = monotonic
        self._channel: Channel | None = None
        self._told: dict[LiveTask, _Told] = {}
        self._moved = asyncio.Event()

    def changed(self) -> None:
        """A task may have moved, or ended."""
        self._moved.set()

    def connected(self, channel: Channel) -> None:
        self._channel = channel if Feature.PROGRESS in channel.features and self._interval > 0 else None
        for told in self._told.values():
            told.what = None  # the hub may be another, or have forgotten it
        self._moved.set()

    def disconnected(self) -> None:
        self._channel = None

    async def run(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self.look()
            await self._sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Tells what is to be told now."""
        channel, now = self._channel, self._monotonic()
        tasks = [live for live in self._live() if live.phase is Phase.PULLING and live.task.tracked]
        self._told = {live: self._told.get(live) or _Told(now) for live in tasks}
        if channel is None:
            return
        for live, told in self._told.items():
            what = progress_of(live)
            if what == told.what:
                continue
            if now - told.at < self._interval or not await self._tell(channel, live, what):
                self._moved.set()  # its time comes, or there is room, without anything else happening
                continue
            told.at, told.what = now, what

    async def _tell(self, channel: Channel, live: LiveTask, what: Progress) -> bool:
        message = new_message(
            source=Source.WEBSOCKET,
            group=Group.HUB,
            resource=live.task.resource,
            operation=Operation.PROGRESS,
            content=what.model_dump(),
        )
        try:
            return await channel.offer(message)
        except NotConnected:
            return True  # lost with its session; the next one begins anew


def progress_of(live: LiveTask) -> Progress:
    images = live.images.values()
    known = all(image.total_bytes for image in images)
    done = sum(image.done_bytes for image in images)
    return Progress(
        job_uid=live.task.job_uid,
        attempt=live.task.attempt,
        done_images=sum(image.state is ImageState.SUCCESSFUL for image in images),
        total_images=len(live.images),
        done_bytes=min(done, MAX_AMOUNT),
        total_bytes=min(max(done, sum(image.total_bytes for image in images)), MAX_AMOUNT) if known else 0,
    )
