"""The durable memory of the agent: what was asked, how far it came, and which reports the hub has not acknowledged.

Problem: a node may lose power at any moment, and a result that was paid for with an hour of a thin line must not be
lost or fetched again.

Guarantee: what a call has returned from survives a power cut (WAL, synchronous=FULL). A question, its state and its
report change in one transaction. Entries are kept for 30 days, longer if the hub has not acknowledged their report,
and at most 1000 of them, so the file stays small. A corrupt file, or one of a newer version, is moved aside with a
line in the log and the agent goes on with an empty journal: the hub asks again, and images that are here are not
fetched again. A full disk is a `JournalError`, and the next call tries anew.

Never in it: credentials. Not here: a second process; the agent's lock on its folder sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from edgehub.tasks.model import Dialect, Task, TaskState
from shared.files import PRIVATE_FILE, private_folder
from shared.wire import Operation, PullTemplate, Report

log = structlog.get_logger(__name__)

T = TypeVar("T")

VERSION: Final = 2
KEEP_FINISHED: Final = 1000
KEEP_SECONDS: Final = 30 * 86_400.0

_SCHEMA: Final = """
CREATE TABLE tasks (
    key TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    node TEXT NOT NULL,
    job_uid TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    operation TEXT NOT NULL CHECK (operation IN ('Check', 'Pull')),
    template TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'pulling', 'finished', 'cancelled')),
    changed_at REAL NOT NULL,
    final TEXT CHECK ((final IS NOT NULL) = (state = 'finished')),
    dialect TEXT NOT NULL DEFAULT 'v1alpha2' CHECK (dialect IN ('v1alpha1', 'v1alpha2'))
);
CREATE INDEX tasks_by_change ON tasks (changed_at);
CREATE TABLE reports (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL REFERENCES tasks (key) ON DELETE CASCADE,
    content TEXT NOT NULL
);
CREATE INDEX reports_by_key ON reports (key);
"""


_SINCE_VERSION_1: Final = """
ALTER TABLE tasks ADD COLUMN
    dialect TEXT NOT NULL DEFAULT 'v1alpha2' CHECK (dialect IN ('v1alpha1', 'v1alpha2'));
"""


class JournalError(Exception):
    """The journal cannot be written or read now: disk full, no permission. Safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    task: Task
    state: TaskState
    changed_at: float
    """Wall clock."""
    final: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    id: int
    task: Task
    report: Report


