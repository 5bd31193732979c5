"""One connection to a database, and the one thread that uses it.

The problem: a driver that is asked for each statement from the event loop crosses between two threads some four times a
statement, and each crossing waits for the interpreter's lock; under load that took longer than the database, and the
loop had the work between the statements besides. So a whole transaction, with all that is decided in it, is one visit
to this thread.

Guarantees: visits happen one after the other, in the order in which they were asked for; a visit that was begun is
ended also when whoever waits for it is cancelled; after `discard` the next visit has a new connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

Result = TypeVar("Result")


class ConnectionThread:
    """``engine``'s connections are used in this thread alone. To be ended with `close`."""

    def __init__(self, engine: Engine, *, name: str) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: Connection | None = None

    async def transaction(self, work: Callable[[Connection], Result]) -> Result:
        """What ``work`` gives, once it is committed. Raises what it raised, or what the database did."""
        return await self._visit(lambda: self._transaction(work))

    async def discard(self) -> None:
        """Throws the connection away: after an error nothing is known about it. Raises what closing it raises; it is
        gone all the same."""
        await self._visit(self._discard)

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        try:
            await self._visit(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def _visit(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _transaction(self, work: Callable[[Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            return work(self._connection)

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._engine.dispose()
