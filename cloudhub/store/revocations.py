"""The store of revocations: who was revoked, and which certificates were signed for them since that was undone.

A file of its own (``revoked.db``), beside the queue's, for two reasons. A damaged queue may be moved away, and what was
revoked must not come back with that. And it has two writers: the hub, and ``cloudhub revoke`` beside it; the queue
stays one process's own.

Guarantees: what a coroutine here returns is on the disk. A change counts up ``number``; the hub writes into ``applied``
up to where it has acted, so a command can wait for that. Nothing here is ever removed but certificates that ended, and
those beyond the newest `MAX_CERTIFICATES` of a name.

Which record means what is the business of `cloudhub.pki.revocation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cloudhub.pki.revocation import Revocation
from cloudhub.store.errors import StoreClosed, StoreUnavailable, words_of

FILE: Final = "revoked.db"
MAX_CERTIFICATES: Final = 16
"""Of one name. A node has one, and another while it renews it; whoever has a good token may make more."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

revocations = Table(
    "revocations",
    metadata,
    Column("node", Text, primary_key=True),
    # Counts revocations and undoings; `applied` is up to where the hub has acted on them.
    Column("number", BigInteger, nullable=False),
    Column("applied", BigInteger, nullable=False, server_default=text("0")),
    # Whether a session was ended when `applied` was last written.
    Column("session_ended", Boolean, nullable=False, server_default=text("0")),
    Column("revoked_at", Double, nullable=False),
    Column("undone_at", Double),
    CheckConstraint("node <> ''", name="named"),
    CheckConstraint("number > 0 AND applied >= 0 AND applied <= number", name="applied"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("node", Text, ForeignKey("revocations.node", ondelete="CASCADE"), primary_key=True),
    Column("serial", Text, primary_key=True, info={"letters": "0-9a-f"}),  # hexadecimal: up to 160 bits
    Column("signed_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    CheckConstraint("serial <> ''", name="numbered"),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A record, and what became of it."""

    revocation: Revocation
    applied: int
    session_ended: bool
    last_signed_at: float | None

    @property
    def is_applied(self) -> bool:
        return self.applied >= self.revocation.number


class NotRevoked(Exception):
    """There is nothing to undo for this name."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


class RevocationStore:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._watching: AsyncConnection | None = None
        self._one_at_a_time = asyncio.Lock()
        """For the connection that watches: it is not closed under a statement."""
        self._closed = False

    async def close(self) -> None:
        """What is asked for from now on raises `StoreClosed`."""
        self._closed = True
        async with self._one_at_a_time:
            if self._watching is not None:
                await self._watching.close()
                self._watching = None
        await self._engine.dispose()

    # --- Reads ----------------------------------------------------------------------------------------------------

    async def load(self) -> list[Kept]:
        """All records, by name."""
        return await self._read(_load)

    async def change_count(self) -> int:
        """A number that differs from the last one after another process, or this one, has written. Costs no read of a
        table."""
        async with self._one_at_a_time:
            self._require_open()
            try:
                if self._watching is None:
                    # One connection for good: SQLite counts what others than this very connection have written.
                    self._watching = await self._engine.connect()
                async with self._watching.begin():
                    return int((await self._watching.exec_driver_sql("PRAGMA data_version")).scalar_one())
            except SQLAlchemyError as error:
                if self._watching is not None:
                    await self._watching.invalidate()
                    self._watching = None
                raise _unavailable(error) from error

    # --- Writes: each raises `StoreUnavailable` when it is not on the disk -----------------------------------------

    async def revoke(self, nodes: Sequence[str], at: float) -> list[Kept]:
        """Those that are revoked already stay as they are."""
        return await self._write(lambda connection: [_revoke(connection, node, at) for node in nodes])

    async def undo(self, nodes: Sequence[str], at: float) -> list[Kept]:
        """Raises `NotRevoked`; then nothing is changed."""
        return await self._write(lambda connection: [_undo(connection, node, at) for node in nodes])

    async def applied(self, node: str, number: int, *, session_ended: bool) -> None:
        """The hub has acted on the record as of ``number``."""
        statement = (
            update(revocations)
            .where(revocations.c.node == node, revocations.c.number >= number, revocations.c.applied < number)
            .values(applied=number, session_ended=session_ended)
        )
        await self._write(lambda connection: connection.execute(statement))

    async def add_certificate(
        self, node: str, *, number: int, serial: int, signed_at: float, expires_at: float
    ) -> bool:
        """False, and nothing is changed, when the record is no longer at ``number`` or the name is revoked."""
        return await self._write(
            lambda connection: _add_certificate(connection, node, number, serial, signed_at, expires_at)
        )

    def _require_open(self) -> None:
        # A connection that is made after the engine was disposed of would be nobody's to close.
        if self._closed:
            raise StoreClosed("the store of revocations is closed")

    async def _read(self, work: Callable[[Connection], T]) -> T:
        self._require_open()
        try:
            async with self._engine.connect() as connection:
                return await connection.run_sync(work)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    async def _write(self, work: Callable[[Connection], T]) -> T:
        self._require_open()
        try:
            async with self._engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                return await connection.run_sync(work)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error


def _unavailable(error: SQLAlchemyError) -> StoreUnavailable:
    return StoreUnavailable(words_of(error))


def _load(connection: Connection, node: str | None = None) -> list[Kept]:
    signed: dict[str, list[Any]] = {}
    rows, signings = select(revocations).order_by(revocations.c.node), select(certificates)
    if node is not None:
        rows, signings = rows.where(revocations.c.node == node), signings.where(certificates.c.node == node)
    for row in connection.execute(signings):
        signed.setdefault(row.node, []).append(row)
    return [
        Kept(
            revocation=Revocation(
                node=row.node,
                number=row.number,
                revoked_at=row.revoked_at,
                undone_at=row.undone_at,
                certificates=frozenset(int(entry.serial, 16) for entry in signed.get(row.node, ())),
            ),
            applied=row.applied,
            session_ended=row.session_ended,
            last_signed_at=max((entry.signed_at for entry in signed.get(row.node, ())), default=None),
        )
        for row in connection.execute(rows)
    ]


def _find(connection: Connection, node: str) -> Kept | None:
    return next(iter(_load(connection, node)), None)


def _revoke(connection: Connection, node: str, at: float) -> Kept:
    found = _find(connection, node)
    if found is None:
        connection.execute(insert(revocations).values(node=node, number=1, revoked_at=at))
    elif found.revocation.undone_at is not None:
        connection.execute(delete(certificates).where(certificates.c.node == node))
        connection.execute(
            update(revocations)
            .where(revocations.c.node == node)
            .values(number=revocations.c.number + 1, revoked_at=at, undone_at=None)
        )
    return _load(connection, node)[0]


def _undo(connection: Connection, node: str, at: float) -> Kept:
    found = _find(connection, node)
    if found is None or found.revocation.undone_at is not None:
        raise NotRevoked(node)
    connection.execute(
        update(revocations).where(revocations.c.node == node).values(number=revocations.c.number + 1, undone_at=at)
    )
    return _load(connection, node)[0]


def _add_certificate(
    connection: Connection, node: str, number: int, serial: int, signed_at: float, expires_at: float
) -> bool:
    found = _find(connection, node)
    if found is None or found.revocation.number != number or found.revocation.undone_at is None:
        return False
    newest = (
        select(certificates.c.serial)
        .where(certificates.c.node == node, certificates.c.expires_at > signed_at)
        .order_by(certificates.c.signed_at.desc(), text("rowid DESC"))
        .limit(MAX_CERTIFICATES - 1)
    )
    connection.execute(delete(certificates).where(certificates.c.node == node, certificates.c.serial.not_in(newest)))
    connection.execute(
        insert(certificates).values(node=node, serial=f"{serial:x}", signed_at=signed_at, expires_at=expires_at)
    )
    return True
