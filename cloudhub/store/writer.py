"""The one writer of a database: what arrives within a few milliseconds shares one transaction.

The problem: a commit that lasts costs a disk flush; ten thousand nodes that report in one second cannot each have
one. So whoever wants to write submits an item and waits; the writer takes all that has arrived, performs it in one
transaction and wakes every waiter when that is on the disk, or tells every one that it is not.

Guarantees: items are performed in the order of their submission; `submit` returns only after the commit; an item whose
performance raises spoils no other (the batch is rolled back and tried again one by one); cancelling a waiter does not
undo what it submitted; ``committed`` is told of each transaction, in their order, before any of its waiters goes on.

When the database cannot be written (disk full, read-only, I/O error), all waiters get `StoreUnavailable`, and so does
everyone who submits after; `problem` says why. The writer then tries by itself, with a transaction that needs space and
leaves nothing, until it succeeds. A disk without room counts as one that cannot be written, and is noticed within
`PROBE_SECONDS` also when nothing is to be written.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from cloudhub.store.errors import StoreClosed, StoreUnavailable, words_of
from cloudhub.store.thread import ConnectionThread

_log = structlog.get_logger(__name__)

GROUP_SECONDS: Final = 0.002
"""How long the first item of a batch waits for others. Far below what a flush takes on most disks."""
MAX_BATCH: Final = 1000
"""Weight of one transaction. It bounds how long the others wait for it."""
PROBE_SECONDS: Final = 1.0
_UNUSABLE: Final = "the store cannot be used"

_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)

Item = TypeVar("Item")
Result = TypeVar("Result")
Summary = TypeVar("Summary")

Perform = Callable[[Connection, Sequence[Item]], tuple[Sequence[Result], Summary]]
"""Does the items in a transaction that is begun and ended around it; gives a result for each, and what it did in all.
Called again with the same items when it, or another item of its batch, raised. It runs in the writer's thread, so it
may touch nothing that the event loop changes."""


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    weight: int
    done: asyncio.Future[Result]


class Writer(Generic[Item, Result, Summary]):
    def __init__(
        self,
        *,
        thread: ConnectionThread,
        perform: Perform[Item, Result, Summary],
        committed: Callable[[Summary], None],
        observe: Callable[[float], None] = lambda seconds: None,
        lack_of_room: Callable[[], str | None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        group_seconds: float = GROUP_SECONDS,
    ) -> None:
        self._thread = thread
        self._perform = perform
        self._committed = committed
        self._observe = observe
        self._lack_of_room = lack_of_room
        self._looked = float("-inf")
        """When `_lack_of_room` was asked last."""
        self._sleep = sleep
        self._group_seconds = group_seconds
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._working = asyncio.Event()
        self._working.set()
        self._recovered = asyncio.Event()
        self._problem: str | None = None
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="store-writer")

    def problem(self) -> str | None:
        """Why nothing can be written now."""
        return self._problem

    async def working(self) -> None:
        """Returns when the database can be written, as far as is known; never once it is closed."""
        await self._working.wait()

    async def recovered(self) -> None:
        """Returns when the database can be written again after it could not; for one caller. A transaction that failed
        may be on the disk all the same, and nobody was told of it: look at what is stored."""
        await self._recovered.wait()
        self._recovered.clear()

    async def submit(self, item: Item, *, weight: int = 1) -> Result:
        """The item's result, once it is on the disk. Raises `StoreUnavailable`, or what performing it raised."""
        if self._ending.is_set():
            raise StoreClosed("the store is closed")
        if self._problem is not None:
            raise StoreUnavailable(self._problem)
        # Not `_Waiting[Item, Result](...)`, which takes ten times as long.
        waiting: _Waiting[Item, Result] = _Waiting(item, weight, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def died(self) -> None:
        """Returns when the writer has ended; raises what it died of."""
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    async def close(self) -> None:
        """Writes what was submitted, then ends."""
        self._ending.set()
        self._working.clear()
        self._arrived.set()
        await self.died()

    async def _run(self) -> None:
        try:
            while await self._next():
                if (lack := self._look_at_room()) is not None:
                    await self._give_up_until_recovered(StoreUnavailable(f"{_UNUSABLE}: {lack}"))
                await self._commit(self._take())
        except Exception as error:
            # A defect. Nobody may go on as if there were a store.
            self._problem = f"the store's writer has died of {type(error).__name__}"
            self._working.clear()
            raise
        finally:
            try:
                if self._problem is not None:
                    await self._disconnect()
                await self._thread.close()
            finally:
                self._give_up(StoreClosed("the store is closed"))

    async def _next(self) -> bool:
        """Waits for work. False when there is none and there will be none."""
        if not self._queue:
            if self._ending.is_set():
                return False
            self._arrived.clear()
            if not await self._arrival():
                return True  # to look at the disk
            if not self._ending.is_set():
                await asyncio.sleep(self._group_seconds)
        return bool(self._queue) or not self._ending.is_set()

    async def _arrival(self) -> bool:
        """False when nothing came for as long as a full disk may go unnoticed."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def _look_at_room(self) -> str | None:
        """Not before every batch: thousands a second would each ask the kernel."""
        now = time.monotonic()
        if now - self._looked < PROBE_SECONDS / 2:
            return None
        self._looked = now
        return self._lack_of_room()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= MAX_BATCH):
            batch.append(self._queue.popleft())
            weight += batch[-1].weight
        return batch

    async def _commit(self, batch: list[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        try:
            results, summary = await self._transaction([waiting.item for waiting in batch])
        except StoreUnavailable as error:
            self._queue.extendleft(reversed(batch))
            await self._give_up_until_recovered(error)
        except Exception as error:
            if len(batch) == 1:
                _refuse(batch[0], error)
                return
            kind = type(error).__name__
            _log.warning("an item spoiled its batch; trying each alone", items=len(batch), error=kind)
            for waiting in batch:
                await self._commit([waiting])
        else:
            try:
                self._committed(summary)
            except BaseException:
                self._queue.extendleft(reversed(batch))
                raise
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(result)

    async def _transaction(self, items: Sequence[Item]) -> tuple[Sequence[Result], Summary]:
        if self._problem is not None:
            raise StoreUnavailable(self._problem)
        begun = time.perf_counter()
        try:
            done = await self._thread.transaction(lambda connection: self._perform(connection, items))
        except (DBAPIError, OSError) as error:
            if not is_unavailability(error):
                raise
            await self._disconnect()
            raise StoreUnavailable(reason_of(error)) from error
        self._observe(time.perf_counter() - begun)
        return done

    async def _give_up_until_recovered(self, error: StoreUnavailable) -> None:
        self._give_up(error)
        await self._recover(str(error))

    async def _recover(self, why: str) -> None:
        self._problem = why
        self._working.clear()
        _log.error("the store cannot be written", reason=why)
        while await self._pause():
            if (lack := self._lack_of_room()) is not None:
                self._problem = f"{_UNUSABLE}: {lack}"
                continue
            try:
                await self._thread.transaction(probe)
            except (DBAPIError, OSError) as error:
                await self._disconnect()
                self._problem = reason_of(error)
            else:
                self._problem = None
                self._working.set()
                self._recovered.set()
                _log.info("the store can be written again")
                return

    async def _pause(self) -> bool:
        """Until the next probe. False when there is to be none: never cancelled within one, a connection would be left
        behind."""
        waiters = asyncio.ensure_future(self._sleep(PROBE_SECONDS)), asyncio.ensure_future(self._ending.wait())
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        return not self._ending.is_set()

    def _give_up(self, error: StoreUnavailable) -> None:
        while self._queue:
            _refuse(self._queue.popleft(), error)

    async def _disconnect(self) -> None:
        """After an error nothing is known about the connection; the next one is a new one."""
        try:
            await self._thread.discard()
        except (DBAPIError, OSError) as error:
            _log.warning("a connection to the store could not be closed", reason=reason_of(error))


def _refuse(waiting: _Waiting[Item, Result], error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def probe(connection: Connection) -> None:
    """A transaction that must find space for what it writes, and leaves nothing."""
    connection.execute(text("CREATE TABLE probe AS SELECT zeroblob(65536) AS block"))
    connection.execute(text("DROP TABLE probe"))


def is_unavailability(error: Exception) -> bool:
    """Nobody's statement is at fault: the disk, the file or the connection is, and it may be well again later."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, sqlite3.Error):
        return isinstance(cause, OSError)
    code = getattr(cause, "sqlite_errorcode", None)
    # The extended codes have the primary one in their lowest byte. No code: the driver's connection is gone.
    return code is None or (code & 0xFF) in _UNAVAILABLE


def reason_of(error: Exception) -> str:
    """In the driver's words; SQLAlchemy's own text would repeat the statement and its values."""
    return f"{_UNUSABLE}: {words_of(error)}"
