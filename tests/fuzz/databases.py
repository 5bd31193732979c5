"""The programs' own databases, by whatever a bad disk, another version or somebody's hand may leave of them.

Bytes alone rarely get past SQLite's own check. So a sound file is also changed with SQL, its constraints off: rows with
wrong values and wrong JSON, columns and tables that are away, another version; with the change in the file, or still in
its log. And what was opened is used: a hub that takes a file must be able to do its work with it.
"""

# ruff: noqa: S608 - the names in the statements are ours
from __future__ import annotations

import asyncio
import copy
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final

from cloudhub.metrics import Metrics
from cloudhub.revocations import Revocations
from cloudhub.standalone.server import StandaloneAPI
from cloudhub.store.engine import open_database
from cloudhub.store.errors import StoreError
from cloudhub.store.revocations import RevocationStore
from cloudhub.taskmanager.manager import TaskManagerSettings
from edgehub.tasks.journal import JournalError, JournalFile
from edgehub.tasks.model import TaskState, check_report
from tests.fuzz.files import own_folder
from tests.fuzz.mutation import ODD, TEXTS, damaged, noise, wronged
from tests.fuzz.peers import AsyncFeed, in_a_loop
from tests.fuzz.target import MARKER, Feed, Lazily, Target
from tests.integration.taskmanager.world import World
from tests.unit.edgehub.scripted import task

_LOG_FOLLOWS: Final = b"\0--- and its log ---\0"


def packed(path: Path) -> bytes:
    """A database with its log, as one input."""
    log = path.with_name(f"{path.name}-wal")
    return path.read_bytes() + (_LOG_FOLLOWS + log.read_bytes() if log.exists() else b"")


def unpacked(data: bytes, path: Path) -> None:
    """Into a folder where nothing else is."""
    if path.parent.exists():
        shutil.rmtree(path.parent)
    path.parent.mkdir()
    main, follows, log = data.partition(_LOG_FOLLOWS)
    path.write_bytes(main)
    if follows:
        path.with_name(f"{path.name}-wal").write_bytes(log)


# --- Changes with SQL -------------------------------------------------------------------------------------------------


def spoiled(random: Random, samples: Sequence[bytes]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="spoiled-") as folder:
        path = Path(folder, "x", "x.db")
        unpacked(random.choice(samples), path)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"PRAGMA journal_mode = {random.choice(('WAL', 'DELETE'))}")
            for pragma in ("ignore_check_constraints = ON", "writable_schema = ON", "foreign_keys = OFF"):
                db.execute(f"PRAGMA {pragma}")
            for _ in range(random.randint(1, 2)):
                # Some are not possible: after another, or with these rows.
                with suppress(sqlite3.Error, OverflowError, ValueError):
                    random.choice(_SPOILERS)(random, db)
            # Before it is closed: then the log goes into the file.
            data = packed(path)
    return damaged(random, (data,)) if random.randrange(8) == 0 else data


def _wrong_value(random: Random, db: sqlite3.Connection) -> None:
    table = _table(random, db)
    column = _column(random, db, table)
    rows = [row for (row,) in db.execute(f'SELECT rowid FROM "{table}"')]
    if not rows:
        return
    chosen = rows if random.randrange(4) == 0 else [random.choice(rows)]
    for row in chosen:
        (old,) = db.execute(f'SELECT "{column}" FROM "{table}" WHERE rowid = ?', (row,)).fetchone()
        # What version a file is of is no secret, and is said.
        value = _instead_of(random, old) if table != "alembic_version" else random.choice(TEXTS)
        if isinstance(value, bytes) and random.randrange(2):
            db.execute(f'UPDATE "{table}" SET "{column}" = CAST(? AS TEXT) WHERE rowid = ?', (value, row))
        else:
            db.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (value, row))


def _instead_of(random: Random, old: Any) -> Any:
    if isinstance(old, (str, bytes)) and old[:1] in ("{", "[", b"{", b"[") and random.randrange(4):
        changed = wronged(random, (old if isinstance(old, bytes) else old.encode(),))
        return changed if isinstance(old, bytes) else changed.decode("utf-8", "surrogateescape")
    if isinstance(old, str) and random.randrange(3) == 0:
        return damaged(random, (old.encode(),))
    numbers = (-1, 0, 1, 2**31, 2**62, -(2**63), 0.5, -0.0, 1e300, -1e300, 9e999, -9e999)
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: random.choice(numbers),
        lambda: random.choice(TEXTS),
        lambda: noise(random, 20),
        lambda: f"{MARKER}\udcff".encode("utf-8", "surrogateescape"),
        lambda: str(random.choice(ODD))[:5000],
        lambda: None,
    )
    return random.choice(kinds)()


