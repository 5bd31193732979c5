"""Old Events, and what a cut-off deletion leaves to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest_asyncio

from cloudhub.standalone.cleanup import Cleanup
from cloudhub.standalone.history import ObjectKey
from cloudhub.standalone.storage import Change, Storage
from cloudhub.store.objects import ObjectRow, RowKey

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class MemoryRows:
    async def load(self) -> tuple[int, list[ObjectRow]]:
        return 0, []

    async def write(self, *, revision: int, puts: list[ObjectRow], deletes: list[RowKey]) -> None:
        return

    async def probe(self) -> None:
        return


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[Storage]:
    storage = Storage(rows=MemoryRows())
    await storage.start()
    yield storage
    await storage.stop()


async def put(storage: Storage, key: ObjectKey, **fields: Any) -> None:
    metadata = {"name": key.name, "uid": key.name, **fields.pop("metadata", {})}
    await storage.write(Change(key, storage.get(key), {"metadata": metadata, **fields}))


async def run_until(cleanup: Cleanup, storage: Storage, gone: ObjectKey) -> None:
    task = asyncio.create_task(cleanup.run())
    try:
        async with asyncio.timeout(60):
            while storage.get(gone) is not None:  # noqa: ASYNC110 - the storage has nothing to wait on
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_events_go_an_hour_after_they_were_last_seen(storage: Storage) -> None:
    def event(name: str) -> ObjectKey:
        return ObjectKey("events", "default", name)

    old = {"creationTimestamp": "2026-06-01T10:00:00Z"}
    await put(storage, event("old"), metadata=old)
    await put(storage, event("seen-again"), metadata=old, lastTimestamp="2026-06-01T11:30:00Z")
    await put(storage, event("series"), metadata=old, series={"lastObservedTime": "2026-06-01T11:30:00.123456Z"})
    await put(storage, event("new"), metadata={"creationTimestamp": "2026-06-01T11:59:00Z"})
    await run_until(Cleanup(storage=storage, now=lambda: NOW), storage, event("old"))
    left = [key.name for key in storage.collection("events").ordered()]
    assert left == ["new", "seen-again", "series"]


async def test_a_namespace_marked_before_the_start_is_finished(storage: Storage) -> None:
    marked = {"deletionTimestamp": "2026-06-01T11:00:00Z"}
    namespace = ObjectKey("namespaces", "", "team")
    await put(storage, namespace, metadata=marked, spec={"finalizers": ["kubernetes"]})
    for resource in ("secrets", "configmaps"):
        await put(storage, ObjectKey(resource, "team", "a"))
        await put(storage, ObjectKey(resource, "other", "a"))
    await run_until(Cleanup(storage=storage, now=lambda: NOW), storage, namespace)
    assert storage.in_namespace("team") == []
    assert len(storage.in_namespace("other")) == 2


async def test_finalizers_of_others_on_a_namespace_are_respected(storage: Storage) -> None:
    namespace, content = ObjectKey("namespaces", "", "team"), ObjectKey("secrets", "team", "a")
    marked = {"deletionTimestamp": "2026-06-01T11:00:00Z", "finalizers": ["example.com/hold"]}
    await put(storage, namespace, metadata=marked, spec={"finalizers": ["kubernetes"]})
    await put(storage, content)
    await run_until(Cleanup(storage=storage, now=lambda: NOW), storage, content)
    held = storage.get(namespace)
    assert held is not None
    assert held.parse()["metadata"]["finalizers"] == ["example.com/hold"]