class JournalFile:
    """The SQLite file. All calls from one thread."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> Entry | None:
        def work(db: sqlite3.Connection) -> Entry | None:
            row = db.execute("SELECT * FROM tasks WHERE key = ?", (key,)).fetchone()
            return _entry(row) if row is not None else None

        return self._run(work)

    def accept(self, task: Task) -> None:
        """Replaces what stood under the key, its reports too."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM tasks WHERE key = ?", (task.key,))
            self._insert(db, task, TaskState.ACCEPTED, None)
            self._prune(db)

        self._run(work)

    def report(self, task: Task, report: Report, state: TaskState) -> int:
        """The task is in ``state`` now, and ``report`` waits for the hub. Returns the report's id."""
        content = report.model_dump_json(exclude_none=True)
        final = content if state is TaskState.FINISHED else None

        def work(db: sqlite3.Connection) -> int:
            done = db.execute(
                "UPDATE tasks SET state = ?, final = ?, changed_at = ? WHERE key = ? AND attempt = ?",
                (state, final, self._now(), task.key, task.attempt),
            )
            if done.rowcount == 0:  # the journal was lost meanwhile: the result is not
                db.execute("DELETE FROM tasks WHERE key = ?", (task.key,))
                self._insert(db, task, state, final)
            cursor = db.execute("INSERT INTO reports (key, content) VALUES (?, ?)", (task.key, content))
            return int(cursor.lastrowid or 0)

        return self._run(work)

    def cancel(self, key: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE tasks SET state = 'cancelled', final = NULL, changed_at = ? WHERE key = ?", (self._now(), key)
            )
            db.execute("DELETE FROM reports WHERE key = ?", (key,))

        self._run(work)

    def forget_report(self, report_id: int) -> None:
        self._run(lambda db: db.execute("DELETE FROM reports WHERE id = ?", (report_id,)))

    def pending_reports(self) -> list[StoredReport]:
        """Oldest first."""
        query = "SELECT reports.id AS report_id, content, tasks.* FROM reports JOIN tasks USING (key) ORDER BY id"
        return self._run(lambda db: [_stored(row) for row in db.execute(query)])

    def latest(self, limit: int) -> list[Entry]:
        """Newest first, of any state."""
        query = "SELECT * FROM tasks ORDER BY changed_at DESC LIMIT ?"
        return self._run(lambda db: [_entry(row) for row in db.execute(query, (limit,))])

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _insert(self, db: sqlite3.Connection, task: Task, state: TaskState, final: str | None) -> None:
        db.execute(
            "INSERT INTO tasks (key, job, node, job_uid, attempt, operation, template, state, changed_at, final,"
            " dialect) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                task.key,
                task.job,
                task.node,
                task.job_uid,
                task.attempt,
                task.operation,
                task.template.model_dump_json(),
                state,
                self._now(),
                final,
                task.dialect,
            ),
        )

    def _prune(self, db: sqlite3.Connection) -> None:
        """In the transaction of a new entry, so the file never grows past its bound."""
        # Not by the clock alone: on a machine without a battery it may jump by years, and what the hub has not got
        # yet would go with its task.
        db.execute(
            "DELETE FROM tasks WHERE changed_at < ? AND key NOT IN (SELECT key FROM reports)",
            (self._now() - KEEP_SECONDS,),
        )
        db.execute(
            "DELETE FROM tasks WHERE key IN (SELECT key FROM tasks ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
            (KEEP_FINISHED,),
        )

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. A file found corrupt is replaced, and the work done once more on the new one."""
        for last_try in (False, True):
            try:
                with _transaction(self._open()) as db:
                    return work(db)
            except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
                self.close()
                if last_try or not _is_corrupt(error):
                    raise JournalError(f"the journal {self._path} cannot be used: {_text(error)}") from error
                try:
                    self._move_aside(_text(error))
                except OSError as hindrance:
                    raise JournalError(
                        f"the journal {self._path} is damaged and cannot be moved aside: {_text(hindrance)}"
                    ) from hindrance
        raise AssertionError  # pragma: no cover

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            private_folder(self._path.parent)
            # Made by us, so that no umask leaves it readable; SQLite gives its side files the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
            _prepare(self._connection)
        return self._connection

    def _move_aside(self, reason: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        log.error("journal moved aside", path=str(self._path), aside=str(aside), reason=reason)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path, aside)
        for side in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}{side}", f"{aside}{side}")


class _NewerJournal(sqlite3.DatabaseError):
    pass


class _CorruptJournal(sqlite3.DatabaseError):
    pass


def _prepare(db: sqlite3.Connection) -> None:
    db.row_factory = sqlite3.Row
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise _NewerJournal(f"it is of version {version}, this agent knows {VERSION}")
    check = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if check != "ok":
        raise _CorruptJournal(str(check)[:200])
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA cache_size = -256")
    if version < VERSION:
        schema = _SINCE_VERSION_1 if version == 1 else _SCHEMA
        db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {VERSION}; COMMIT;")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _is_corrupt(error: BaseException) -> bool:
    if isinstance(error, _NewerJournal | _CorruptJournal) or _is_undecodable(error):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # The last two: flipped bits inside the schema's text pass SQLite's own check, and then a column is missing or a
    # constraint is another. Our statements fit our schema.
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)


def _is_undecodable(error: BaseException) -> bool:
    """A text in the file is no UTF-8. Of a value the driver says so with an error of SQLite's class and no code."""
    return isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode")


def _text(error: BaseException) -> str:
    if _is_undecodable(error):
        return "a text in it is no UTF-8"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    # Of a damaged schema the driver repeats all that is left.
    return " ".join(str(error).split())[:200]


def _entry(row: sqlite3.Row) -> Entry:
    try:
        task = Task(
            key=row["key"],
            job=row["job"],
            node=row["node"],
            job_uid=row["job_uid"],
            attempt=row["attempt"],
            operation=Operation(row["operation"]),
            template=PullTemplate.model_validate_json(row["template"]),
            dialect=Dialect(row["dialect"]),
        )
        final = Report.model_validate_json(row["final"]) if row["final"] is not None else None
        return Entry(task=task, state=TaskState(row["state"]), changed_at=row["changed_at"], final=final)
    except (ValueError, IndexError) as error:  # IndexError: a column of another name
        raise _CorruptJournal("an entry is not of the shape that this agent writes") from error


def _stored(row: sqlite3.Row) -> StoredReport:
    task = _entry(row).task
    try:
        return StoredReport(id=row["report_id"], task=task, report=Report.model_validate_json(row["content"]))
    except ValueError as error:
        raise _CorruptJournal("a report is not of the shape that this agent writes") from error


class Journal:
    """`JournalFile` for the event loop: its calls run one after the other in a thread of their own."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._file = JournalFile(path, now=now)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def get(self, key: str) -> Entry | None:
        return await self._call(self._file.get, key)

    async def accept(self, task: Task) -> None:
        await self._call(self._file.accept, task)

    async def report(self, task: Task, report: Report, state: TaskState) -> int:
        return await self._call(self._file.report, task, report, state)

    async def cancel(self, key: str) -> None:
        await self._call(self._file.cancel, key)

    async def forget_report(self, report_id: int) -> None:
        await self._call(self._file.forget_report, report_id)

    async def pending_reports(self) -> list[StoredReport]:
        return await self._call(self._file.pending_reports)

    async def latest(self, limit: int) -> list[Entry]:
        return await self._call(self._file.latest, limit)

    async def close(self) -> None:
        await self._call(self._file.close)
        self._thread.shutdown(wait=False)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
