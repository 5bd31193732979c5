"""The queue of jobs and node tasks: every transition that is stored goes through here.

The problem: a node task must never be lost, done twice or stuck, whatever happens in whatever order, and whenever the
process dies. So the rows are the truth: a change is decided upon the row as it is, within the transaction that writes
it, by the lifecycle's table, and it is written only where the row still has the state that was decided upon. A change
that does not fit is an `Outcome` with a refusal, not an error.

Guarantees: what a coroutine here returns is on the disk; one transaction holds a job with all of its tasks, and a
change with what follows from it for its job (counts, stop, end); changes of many callers share transactions (see
`cloudhub.store.writer`); `on_commit` hears of every commit, in their order, before any waiter of it goes on.

Limits: one process owns the file. Reads see the last commit and may be out of date when they are used; nothing is
decided upon them that a later transaction does not check.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from cloudhub.store import statements as sql
from cloudhub.store import transactions as tx
from cloudhub.store.changes import MAX_REASON
from cloudhub.store.engine import reading_engine, writing_engine
from cloudhub.store.errors import StoreClosed, StoreUnavailable
from cloudhub.store.records import Commit, Entry, Job, LiveTask, NewJob, Outcome, TaskChange
from cloudhub.store.room import lack_of_room
from cloudhub.store.thread import ConnectionThread
from cloudhub.store.writer import MAX_BATCH, Writer, is_unavailability, reason_of
from cloudhub.taskmanager.lifecycle import Tally
from shared.jobs import Action, Event

Found = TypeVar("Found")

READERS: Final = 4
"""Threads that read. A read takes a millisecond or so; more of them would only wait for one another."""


class TaskQueue:
    """Made inside a running event loop; `close` ends it and closes the engine."""

    def __init__(self, *, engine: AsyncEngine, observe_commit: Callable[[float], None] = lambda seconds: None) -> None:
        self._engine = engine
        self.on_commit: Callable[[Commit], None] = lambda commit: None
        self._closed = False
        self._reads: set[asyncio.Task[Any]] = set()
        self._reading = reading_engine(engine, threads=READERS)
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="store-read")
        folder = Path(engine.url.database or "").parent
        self._writer: Writer[tx.Item, Any, Commit] = Writer(
            thread=ConnectionThread(writing_engine(engine), name="store-writer"),
            perform=tx.perform,
            committed=self._committed,
            observe=observe_commit,
            lack_of_room=lambda: lack_of_room(folder),
        )

    async def close(self) -> None:
        """Writes what was asked for, then closes the file."""
        try:
            await self._writer.close()
        finally:
            self._closed = True
            await asyncio.gather(*self._reads, return_exceptions=True)
            self._readers.shutdown(wait=False)
            self._reading.dispose()
            await self._engine.dispose()

    async def died(self) -> None:
        """Never returns while the store works; raises what its writer died of. To be watched by who depends on it."""
        await self._writer.died()

    def problem(self) -> str | None:
        """Why nothing can be written now; None while all is well."""
        return self._writer.problem()

    async def working(self) -> None:
        """Returns when the store can be written."""
        await self._writer.working()

    async def recovered(self) -> None:
        """Returns after each time that the store could not be written. What it answered then is in doubt: a change
        that failed may be stored, and `on_commit` has not heard of it."""
        await self._writer.recovered()

    def _committed(self, commit: Commit) -> None:
        self.on_commit(commit)

    # --- Writes: each raises `StoreUnavailable` when it is not on the disk -----------------------------------------

    async def apply(self, changes: Sequence[TaskChange]) -> list[Outcome]:
        """What became of each change, in their order; a later one sees what an earlier one did."""
        outcomes: list[Outcome] = []
        for start in range(0, len(changes), tx.CHUNK):
            chunk = changes[start : start + tx.CHUNK]
            outcomes += await self._writer.submit(chunk, weight=len(chunk))
        return outcomes

    async def admit(self, job: NewJob) -> Job:
        """The job with its tasks in one transaction; what another job of this name left is removed in it. A job whose
        uid is known is left as it is."""
        found: Job = await self._writer.submit(
            lambda connection, commit: tx.admit(connection, commit, job), weight=1 + len(job.tasks)
        )
        return found

    async def edit(
        self, uid: str, *, generation: int, concurrency: int, failure_tolerate: str, timeout_seconds: int, at: float
    ) -> None:
        """The three settings from now on, for tasks that are under way too: their deadlines move with the timeout. A
        job that has ended takes over the generation alone."""

        def change(job: Job) -> None:
            job.generation = generation
            if not job.finished:
                job.concurrency = concurrency
                job.failure_tolerate = failure_tolerate
                job.timeout_seconds = timeout_seconds

        await self._writer.submit(lambda connection, commit: tx.change_job(connection, commit, uid, change, at))

    async def stop(self, uid: str, *, reason: str, at: float) -> None:
        """Nothing more of this job is begun, because of ``reason``; it ends as failed."""

        def change(job: Job) -> None:
            if not (job.stopped or job.finished):
                job.stopped = True
                job.event, job.action, job.reason = Event.INIT, Action.FAILURE, reason[:MAX_REASON]

        await self._writer.submit(lambda connection, commit: tx.change_job(connection, commit, uid, change, at))

    async def remove(self, uid: str) -> None:
        """The job and its tasks are forgotten; `Commit.removed` names what was in flight."""
        await self._writer.submit(lambda connection, commit: tx.remove(connection, commit, [uid]))

    async def mark_published(self, uid: str, version: int) -> None:
        """The status as of ``version`` is written; a later version stays unpublished."""
        rows = json.dumps([[uid, version]])
        await self._writer.submit(lambda connection, commit: tx.execute(connection, sql.UPDATE_PUBLISHED, rows=rows))

    async def survey(self, uids: Iterable[str]) -> tuple[dict[str, Job], list[LiveTask]]:
        """Those of these jobs that are stored, and what is in flight of them. Unlike the reads below, it is as of the
        last commit that `on_commit` told of, neither before nor after: it is read by the writer, in a transaction of
        its own. In one with others, these would be told of before the survey's caller goes on, and undone in its mind.
        """
        names = json.dumps(list(uids))

        def read(connection: Connection, _commit: Commit) -> tuple[dict[str, Job], list[LiveTask]]:
            jobs = {job.uid: job for job in tx.read_jobs(connection, sql.SELECT_JOBS, names=names)}
            return jobs, tx.live_tasks(tx.load(connection, sql.SELECT_IN_FLIGHT, names=names))

        found: tuple[dict[str, Job], list[LiveTask]] = await self._writer.submit(read, weight=MAX_BATCH)
        return found

    # --- Reads ------------------------------------------------------------------------------------------------------

    async def job(self, uid: str) -> Job | None:
        return next(iter(await self._jobs(sql.SELECT_JOBS, names=json.dumps([uid]))), None)

    async def job_named(self, name: str) -> Job | None:
        return next(iter(await self._jobs(sql.SELECT_JOB_NAMED, job_name=name)), None)

    async def unfinished(self) -> list[Job]:
        return await self._jobs(sql.SELECT_UNFINISHED)

    async def unpublished(self) -> list[Job]:
        return await self._jobs(sql.SELECT_UNPUBLISHED)

    async def specs(self, uids: Iterable[str]) -> dict[str, str]:
        """What `NewJob.spec` was."""
        return dict(await self._list(sql.SELECT_SPECS, names=json.dumps(list(uids))))

    async def names(self) -> list[tuple[str, str]]:
        """Uid and name of every job."""
        return [(uid, name) for uid, name in await self._list(sql.SELECT_JOB_NAMES)]

    async def next_pending(self, uids: Iterable[str], most: int) -> dict[str, list[str]]:
        """For each job, the nodes whose turn is next."""
        rows = await self._list(sql.SELECT_PENDING, names=json.dumps(list(uids)), most=most)
        return {uid: nodes if isinstance(nodes, list) else json.loads(nodes) for uid, nodes in rows}

    async def late(self, now: float, most: int = tx.CHUNK) -> list[LiveTask]:
        """Tasks whose deadline has passed, the latest first."""
        return tx.live_tasks(await self._list(sql.SELECT_LATE, now=now, most=most))

    async def live_tasks_of(self, nodes: Iterable[str]) -> list[LiveTask]:
        """What waits for these nodes or was given to them."""
        return tx.live_tasks(await self._list(sql.SELECT_LIVE_OF_NODES, names=json.dumps(list(nodes))))

    async def in_flight_of(self, uids: Iterable[str]) -> list[LiveTask]:
        return tx.live_tasks(await self._list(sql.SELECT_IN_FLIGHT, names=json.dumps(list(uids))))

    async def parked(self) -> list[LiveTask]:
        """Tasks that wait without a deadline, for a node that had enough to do."""
        return tx.live_tasks(await self._list(sql.SELECT_PARKED))

    async def snapshot(self, uid: str, most: int) -> tuple[Job, list[Entry]] | None:
        """A job and at most so many of its tasks, of one moment: all in their order if they fit, else those that
        failed, then those in flight, then the others. None when there is no such job."""

        def read(connection: Connection) -> tuple[Job, list[Entry]] | None:
            found = tx.read_jobs(connection, sql.SELECT_JOBS, names=json.dumps([uid]))
            return (found[0], tx.entries(connection, found[0], most)) if found else None

        return await self._read(read)

    async def job_counts(self) -> dict[str, int]:
        return await self._read(lambda connection: tx.load(connection, sql.SELECT_JOB_COUNTS))

    async def task_counts(self) -> Tally:
        return Tally(*await self._list(sql.SELECT_TASK_COUNTS))

    async def _jobs(self, statement: Executable, **parameters: object) -> list[Job]:
        return await self._read(lambda connection: tx.read_jobs(connection, statement, **parameters))

    async def _list(self, statement: Executable, **parameters: object) -> list[Any]:
        return await self._read(lambda connection: tx.load(connection, statement, **parameters))

    async def _read(self, read: Callable[[Connection], Found]) -> Found:
        if self._closed:
            raise StoreClosed("the store is closed")
        # In a task of its own that is not cancelled with its caller: `close` waits for what goes on in the threads.
        # Reads are short.
        task = asyncio.create_task(self._run(read), name="store-read")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return await asyncio.shield(task)

    async def _run(self, read: Callable[[Connection], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._in_thread, read)
        except (DBAPIError, OSError) as error:
            if not is_unavailability(error):
                raise
            raise StoreUnavailable(reason_of(error)) from error

    def _in_thread(self, read: Callable[[Connection], Found]) -> Found:
        """All statements of a read in one visit to a thread, as the writer does (see `cloudhub.store.thread`)."""
        with self._reading.connect() as connection:
            return read(connection)
