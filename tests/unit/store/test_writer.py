"""Grouped commits: shared transactions, items that spoil, a database that cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from cloudhub.store import writer as writer_module
from cloudhub.store.engine import open_database
from cloudhub.store.errors import StoreClosed, StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Commit
from cloudhub.taskmanager.lifecycle import TaskEvent
from tests.unit.store.factory import change, new_job, open_queue, rows


@pytest_asyncio.fixture
async def queue(tmp_path: Path) -> AsyncIterator[TaskQueue]:
    async with open_queue(tmp_path / "queue.db") as opened:
        yield opened


async def _fill_the_disk(queue: TaskQueue) -> None:
    """No page more than there are: SQLite says the same as it says of a full disk."""
    await _on_writer(queue, "PRAGMA max_page_count = 1")


async def _on_writer(queue: TaskQueue, pragma: str) -> None:
    """On the connection that it has now."""

    def execute(connection: Connection) -> None:
        connection.exec_driver_sql(pragma)

    await queue._writer._thread.transaction(execute)


async def test_what_arrives_together_shares_a_transaction(queue: TaskQueue) -> None:
    commits: list[Commit] = []
    queue.on_commit = commits.append
    await queue.admit(new_job(nodes=200))
    outcomes = await asyncio.gather(*(queue.apply([change(f"n{n}", TaskEvent.DISPATCHED)]) for n in range(200)))
    assert all(outcome.applied for (outcome,) in outcomes)
    assert len(commits) == 2
    assert len(commits[1].outcomes) == 200


async def test_the_hook_hears_of_a_commit_before_its_waiters_go_on(queue: TaskQueue) -> None:
    order: list[str] = []
    queue.on_commit = lambda commit: order.append("hook")
    await queue.admit(new_job())
    order.append("waiter")
    assert order == ["hook", "waiter"]


async def test_what_was_waited_for_is_on_the_disk(queue: TaskQueue, tmp_path: Path) -> None:
    await queue.admit(new_job(nodes=1))
    await queue.apply([change("n0", TaskEvent.DISPATCHED)])
    # As after SIGKILL: the files are copied while the first owner still has them open.
    (tmp_path / "copy").mkdir()
    for suffix in ("", "-wal"):
        (tmp_path / "copy" / f"queue.db{suffix}").write_bytes((tmp_path / f"queue.db{suffix}").read_bytes())
    async with open_queue(tmp_path / "copy" / "queue.db") as copy:
        assert await rows(copy, "state") == {"n0": "Checking"}


async def test_an_item_that_raises_spoils_no_other(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=3))
    results = await asyncio.gather(
        queue.apply([change("n0", TaskEvent.DISPATCHED)]),
        queue.admit(new_job("u2", nodes=["same", "same"])),
        queue.apply([change("n1", TaskEvent.DISPATCHED)]),
        return_exceptions=True,
    )
    assert isinstance(results[1], IntegrityError)
    assert await rows(queue, "state") == {"n0": "Checking", "n1": "Checking", "n2": "Pending"}
    assert await queue.job("u2") is None
    assert queue.problem() is None


async def test_cancelling_a_waiter_does_not_undo_its_write(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    waiter = asyncio.create_task(queue.apply([change("n0", TaskEvent.DISPATCHED)]))
    await asyncio.sleep(0)
    waiter.cancel()
    await queue.remove("nobody")
    assert await rows(queue, "state") == {"n0": "Checking"}


async def test_a_full_disk_is_a_problem_that_heals_by_itself(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "PROBE_SECONDS", 0.01)
    await queue.admit(new_job(nodes=1))
    # The probe's new connections have no limit of their own, so the fault is put where each of them passes.
    full = [True]
    thread = queue._writer._thread
    original = thread._transaction

    def transaction(work: Callable[[Connection], object]) -> object:
        def limited(connection: Connection) -> object:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full[0] else 1_000_000}")
            return work(connection)

        return original(limited)

    monkeypatch.setattr(thread, "_transaction", transaction)
    with pytest.raises(StoreUnavailable, match="full"):
        await queue.admit(new_job("u2", nodes=5000))
    assert queue.problem() is not None
    assert "full" in str(queue.problem())
    with pytest.raises(StoreUnavailable, match="full"):
        await queue.apply([change("n0", TaskEvent.DISPATCHED)])
    assert await rows(queue, "state") == {"n0": "Pending"}
    full[0] = False
    await asyncio.wait_for(queue.working(), 5)
    assert queue.problem() is None
    await queue.admit(new_job("u2", nodes=5000))
    assert {uid for uid, _ in await queue.names()} == {"u1", "u2"}


async def test_a_disk_without_room_is_noticed_by_who_writes_nothing(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PROBE_SECONDS", 0.01)
    lack: list[str | None] = ["the disk is full: /x has 0 KiB free"]
    monkeypatch.setattr(queue._writer, "_lack_of_room", lambda: lack[0])
    # Nobody writes: it finds out by itself, and says so to whoever asks.
    async with asyncio.timeout(60):
        while True:
            if queue.problem() is not None:
                break
            await asyncio.sleep(0.01)
    assert queue.problem() == "the store cannot be used: the disk is full: /x has 0 KiB free"
    with pytest.raises(StoreUnavailable, match="0 KiB free"):
        await queue.admit(new_job(nodes=1))
    lack[0] = None
    async with asyncio.timeout(60):
        await queue.recovered()
    assert queue.problem() is None
    assert await queue.names() == []
    await queue.admit(new_job(nodes=1))


async def test_all_who_wait_hear_of_a_failed_commit(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=2))
    await _on_writer(queue, "PRAGMA query_only = ON")
    results = await asyncio.gather(
        *(queue.apply([change(f"n{n}", TaskEvent.DISPATCHED)]) for n in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert "readonly" in str(results[0])
    # A new connection is not read-only: the probe finds that out.
    await asyncio.wait_for(queue.working(), 5)
    assert (await queue.apply([change("n0", TaskEvent.DISPATCHED)]))[0].applied


async def test_a_disk_that_is_full_in_the_middle_of_a_commit_leaves_no_half(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    await _fill_the_disk(queue)
    with pytest.raises(StoreUnavailable):
        await queue.admit(new_job("u2", nodes=5000))
    await asyncio.wait_for(queue.working(), 5)
    assert await queue.names() == [("u1", "job-u1")]
    assert await rows(queue, "state", uid="u2") == {}


async def test_a_closed_store_says_so_and_wrote_what_was_submitted(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.admit(new_job(nodes=1))
        writes = [asyncio.create_task(queue.apply([change("n0", TaskEvent.DISPATCHED)])) for _ in range(3)]
        await asyncio.sleep(0)
    assert [(await write)[0].applied for write in writes] == [True, False, False]
    with pytest.raises(StoreClosed):
        await queue.remove("u1")
    with pytest.raises(StoreClosed):
        await queue.job("u1")
    async with open_queue(tmp_path / "queue.db") as queue:
        assert await rows(queue, "state") == {"n0": "Checking"}


async def test_a_store_with_a_problem_can_be_closed_at_once(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.admit(new_job(nodes=1))
        await _on_writer(queue, "PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable):
            await queue.apply([change("n0", TaskEvent.DISPATCHED)])
        async with asyncio.timeout(2):
            await queue.close()
    engine = await open_database(tmp_path / "queue.db", "queue")
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM jobs"))).scalar_one() == 1
    await engine.dispose()
