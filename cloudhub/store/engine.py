"""Opening a database file: checked, locked, brought to the present schema, or refused with nothing changed.

The problem: a hub that starts on a damaged file, on a file of a later version, or beside another hub, would spoil what
it was to keep. So the file is first looked at through a read-only connection, and only a file that is sound, ours and
not newer than this program is opened for writing and migrated, in one transaction. What it holds is looked at too
(`cloudhub.store.soundness`).

Guarantees: a commit is on the disk when it returns (WAL, ``synchronous=FULL``); foreign keys hold; one process at a
time owns a file (a lock on ``<file>.lock``, which the kernel frees when that process dies); the file is readable by its
owner alone. A transaction is begun as ``BEGIN`` (reads of one snapshot), or, on a connection with the execution option
``sqlite_begin="IMMEDIATE"``, as ``BEGIN IMMEDIATE``: a transaction that will write must, or it fails as soon as another
connection has written since its first read.

A file of which a second process writes a few rows (``revoked.db``) is opened by that process with `open_beside`, which
leaves lock and schema to the owner.

Not done here: backups, and repair of what is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, MetaData, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from cloudhub.store.errors import (
    CorruptDatabase,
    DatabaseInUse,
    ForeignDatabase,
    NewerSchema,
    OtherSchema,
    ReadOnlyDatabase,
    StoreError,
    words_of,
)
from cloudhub.store.soundness import Unsound, check_contents

Schema = Literal["queue", "objects", "revocations"]

_METADATA: Final[dict[Schema, str]] = {
    "queue": "cloudhub.store.tables",
    "objects": "cloudhub.store.objects",
    "revocations": "cloudhub.store.revocations",
}
"""Where each schema's ``metadata`` is. Imported when it is opened: a hub under ``run`` never needs ``objects``."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
    "PRAGMA temp_store=MEMORY",
    # After a burst the WAL file is cut back to this, so that it does not hold the disk for ever.
    "PRAGMA journal_size_limit=67108864",
)


def metadata_of(schema: Schema) -> MetaData:
    metadata = import_module(_METADATA[schema]).metadata
    if not isinstance(metadata, MetaData):
        raise TypeError(f"{_METADATA[schema]}.metadata is a {type(metadata).__name__}, not a MetaData")
    return metadata


async def open_database(path: Path, schema: Schema, *, patience: float = 0.0) -> AsyncEngine:
    """The engine of ``path``, at the head of ``schema``'s migrations. `AsyncEngine.dispose` closes it and frees the
    lock. For ``patience`` seconds it waits for another owner to go. Raises a `StoreError` whose text names the file and
    what is wrong with it."""
    lock, is_older = await asyncio.to_thread(_prepare, path, schema, patience)
    engine = _engine(path)
    event.listen(engine.sync_engine, "engine_disposed", lambda _: lock.release())
    try:
        async with engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
            await connection.run_sync(_upgrade, schema)
        if is_older:
            await asyncio.to_thread(_inspect, path, schema)
    except UnicodeDecodeError as error:
        # Damage inside the text of the schema, which the quick check does not see.
        await engine.dispose()
        raise CorruptDatabase(f"{path} is damaged; restore it or move it away") from error
    except (SQLAlchemyError, CommandError) as error:
        await engine.dispose()
        raise StoreError(f"{path} cannot be opened: {words_of(error)}") from error
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def open_beside(path: Path, schema: Schema) -> AsyncEngine:
    """The engine of a file that another process owns. Raises a `StoreError`; `OtherSchema` also while the owner is
    still making the file."""
    await asyncio.to_thread(_check_beside, path, schema)
    return _engine(path)


def is_owned(path: Path) -> bool:
    """Whether a process owns ``path`` now."""
    lock = _lock_of(path)
    try:
        return not lock.take()
    finally:
        lock.release()


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # Values are users' data: names of their machines and images, in the embedded API whole Secrets.
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def writing_engine(engine: AsyncEngine) -> Engine:
    """An engine of the same file, for a thread that writes: its transactions begin as ``BEGIN IMMEDIATE``."""
    # A connection is kept by who made it, and used in that thread alone.
    return _threads_engine(engine, poolclass=NullPool).execution_options(sqlite_begin="IMMEDIATE")


def reading_engine(engine: AsyncEngine, *, threads: int) -> Engine:
    """An engine of the same file, for so many threads that read."""
    return _threads_engine(engine, poolclass=QueuePool, pool_size=threads, max_overflow=0)


def _threads_engine(engine: AsyncEngine, **options: Any) -> Engine:
    url = URL.create("sqlite", database=engine.url.database)
    made = create_engine(url, hide_parameters=True, **options)
    event.listen(made, "connect", _on_connect)
    event.listen(made, "begin", _on_begin)
    return made


