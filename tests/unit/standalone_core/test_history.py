"""The ring of events that watches and pages read."""

from __future__ import annotations

import asyncio

import pytest

from cloudhub.standalone.history import Event, EventType, Expired, History, ObjectKey, StoredObject


def stored(name: str, revision: int, size: int = 10) -> StoredObject:
    return StoredObject(ObjectKey("nodes", "", name), revision, b"x" * size, "uid", {})


def added(name: str, revision: int, size: int = 10) -> Event:
    return Event(EventType.ADDED, stored(name, revision, size), None)


def revisions(events: list[Event]) -> list[int]:
    return [event.revision for event in events]


def test_events_after_a_revision_come_in_order_and_in_slices() -> None:
    history = History(floor=10)
    for revision in (11, 14, 15, 20):
        history.append(added("a", revision))
    assert revisions(history.since(10, 100)) == [11, 14, 15, 20]
    assert revisions(history.since(14, 100)) == [15, 20]
    assert revisions(history.since(13, 2)) == [14, 15]
    assert history.since(20, 100) == []


def test_a_revision_before_the_floor_is_expired() -> None:
    history = History(floor=10)
    assert history.since(10, 1) == []
    with pytest.raises(Expired, match=r"^too old resource version: 9 \(10\)$"):
        history.since(9, 1)


def test_the_oldest_events_go_by_number() -> None:
    history = History(floor=0, max_events=3)
    for revision in range(1, 6):
        history.append(added("a", revision))
    assert history.floor == 2
    assert revisions(history.since(2, 10)) == [3, 4, 5]
    with pytest.raises(Expired):
        history.since(1, 10)


def test_the_oldest_events_go_by_size_but_the_newest_stays() -> None:
    history = History(floor=0, max_bytes=100)
    history.append(added("a", 1, 60))
    history.append(added("b", 2, 60))
    assert history.floor == 1
    history.append(added("c", 3, 1000))
    assert revisions(history.since(2, 10)) == [3]


def test_what_was_is_what_is_with_the_events_since_undone() -> None:
    history = History(floor=0)
    first, changed = stored("a", 1), stored("a", 3)
    history.append(Event(EventType.ADDED, first, None))
    history.append(added("b", 2))
    history.append(Event(EventType.MODIFIED, changed, first))
    history.append(Event(EventType.DELETED, stored("a", 4), changed))
    assert history.undone_to(4) == {}
    assert history.undone_to(3) == {changed.key: changed}
    assert history.undone_to(2) == {first.key: first}
    assert history.undone_to(1) == {first.key: first, ObjectKey("nodes", "", "b"): None}
    assert history.undone_to(0)[first.key] is None


async def test_watchers_are_woken_until_they_leave() -> None:
    history = History(floor=0)
    wake = asyncio.Event()
    history.watch(wake)
    history.append(added("a", 1))
    assert wake.is_set()
    wake.clear()
    history.unwatch(wake)
    history.append(added("b", 2))
    assert not wake.is_set()
