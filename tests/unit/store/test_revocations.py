"""The store of revocations: what it keeps, what it refuses, and two processes at one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cloudhub.store.engine import is_owned, open_beside, open_database
from cloudhub.store.errors import CorruptDatabase, DatabaseInUse, OtherSchema, StoreClosed, StoreUnavailable
from cloudhub.store.revocations import FILE, MAX_CERTIFICATES, Kept, NotRevoked, RevocationStore


async def open_store(folder: Path) -> RevocationStore:
    return RevocationStore(await open_database(folder / FILE, "revocations"))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[RevocationStore]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


async def only(store: RevocationStore) -> Kept:
    (kept,) = await store.load()
    return kept


async def add(store: RevocationStore, number: int, serial: int, *, at: float = 300.0, ends: float = 1e9) -> bool:
    return await store.add_certificate("edge-1", number=number, serial=serial, signed_at=at, expires_at=ends)


async def test_what_was_revoked_is_revoked_after_a_restart(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.revoke(["edge-2", "edge-1"], 100.5)
    await store.close()
    store = await open_store(tmp_path)
    found = [
        (kept.revocation.node, kept.revocation.revoked_at, kept.revocation.undone_at) for kept in await store.load()
    ]
    await store.close()
    assert found == [("edge-1", 100.5, None), ("edge-2", 100.5, None)]


async def test_revoking_again_changes_nothing(store: RevocationStore) -> None:
    first = await store.revoke(["edge-1"], 100.0)
    assert await store.revoke(["edge-1"], 200.0) == first
    assert (await only(store)).revocation.number == 1


async def test_only_what_is_revoked_can_be_undone_and_else_nothing_changes(store: RevocationStore) -> None:
    await store.revoke(["edge-1"], 100.0)
    with pytest.raises(NotRevoked) as caught:
        await store.undo(["edge-1", "edge-2"], 200.0)
    assert caught.value.node == "edge-2"
    assert (await only(store)).revocation.undone_at is None
    (kept,) = await store.undo(["edge-1"], 200.0)
    assert (kept.revocation.number, kept.revocation.undone_at) == (2, 200.0)
    with pytest.raises(NotRevoked):
        await store.undo(["edge-1"], 300.0)


async def test_certificates_are_taken_only_for_the_present_record_of_a_name_that_may_join(
    store: RevocationStore,
) -> None:
    assert not await add(store, 1, 0xA)
    await store.revoke(["edge-1"], 100.0)
    assert not await add(store, 1, 0xA)
    await store.undo(["edge-1"], 200.0)
    assert not await add(store, 1, 0xA)
    assert await add(store, 2, 0xA)
    assert (await only(store)).revocation.certificates == {0xA}
    assert (await only(store)).last_signed_at == 300.0


async def test_revoking_once_more_forgets_the_certificates_for_good(store: RevocationStore) -> None:
    await store.revoke(["edge-1"], 100.0)
    await store.undo(["edge-1"], 200.0)
    assert await add(store, 2, 0xA)
    await store.revoke(["edge-1"], 400.0)
    await store.undo(["edge-1"], 500.0)
    kept = await only(store)
    assert (kept.revocation.number, kept.revocation.certificates, kept.last_signed_at) == (4, frozenset(), None)


async def test_the_longest_serial_number_is_kept_whole(store: RevocationStore) -> None:
    serial = (1 << 160) - 1
    await store.revoke(["edge-1"], 100.0)
    await store.undo(["edge-1"], 200.0)
    assert await add(store, 2, serial)
    assert (await only(store)).revocation.certificates == {serial}


async def test_whoever_has_a_good_token_cannot_fill_the_store(store: RevocationStore) -> None:
    await store.revoke(["edge-1"], 100.0)
    await store.undo(["edge-1"], 200.0)
    await add(store, 2, 999, ends=310.0)
    for serial in range(1, MAX_CERTIFICATES + 10):
        assert await add(store, 2, serial, at=300.0 + serial)
    newest = set(range(10, MAX_CERTIFICATES + 10))
    assert (await only(store)).revocation.certificates == newest


async def test_what_the_hub_has_acted_upon_only_rises(store: RevocationStore) -> None:
    await store.revoke(["edge-1"], 100.0)
    assert not (await only(store)).is_applied
    await store.applied("edge-1", 1, session_ended=True)
    assert ((await only(store)).is_applied, (await only(store)).session_ended) == (True, True)
    await store.undo(["edge-1"], 200.0)
    assert not (await only(store)).is_applied
    await store.applied("edge-1", 2, session_ended=False)
    await store.applied("edge-1", 1, session_ended=True)
    # Of a number that it has not: another process's record, later than this hub has read.
    await store.applied("edge-1", 3, session_ended=True)
    kept = await only(store)
    assert (kept.applied, kept.session_ended) == (2, False)


async def test_a_write_beside_the_owner_is_noticed_without_reading(tmp_path: Path, store: RevocationStore) -> None:
    before = await store.change_count()
    assert await store.change_count() == before
    beside = RevocationStore(await open_beside(tmp_path / FILE, "revocations"))
    await beside.revoke(["edge-1"], 100.0)
    await beside.close()
    assert await store.change_count() != before
    assert (await only(store)).revocation.node == "edge-1"


async def test_what_is_asked_of_a_closed_store_opens_nothing_again(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    asked = [asyncio.create_task(store.change_count()) for _ in range(5)]
    await asyncio.sleep(0)
    await store.close()
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(answer, int | StoreClosed)
    for call in (store.change_count(), store.load(), store.revoke(["edge-1"], 1.0)):
        with pytest.raises(StoreClosed):
            await call
    assert not is_owned(tmp_path / FILE)


async def test_the_owner_keeps_the_lock_and_whoever_writes_beside_needs_none(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert not is_owned(path)
    store = await open_store(tmp_path)
    assert is_owned(path)
    with pytest.raises(DatabaseInUse):
        await open_database(path, "revocations")
    beside = await open_beside(path, "revocations")
    await store.close()
    assert not is_owned(path)
    await beside.dispose()


async def test_the_hub_waits_for_a_command_that_is_at_it(tmp_path: Path) -> None:
    command = await open_store(tmp_path)
    opening = asyncio.create_task(open_database(tmp_path / FILE, "revocations", patience=60))
    await asyncio.sleep(0)
    assert not opening.done()
    await command.close()
    await (await opening).dispose()


async def test_beside_a_hub_of_another_version_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with pytest.raises(OtherSchema, match=r"revoked\.db is kept by a hub of another version"):
        await open_beside(path, "revocations")
    assert not path.exists()
    await (await open_database(path, "queue")).dispose()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM alembic_version")
    connection.commit()
    connection.close()
    with pytest.raises(OtherSchema):
        await open_beside(path, "revocations")


async def test_a_damaged_file_is_refused_on_both_ways(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(CorruptDatabase, match="is damaged or no SQLite database"):
        await open_database(tmp_path / FILE, "revocations")
    with pytest.raises(CorruptDatabase):
        await open_beside(tmp_path / FILE, "revocations")


async def test_a_file_that_is_lost_while_it_is_used_is_an_unavailability(
    tmp_path: Path, store: RevocationStore
) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("DROP TABLE certificates")
    connection.execute("DROP TABLE revocations")
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnavailable):
        await store.load()
    with pytest.raises(StoreUnavailable):
        await store.revoke(["edge-1"], 1.0)
