"""The committer: one order, nothing lost, nothing shown that is not on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudhub.standalone import storage as storage_module
from cloudhub.standalone.history import Event, EventType, ObjectKey, StoredObject
from cloudhub.standalone.storage import (
    MAX_OBJECT_BYTES,
    Change,
    Lookup,
    ObjectTooLarge,
    Stale,
    Storage,
    WriteFailed,
    encode_tail,
    serialise,
)
from cloudhub.store.engine import open_database
from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.objects import ObjectRow, ObjectStore, RevisionConflict, RowKey


def key(name: str, resource: str = "nodes", namespace: str = "") -> ObjectKey:
    return ObjectKey(resource, namespace, name)


def obj(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, **fields}


def create(name: str, **fields: Any) -> Change:
    return Change(key(name), None, obj(name, **fields))


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Storage]:
    store = ObjectStore(await open_database(path / "objects.db", "objects"))
    storage = Storage(rows=store)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()
        await store.close()


class FailingRows:
    """A disk that can be full."""

    def __init__(self) -> None:
        self.full = False
        self.batches: list[int] = []
        self.hold: asyncio.Event | None = None

    async def load(self) -> tuple[int, list[ObjectRow]]:
        return 0, []

    async def write(self, *, revision: int, puts: list[ObjectRow], deletes: list[RowKey]) -> None:
        if self.hold is not None:
            await self.hold.wait()
        await self.probe()
        self.batches.append(len(puts) + len(deletes))

    async def probe(self) -> None:
        if self.full:
            raise StoreUnavailable("the store cannot be used: database or disk is full")


@asynccontextmanager
async def over(rows: FailingRows) -> AsyncIterator[Storage]:
    storage = Storage(rows=rows)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


async def test_objects_and_revisions_are_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        first = await storage.write(create("a", spec={"é": "ü"}))
        second = await storage.write(create("b"))
        await storage.write(Change(key("b"), second, obj("b"), remove=True))
        assert storage.revision == 3
    async with opened(tmp_path) as storage:
        assert storage.revision == 3
        again = storage.get(key("a"))
        assert again is not None
        assert (again.revision, again.body, again.uid) == (first.revision, first.body, "uid-a")
        assert again.parse()["spec"] == {"é": "ü"}
        assert storage.get(key("b")) is None
        assert (await storage.write(create("c"))).revision == 4


async def test_a_change_from_an_object_that_is_not_live_is_stale(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        first = await storage.write(create("a"))
        with pytest.raises(Stale):
            await storage.write(create("a"))
        second = await storage.write(Change(key("a"), first, obj("a", x=1)))
        with pytest.raises(Stale):
            await storage.write(Change(key("a"), first, obj("a", x=2)))
        await storage.write(Change(key("a"), second, obj("a"), remove=True))
        with pytest.raises(Stale):
            await storage.write(Change(key("a"), second, obj("a", x=3)))
        assert storage.get(key("a")) is None


async def test_writes_that_wait_share_a_transaction_and_keep_their_order() -> None:
    rows = FailingRows()
    rows.hold = asyncio.Event()
    async with over(rows) as storage:
        events: list[Event] = []
        storage.on_commit(events.append)
        writes = [asyncio.ensure_future(storage.write(create(f"n{at}"))) for at in range(10)]
        while not rows.batches and storage.revision == 0 and not rows.hold.is_set():
            await asyncio.sleep(0)
            rows.hold.set()
        done = await asyncio.gather(*writes)
        assert rows.batches == [10]
        assert [stored.revision for stored in done] == list(range(1, 11))
        assert [event.object for event in events] == done


async def test_nothing_is_shown_before_it_is_on_disk() -> None:
    rows = FailingRows()
    rows.hold = asyncio.Event()
    async with over(rows) as storage:
        writing = asyncio.ensure_future(storage.write(create("a")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert storage.get(key("a")) is None
        assert storage.revision == 0
        rows.hold.set()
        stored = await writing
        assert storage.get(key("a")) is stored


async def test_a_full_disk_fails_the_writers_changes_nothing_and_heals() -> None:
    rows = FailingRows()
    async with over(rows) as storage:
        first = await storage.write(create("a"))
        rows.full = True
        failed = await asyncio.gather(
            storage.write(create("b")), storage.write(Change(key("a"), first, obj("a", x=1))), return_exceptions=True
        )
        assert all(isinstance(error, WriteFailed) for error in failed)
        assert "disk is full" in str(failed[0])
        assert "disk is full" in str(storage.problem())
        assert storage.get(key("b")) is None
        assert storage.get(key("a")) is first
        assert storage.revision == 1
        rows.full = False
        assert (await storage.write(create("b"))).revision > 1
        assert storage.problem() is None


async def test_that_there_is_space_again_is_noticed_without_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "PROBE_SECONDS", 0.01)
    rows = FailingRows()
    async with over(rows) as storage:
        rows.full = True
        with pytest.raises(WriteFailed):
            await storage.write(create("a"))
        await asyncio.sleep(0.05)  # several probes find it full
        assert storage.problem() is not None
        rows.full = False
        async with asyncio.timeout(60):
            while True:
                if storage.problem() is None:
                    break
                await asyncio.sleep(0.01)


async def test_a_check_sees_what_went_before_in_its_transaction() -> None:
    rows = FailingRows()
    async with over(rows) as storage:
        seen: list[StoredObject | None] = []

        def check(lookup: Lookup) -> None:
            seen.append(lookup(key("a")))
            raise PermissionError("not now")

        first, second = await asyncio.gather(
            storage.write(create("a")),
            storage.write(Change(key("b"), None, obj("b"), check=check)),
            return_exceptions=True,
        )
        assert isinstance(first, StoredObject)
        assert isinstance(second, PermissionError)
        assert seen == [first]
        assert rows.batches == [1]


async def test_an_object_deleted_and_made_again_at_once_is_the_new_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage:
        first = await storage.write(create("a"))
        events: list[EventType] = []
        storage.on_commit(lambda event: events.append(event.type))
        _, made = await asyncio.gather(
            storage.write(Change(key("a"), first, obj("a"), remove=True)), storage.write(create("a", x=2))
        )
        assert events == [EventType.DELETED, EventType.ADDED]
    async with opened(tmp_path) as storage:
        again = storage.get(key("a"))
        assert again is not None
        assert again.body == made.body


async def test_an_object_above_the_limit_is_refused() -> None:
    async with over(FailingRows()) as storage:
        with pytest.raises(ObjectTooLarge):
            await storage.write(create("a", data="x" * MAX_OBJECT_BYTES))
        assert (await storage.write(create("a"))).revision == 1


async def test_a_writer_that_gave_up_before_its_turn_wrote_nothing() -> None:
    rows = FailingRows()
    rows.hold = asyncio.Event()
    async with over(rows) as storage:
        first = asyncio.ensure_future(storage.write(create("a")))
        for _ in range(5):
            await asyncio.sleep(0)
        second = asyncio.ensure_future(storage.write(create("b")))
        await asyncio.sleep(0)
        second.cancel()
        rows.hold.set()
        await first
        await storage.write(create("c"))
        assert storage.get(key("b")) is None


async def test_stopping_refuses_what_waits() -> None:
    rows = FailingRows()
    rows.hold = asyncio.Event()
    async with over(rows) as storage:
        waiting = [asyncio.ensure_future(storage.write(create(name))) for name in ("a", "b")]
        for _ in range(5):
            await asyncio.sleep(0)
        await storage.stop()
        assert all(isinstance(error, WriteFailed) for error in await asyncio.gather(*waiting, return_exceptions=True))
        with pytest.raises(WriteFailed):
            await storage.write(create("c"))


async def test_keys_come_in_order_by_namespace_and_from_behind_a_key() -> None:
    async with over(FailingRows()) as storage:
        for namespace, name in (("b", "y"), ("a", "z"), ("b", "x"), ("ab", "q"), ("a", "a")):
            await storage.write(Change(key(name, "secrets", namespace), None, obj(name)))
        collection = storage.collection("secrets")
        assert [(k.namespace, k.name) for k in collection.ordered()] == [
            ("a", "a"), ("a", "z"), ("ab", "q"), ("b", "x"), ("b", "y"),
        ]  # fmt: skip
        assert [k.name for k in collection.ordered("a")] == ["a", "z"]
        assert [k.name for k in collection.ordered("b", key("x", "secrets", "b"))] == ["y"]
        assert collection.ordered("none") == []


async def test_two_processes_cannot_both_write(tmp_path: Path) -> None:
    store = ObjectStore(await open_database(tmp_path / "objects.db", "objects"))
    try:
        await store.write(revision=5, puts=[ObjectRow("nodes", "", "a", 5, b"{}")], deletes=[])
        with pytest.raises(RevisionConflict):
            await store.write(revision=5, puts=[ObjectRow("nodes", "", "b", 4, b"{}")], deletes=[])
        assert await store.load() == (5, [ObjectRow("nodes", "", "a", 5, b"{}")])
    finally:
        await store.close()


_fields = st.dictionaries(st.text(min_size=1), st.none() | st.text() | st.integers() | st.lists(st.booleans()))


@given(_fields, st.integers(min_value=1, max_value=2**62))
def test_a_stored_object_reads_as_it_was_written(fields: dict[str, Any], revision: int) -> None:
    fields.pop("metadata", None)
    original = {**fields, "metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}}}
    tail = encode_tail(original)
    stored = serialise(key("a"), original, revision, tail)
    assert stored.parse() == {**fields, "metadata": {**original["metadata"], "resourceVersion": str(revision)}}
    assert stored.body.startswith(b'{"metadata":{')
    assert serialise(key("a"), original, revision).body == stored.body
    assert stored.labels == {"x": "y"}


Step = tuple[str, str]
_steps = st.lists(st.tuples(st.sampled_from(["create", "update", "delete"]), st.sampled_from("abc")), max_size=25)


@settings(max_examples=25, deadline=None)
@given(_steps)
async def test_history_replayed_gives_what_is_live(steps: list[Step]) -> None:
    async with over(FailingRows()) as storage:
        snapshots: list[tuple[int, dict[ObjectKey, StoredObject]]] = []
        for verb, name in steps:
            live = storage.get(key(name))
            if (live is None) is not (verb == "create"):
                continue
            await storage.write(Change(key(name), live, obj(name, n=len(snapshots)), remove=verb == "delete"))
            snapshots.append((storage.revision, dict(storage.collection("nodes").objects)))
        collection = storage.collection("nodes")
        replayed: dict[ObjectKey, StoredObject] = {}
        for event in collection.history.since(0, 100):
            if event.type is EventType.DELETED:
                del replayed[event.object.key]
            else:
                replayed[event.object.key] = event.object
        assert replayed == collection.objects
        for revision, then in snapshots:
            undone = {**collection.objects, **collection.history.undone_to(revision)}
            assert {k: v for k, v in undone.items() if v is not None} == then
