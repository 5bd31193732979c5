"""The queue and the embedded API's objects on a disk that is really full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudhub.store.engine import open_database
from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.objects import ObjectRow, ObjectStore
from cloudhub.store.room import LEAST_FREE, lack_of_room
from tests.parts.smalldisk import SmallDisk
from tests.unit.store.factory import new_job, open_queue


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size=4 << 20) as disk:
        yield disk


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


def test_room_is_what_the_file_system_says(disk: SmallDisk) -> None:
    assert disk.free_bytes > LEAST_FREE
    assert lack_of_room(disk.folder) is None
    disk.fill()
    assert lack_of_room(disk.folder) == f"the disk is full: {disk.folder} has 0 KiB free"
    disk.free()
    assert lack_of_room(disk.folder) is None
    assert lack_of_room(disk.folder / "absent") is None


async def test_an_idle_queue_notices_that_the_disk_is_full_and_that_it_is_not_any_more(disk: SmallDisk) -> None:
    async with open_queue(disk.folder / "queue.db") as queue:
        await queue.admit(new_job(nodes=10))
        disk.fill()
        await _until(lambda: queue.problem() is not None)
        assert "the disk is full" in str(queue.problem())
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await queue.admit(new_job("u2", nodes=10))
        disk.free()
        await _until(lambda: queue.problem() is None)
        assert await queue.names() == [("u1", "job-u1")]
        await queue.admit(new_job("u2", nodes=10))


async def test_objects_that_cannot_be_written_are_told_in_the_drivers_words(disk: SmallDisk) -> None:
    store = ObjectStore(await open_database(disk.folder / "objects.db", "objects"))
    row = ObjectRow("pods", "default", "a", 1, bytes(1 << 20))
    try:
        disk.fill()
        with pytest.raises(StoreUnavailable, match="the store cannot be used: database or disk is full"):
            await store.write(revision=1, puts=[row], deletes=[])
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await store.probe()
        disk.free()
        await store.probe()
        await store.write(revision=1, puts=[row], deletes=[])
        assert await store.load() == (1, [row])
    finally:
        await store.close()
