"""The embedded API server's objects in SQLite: one row an object, and the revision that was given last.

The problem: `cloudhub.standalone` serves from memory and needs what it acknowledged to be there after a crash. One
`write` is one transaction: all of its rows and the revision stand together or not at all, on disk when it returns.
The revision is kept beside the rows, since the object that had the highest one may be deleted.

Limits: rows are read only once, at start; one process owns the file. Bodies are opaque JSON here. History for watches
is not kept on disk: a watch from before the last start is answered with 410, as a cluster does after compaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from cloudhub.store.errors import CorruptDatabase, StoreUnavailable
from cloudhub.store.room import lack_of_room
from cloudhub.store.writer import is_unavailability, probe, reason_of

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

objects = Table(
    "objects",
    metadata,
    Column("resource", Text, primary_key=True),  # plural, or plural.group: "secrets", "leases.coordination.k8s.io"
    Column("namespace", Text, primary_key=True),  # "" for what has cluster scope
    Column("name", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False, info={"json": "object"}),
    UniqueConstraint("revision"),
    CheckConstraint("revision > 0", name="revision_positive"),
    CheckConstraint("resource <> '' AND name <> ''", name="named"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
    CheckConstraint("last >= 0", name="last_not_negative"),
    info={
        "odd": {
            "an object is of a later revision than was given": (
                "SELECT 1 FROM revisions WHERE last < (SELECT max(revision) FROM objects) LIMIT 1"
            )
        }
    },
)


@dataclass(frozen=True, slots=True)
class ObjectRow:
    resource: str
    namespace: str
    name: str
    revision: int
    body: bytes


@dataclass(frozen=True, slots=True)
class RowKey:
    resource: str
    namespace: str
    name: str


_upsert = insert(objects)
_UPSERT = _upsert.on_conflict_do_update(
    index_elements=[objects.c.resource, objects.c.namespace, objects.c.name],
    set_={"revision": _upsert.excluded.revision, "body": _upsert.excluded.body},
)
_DELETE = delete(objects).where(
    and_(
        objects.c.resource == bindparam("b_resource"),
        objects.c.namespace == bindparam("b_namespace"),
        objects.c.name == bindparam("b_name"),
    )
)
# `last` only rises: a writer that is behind another one is a bug that must not become two objects of one revision.
_ADVANCE = (
    update(revisions)
    .where(revisions.c.id == 1, revisions.c.last < bindparam("b_last"))
    .values(last=bindparam("b_last"))
)


class RevisionConflict(Exception):
    """Another writer has gone past this revision: two processes use one file."""


class ObjectStore:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def load(self) -> tuple[int, list[ObjectRow]]:
        """The last revision, and every object in order of its key."""
        async with self._engine.connect() as connection:
            last = (await connection.execute(select(revisions.c.last))).scalar_one_or_none()
            if last is None:
                raise CorruptDatabase(f"{self._engine.url.database} has lost its revision; restore it or move it away")
            query = select(objects).order_by(objects.c.resource, objects.c.namespace, objects.c.name)
            rows = [ObjectRow(*row) for row in await connection.execute(query)]
        return int(last), rows

    async def write(self, *, revision: int, puts: Sequence[ObjectRow], deletes: Sequence[RowKey]) -> None:
        """One transaction; ``revision`` is the highest that it uses. A key must not be in both lists. Raises
        `StoreUnavailable` while the database cannot be written."""
        with _unavailability():
            await self._write(revision, puts, deletes)

    async def probe(self) -> None:
        """Raises `StoreUnavailable` unless the database can be written; leaves nothing in it."""
        if (lack := lack_of_room(Path(self._engine.url.database or "").parent)) is not None:
            raise StoreUnavailable(f"the store cannot be used: {lack}")
        with _unavailability():
            async with self._engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                await connection.run_sync(probe)

    async def _write(self, revision: int, puts: Sequence[ObjectRow], deletes: Sequence[RowKey]) -> None:
        async with self._engine.begin() as connection:
            advanced = await connection.execute(_ADVANCE, {"b_last": revision})
            if advanced.rowcount != 1:
                raise RevisionConflict(f"revision {revision} is not above the last one of the file")
            # Before the puts: an object deleted and made again within one batch ends as the new one.
            if deletes:
                keys = [{"b_resource": k.resource, "b_namespace": k.namespace, "b_name": k.name} for k in deletes]
                await connection.execute(_DELETE, keys)
            if puts:
                await connection.execute(
                    _UPSERT,
                    [
                        {
                            "resource": row.resource,
                            "namespace": row.namespace,
                            "name": row.name,
                            "revision": row.revision,
                            "body": row.body,
                        }
                        for row in puts
                    ],
                )

    async def close(self) -> None:
        await self._engine.dispose()


@contextmanager
def _unavailability() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, OSError) as error:
        if not is_unavailability(error):
            raise
        raise StoreUnavailable(reason_of(error)) from error