def _row_away(random: Random, db: sqlite3.Connection) -> None:
    table = _table(random, db)
    few = "" if random.randrange(2) else f'WHERE rowid = (SELECT rowid FROM "{table}" ORDER BY random() LIMIT 1)'
    db.execute(f'DELETE FROM "{table}" {few}')


def _table_changed(random: Random, db: sqlite3.Connection) -> None:
    table = _table(random, db)
    column = _column(random, db, table)
    db.execute(
        random.choice(
            (
                f'DROP TABLE "{table}"',
                f'ALTER TABLE "{table}" RENAME TO "other"',
                f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"',
                f'ALTER TABLE "{table}" DROP COLUMN "{column}"',
                f'ALTER TABLE "{table}" ADD COLUMN "other" TEXT',
                'CREATE TABLE "other" (a, b)',
                f'CREATE VIEW "other" AS SELECT * FROM "{table}"',
            )
        )
    )


def _schema_text(random: Random, db: sqlite3.Connection) -> None:
    rows = [(name, text) for name, text in db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")]
    name, text = random.choice(rows)
    db.execute(
        "UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = ?", (damaged(random, (text.encode(),)), name)
    )


def _other_version(random: Random, db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA user_version = {random.choice((-1, 0, 1, 2, 3, 99, 2**31 - 1))}")
    db.execute(f"PRAGMA application_id = {random.choice((0, 1, 7))}")
    db.execute("UPDATE alembic_version SET version_num = ?", (random.choice(("9999", "", "x" * 300, "head", None)),))


_SPOILERS: Final = (_wrong_value, _wrong_value, _wrong_value, _row_away, _table_changed, _schema_text, _other_version)


def _table(random: Random, db: sqlite3.Connection) -> str:
    return str(random.choice([name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]))


def _column(random: Random, db: sqlite3.Connection, table: str) -> str:
    return str(random.choice([name for _, name, *_ in db.execute(f'PRAGMA table_info("{table}")')]))


# --- The agent's journal ----------------------------------------------------------------------------------------------


def _journal_samples() -> Sequence[bytes]:
    with own_folder() as folder:
        journal = JournalFile(folder / "journal.db")
        for number in range(3):
            asked = task("a:v1", "b:v1", uid=f"uid-{number}")
            journal.accept(asked)
            state = TaskState.FINISHED if number == 1 else TaskState.PULLING
            journal.report(asked, check_report(extras=asked.extras), state)
        with_log = packed(folder / "journal.db")
        journal.close()
        return with_log, packed(folder / "journal.db")


@contextmanager
def _journal() -> Iterator[Feed]:
    """A damaged journal is moved aside, and the agent goes on: after it, the journal works."""
    with own_folder() as folder:
        path = folder / "own" / "journal.db"

        def feed(data: bytes) -> None:
            unpacked(data, path)
            journal = JournalFile(path)
            try:
                for number in range(3):
                    journal.get(f"uid-{number}")
                reports = journal.pending_reports()
                journal.latest(10)
                asked = task("c:v1", uid="uid-9")
                journal.accept(asked)
                entry = journal.get("uid-9")
                assert entry is not None
                assert entry.task == asked
                for stored in reports:
                    journal.forget_report(stored.id)
            finally:
                journal.close()

        yield feed


# --- The hub's queue --------------------------------------------------------------------------------------------------

_ENDED: Final = ("Successful", "Failed")
_SETTINGS: Final = TaskManagerSettings(publish_interval=0.5, progress_interval=0.5)
_IMAGES: Final = ("registry.example/team/app:v1", "registry.example/team/db:v2")


class _Around:
    """What the API had when the sample was made."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.samples: list[bytes] = []


async def _made_queue(folder: Path) -> _Around:
    """A job that ended, one in the midst of its work with a node of every state, and one that was given up."""
    around = _Around()
    world = World(folder / "own", _SETTINGS)
    _people(world)
    await world.start()
    world.sessions.connect("n0", "n1", "n2", "n3")
    for name in ("n0", "n1", "n2"):
        world.sessions.node(name).behaviour = world.sessions.obey if name != "n1" else world.sessions.fail
    world.job("ended", nodes=("n0", "n1"), images=_IMAGES, failureTolerate="1")
    await world.until_published(lambda: world.status("ended").get("state") in _ENDED)
    world.job("midst", nodes=("n0", "n1", "n3", "n4", "n5"), images=_IMAGES, failureTolerate="0.9", concurrency=4)
    world.job("given-up", nodes=("n1", "n4", "nobody"), images=_IMAGES, concurrency=1, failureTolerate="0")
    await world.until(lambda: world.asked("n3"))
    await world.until_published(lambda: world.entry("n1", "midst").get("state"))
    around.samples.append(packed(world.path))
    await world.sessions.close()
    await world.stop()
    around.samples.append(packed(world.path))
    around.jobs = copy.deepcopy(world.jobs.objects)
    return around


def _people(world: World) -> None:
    world.nodes.add("n0", "n1", "n2", "n3", "n4", "n5")


@cache
def _queue_around() -> _Around:
    with own_folder() as folder:
        return asyncio.run(_made_queue(folder))


@asynccontextmanager
async def _queue() -> AsyncIterator[AsyncFeed]:
    with own_folder() as folder:

        async def feed(data: bytes) -> None:
            world = World(folder / "own", _SETTINGS)
            unpacked(data, world.path)
            world.jobs.objects = copy.deepcopy(_queue_around().jobs)
            _people(world)
            await world.start()
            try:
                world.sessions.connect(*world.nodes.objects, behaviour=world.sessions.obey)
                await _work(world)
            finally:
                await world.sessions.close()
                await world.kill()

        yield feed


async def _work(world: World) -> None:
    """Until all jobs ended, or for a while; raises what the manager dies of."""
    running = world._running
    assert running is not None
    for _ in range(60):
        await asyncio.wait([running], timeout=0.002)
        if running.done():
            raise _first(running.exception())
        if all(job.status.get("state") in _ENDED for job in world.jobs.objects.values()):
            return
        world.clock.advance(30.0)


def _first(error: BaseException | None) -> Exception:
    """As the command line tells it: of several, the first one's words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


# --- The hub's revocations --------------------------------------------------------------------------------------------


async def _made_revocations(path: Path) -> bytes:
    store = RevocationStore(await open_database(path, "revocations"))
    await store.revoke(["edge-1", "edge-2", "edge-3"], 1.0)
    await store.undo(["edge-2", "edge-3"], 2.0)
    await store.add_certificate("edge-2", number=2, serial=2**150, signed_at=3.0, expires_at=5e9)
    await store.applied("edge-3", 1, session_ended=True)
    await store.close()
    return packed(path)


def _revocations_sample() -> Sequence[bytes]:
    with own_folder() as folder:
        return (asyncio.run(_made_revocations(folder / "x.db")),)


@asynccontextmanager
async def _revocations() -> AsyncIterator[AsyncFeed]:
    with own_folder() as folder:
        path = folder / "own" / "revoked.db"

        async def feed(data: bytes) -> None:
            unpacked(data, path)
            store = RevocationStore(await open_database(path, "revocations"))
            try:
                revocations = Revocations(store=store, metrics=Metrics())
                await revocations.load()
                await store.revoke(["edge-9", "edge-2"], 6.0)
                await store.undo(["edge-9"], 7.0)
                await store.applied("edge-1", 1, session_ended=False)
                assert "edge-9" in {kept.revocation.node for kept in await store.load()}
            finally:
                await store.close()

        yield feed


# --- The embedded API's objects ---------------------------------------------------------------------------------------


async def _made_objects(folder: Path) -> bytes:
    async with StandaloneAPI(data_dir=folder):
        pass
    return packed(folder / "objects.db")


def _objects_sample() -> Sequence[bytes]:
    with own_folder() as folder:
        return (asyncio.run(_made_objects(folder / "own")),)


@asynccontextmanager
async def _objects() -> AsyncIterator[AsyncFeed]:
    with own_folder() as folder:
        path = folder / "own" / "objects.db"
        kept = folder / "kept"
        async with StandaloneAPI(data_dir=kept):
            pass  # its keys and certificates take longer than all else

        async def feed(data: bytes) -> None:
            unpacked(data, path)
            for file in kept.iterdir():
                if not file.name.startswith("objects.db"):
                    shutil.copy(file, path.parent)
            async with StandaloneAPI(data_dir=path.parent):
                pass

        yield feed


@contextmanager
def _queue_after_samples() -> Iterator[Feed]:
    _queue_around()
    with in_a_loop(_queue)() as feed:
        yield feed


def _target(name: str, opened: Any, make: Callable[[], Sequence[bytes]], error: type[Exception], cost: int) -> Target:
    samples = Lazily(make)
    return Target(
        name=name, open=opened, samples=samples, make=partial(spoiled, samples=samples), errors=(error,),
        documents=False, cost=cost,
    )  # fmt: skip


TARGETS: Final = (
    _target("journal", _journal, _journal_samples, JournalError, 10),
    _target("queue.db", _queue_after_samples, lambda: _queue_around().samples, StoreError, 20),
    _target("revoked.db", in_a_loop(_revocations), _revocations_sample, StoreError, 20),
    _target("objects.db", in_a_loop(_objects), _objects_sample, StoreError, 20),
)
