"""A process of parts: each started and stopped in order, root tasks that live and die together, an end by signal.

SIGTERM and SIGINT end it in order; what has not ended after `STOP_SECONDS` is named in the log and left behind, since
an orchestrator would kill it anyway: everything that counts is committed before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog

log = structlog.get_logger(__name__)

STOP_SECONDS: Final = 9.0
"""KubeEdge's operators, systemd and Kubernetes all wait longer; nobody should have to."""


class Startable(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@contextlib.asynccontextmanager
async def started(part: Startable) -> AsyncIterator[None]:
    await part.start()
    try:
        yield
    finally:
        await part.stop()


class Roots:
    """Tasks that live as long as the block. One that ends in an error ends the block with it."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(work, name=name))

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await self._group.__aexit__(kind, error, trace)


class Told:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._owner = asyncio.current_task()
        self._waiting = False
        self.interrupted = False
        """The start was cancelled."""

    def tell(self) -> None:
        """Ends `wait`; before it came to that, cancels the start: it may be waiting for something that never comes."""
        if not self._event.is_set():
            self._event.set()
            if not self._waiting and self._owner is not None:
                self.interrupted = self._owner.cancel()

    async def wait(self) -> None:
        self._waiting = True
        await self._event.wait()


@contextlib.asynccontextmanager
async def process() -> AsyncIterator[Told]:
    """From being told to stop on, the block has `STOP_SECONDS` to end."""
    told = Told()
    loop = asyncio.get_running_loop()
    deadlines: list[asyncio.TimerHandle] = []

    def stop(name: str) -> None:
        if not deadlines:
            log.info("stopping", signal=name)
            deadlines.append(loop.call_later(STOP_SECONDS, _give_up))
        told.tell()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield told
    except asyncio.CancelledError:
        owner = asyncio.current_task()
        if not told.interrupted or owner is None or owner.uncancel():
            raise
    finally:
        for deadline in deadlines:
            deadline.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    log.info("stopped")


def _give_up() -> None:
    still = sorted(task.get_name() for task in asyncio.all_tasks())
    log.error("not stopped in time", seconds=STOP_SECONDS, tasks=still)
    os._exit(1)