def _on_connect(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # Transactions are begun and ended by SQLAlchemy alone: the driver's own rules leave reads and DDL outside of them.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _on_begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


# --- Before the file is opened for writing ----------------------------------------------------------------------


class _Lock:
    """The right to be this file's one owner. Kept in a file of its own: SQLite's locks on the database come and go."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = _create(path)

    def take(self, patience: float = 0.0) -> bool:
        end = time.monotonic() + patience
        while not self._try():
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return True

    def _try(self) -> bool:
        assert self._descriptor is not None  # noqa: S101 - only `release` clears it
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _create(path: Path) -> int:
    """A descriptor of the file, which is made if need be, readable by its owner alone. An operator may be root where
    the hub is not: what root makes is the folder's owner's, or the hub could not open it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        # Without the right to, root is as bound as others, and so are its files.
        with suppress(PermissionError):
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def _lock_of(path: Path) -> _Lock:
    try:
        return _Lock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise ReadOnlyDatabase(f"folder {path.parent} cannot be written: {error.strerror}") from error


def _prepare(path: Path, schema: Schema, patience: float) -> tuple[_Lock, bool]:
    """Checks everything that can be checked without a change, then takes the lock and makes an absent file. Returns
    the lock, and whether what the file holds is of an older version and was not looked at."""
    _check_writable(path)
    revisions = _inspect(path, schema) if path.exists() else set()
    lock = _lock_of(path)
    try:
        if not lock.take(patience):
            raise DatabaseInUse(f"{path} is in use by another process; stop it or choose another folder")
        # Made here and not by SQLite, so that nobody else can read it at any moment; -wal and -shm take its mode over.
        os.close(_create(path))
    except OSError as error:
        lock.release()
        raise ReadOnlyDatabase(f"{path} cannot be written: {error.strerror}") from error
    except BaseException:
        lock.release()
        raise
    return lock, bool(revisions) and not _is_present(revisions, schema)


def _check_beside(path: Path, schema: Schema) -> None:
    _check_writable(path)
    found = _inspect(path, schema) if path.exists() else set()
    if not _is_present(found, schema):
        raise OtherSchema(f"{path} is kept by a hub of another version; use the cloudhub of that hub")


def _check_writable(path: Path) -> None:
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnlyDatabase(f"folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ReadOnlyDatabase(f"folder {folder} cannot be written by this user, or is on a read-only file system")
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is no regular file")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ReadOnlyDatabase(f"{path} cannot be written by this user, or is on a read-only file system")


def _inspect(path: Path, schema: Schema) -> set[str]:
    """The revisions that the file has; none while it is empty. Its content is looked at when it is of this version."""
    if path.stat().st_size == 0:
        return set()
    with _refusing_damage(path), closing(_read_only(path)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise CorruptDatabase(f"{path} is damaged ({str(verdict)[:200]}); restore it or move it away")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return set()
        if "alembic_version" not in tables:
            raise ForeignDatabase(f"{path} is a SQLite database of another program; choose another folder")
        revisions = {str(found) for (found,) in connection.execute("SELECT version_num FROM alembic_version")}
    unknown = revisions - {script.revision for script in _scripts(schema).walk_revisions()}
    if unknown:
        raise NewerSchema(
            f"{path} has schema revision {', '.join(sorted(unknown))[:64]}, which this version does not know: "
            "it was written by a newer one; use that, or another folder"
        )
    if _is_present(revisions, schema):
        with _refusing_damage(path), closing(_read_only(path)) as connection:
            check_contents(connection, metadata_of(schema))
    return revisions


def _is_present(revisions: set[str], schema: Schema) -> bool:
    return revisions == set(_scripts(schema).get_heads())


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Unsound as error:
        raise CorruptDatabase(f"{path} is damaged ({error}); restore it or move it away") from error
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read: {words_of(error)}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        text = f"{path} is damaged or no SQLite database ({words_of(error)}); restore it or move it away"
        raise CorruptDatabase(text) from error


# --- Migrations -------------------------------------------------------------------------------------------------


def _config(schema: Schema, attributes: dict[str, Any] | None = None) -> Config:
    config = Config(attributes=attributes or {})
    # '%' would be taken for ConfigParser's interpolation, and a path may hold any other separator than a newline.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(_MIGRATIONS / schema / "versions").replace("%", "%%"))
    return config


def _scripts(schema: Schema) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(schema))


def _upgrade(connection: Connection, schema: Schema) -> None:
    attributes: dict[str, Any] = {"connection": connection, "metadata": metadata_of(schema)}
    command.upgrade(_config(schema, attributes), "head")
