"""A queue of keys and the workers that bring each key's thing to where it should be.

The problem: events come in bursts, and an event says less than a look at the thing itself. So an event only puts a
key here; a key that waits already is not put twice; the handler reads everything anew and may be called any number of
times. What it returns is one of four outcomes, dealt with in this one place:

- `DONE`: until the next event;
- `Again`: once more after so many seconds, if no event comes before;
- `Retry`: something is away; once more with exponential backoff and jitter, without end;
- `Terminal`: logged; trying again would change nothing.

Guarantees: one key is never handled by two workers at once; an event that comes while its key is handled makes it be
handled again; an exception of the handler is logged and is a `Retry`.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from cloudhub.taskmanager.clock import Clock

_log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 10.0
"""The longest wait after the API server is back; more workers than keys make it no gentler."""


@dataclass(frozen=True, slots=True)
class Done:
    pass


@dataclass(frozen=True, slots=True)
class Again:
    seconds: float


@dataclass(frozen=True, slots=True)
class Retry:
    reason: str


@dataclass(frozen=True, slots=True)
class Terminal:
    reason: str


Result = Done | Again | Retry | Terminal
DONE: Final = Done()


class Controller:
    def __init__(
        self, *, name: str, handle: Callable[[str], Awaitable[Result]], clock: Clock, workers: int = 4
    ) -> None:
        self._name = name
        self._handle = handle
        self._clock = clock
        self._workers = workers
        self._ready: deque[str] = deque()
        self._urgent: deque[str] = deque()
        self._waiting: dict[str, bool] = {}
        """Keys that are to be handled, and whether first; another key in one of the queues is void."""
        self._working: set[str] = set()
        self._dirty: dict[str, bool] = {}
        """Keys that were added while they were worked on, and whether they are urgent."""
        self._arrived = asyncio.Event()
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        """When a key of ``_later`` is due; an entry of the heap that says otherwise is void."""
        self._sooner = asyncio.Event()
        self._failures: dict[str, int] = {}

    def add(self, key: str, *, after: float = 0.0, urgent: bool = False) -> None:
        """Have the key handled, at the latest in ``after`` seconds; before those that are not urgent, if it is."""
        if after > 0:
            self._postpone(key, self._clock.time() + after)
            return
        self._due.pop(key, None)
        if key in self._working:
            self._dirty[key] = urgent or self._dirty.get(key, False)
        elif key not in self._waiting or (urgent and not self._waiting[key]):
            self._waiting[key] = urgent
            (self._urgent if urgent else self._ready).append(key)
            self._arrived.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self._name}-{number}")
            group.create_task(self._watch_time(), name=f"{self._name}-later")

    def _postpone(self, key: str, due: float) -> None:
        if key in self._waiting or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._sooner.set()

    async def _watch_time(self) -> None:
        """Moves keys from later to now."""
        while True:
            self._sooner.clear()
            now = self._clock.time()
            while self._later and self._later[0][0] <= now:
                due, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    self.add(key)
            await self._until(self._later[0][0] - now if self._later else None)

    async def _until(self, seconds: float | None) -> None:
        """Until then, or until something is due sooner."""
        if seconds is None:
            await self._sooner.wait()
            return
        waiters = asyncio.ensure_future(self._sooner.wait()), asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            while (key := self._next()) is None:
                self._arrived.clear()
                await self._arrived.wait()
            del self._waiting[key]
            self._working.add(key)
            try:
                result = await self._result(key)
            finally:
                self._working.discard(key)
            self._settle(key, result)
            if key in self._dirty:
                self.add(key, urgent=self._dirty.pop(key))

    def _next(self) -> str | None:
        for queue in (self._urgent, self._ready):
            while queue:
                key = queue.popleft()
                if key in self._waiting:
                    return key
        return None

    async def _result(self, key: str) -> Result:
        try:
            return await self._handle(key)
        except Exception as error:
            _log.exception("a key could not be handled", controller=self._name, key=key)
            return Retry(type(error).__name__)

    def _settle(self, key: str, result: Result) -> None:
        match result:
            case Retry(reason):
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 16))
                delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
                _log.warning("will try again", controller=self._name, key=key, reason=reason, seconds=round(delay, 1))
                self.add(key, after=delay)
                return
            case Again(seconds):
                self.add(key, after=seconds)
            case Terminal(reason):
                _log.error("given up", controller=self._name, key=key, reason=reason)
        self._failures.pop(key, None)
