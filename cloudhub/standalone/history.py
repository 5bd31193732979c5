"""The latest events of one resource, bounded: what watches read, and what makes a list's later pages consistent.

The problem: every watcher must see every event of its resource once and in order, a watcher that reads slowly must
neither delay the others nor grow memory, and a page of a list must show the state that its first page showed.
One ring of events serves all. A watcher is a revision and nothing more: it asks for what came after it, and when the
ring has gone past that revision it is told so (`Expired`, 410 to the client). There is no queue per watcher.
The state at an older revision is today's state with the events since then undone, so each event keeps its previous
object; that one is the object of an earlier event, or was live before, and is shared, not copied.

Limits: the ring holds at most `MAX_EVENTS` events and `MAX_BYTES` of bodies, but always the newest event.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple

MAX_EVENTS: Final = 16_384
MAX_BYTES: Final = 32 * 1024 * 1024


class ObjectKey(NamedTuple):
    """``resource`` is ``secrets`` or ``leases.coordination.k8s.io``; ``namespace`` is empty in cluster scope."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it stands at one revision. ``body`` is its JSON without apiVersion and kind, and begins with
    ``{"metadata":``: the head of whichever version is asked for goes before it without parsing."""

    key: ObjectKey
    revision: int
    body: bytes = field(repr=False)
    uid: str
    labels: Mapping[str, str] = field(repr=False)
    deleting: bool = False
    """It has a deletionTimestamp."""

    def parse(self) -> dict[str, Any]:
        """A new object that is the caller's own, without apiVersion and kind."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def render(self, head: bytes) -> bytes:
        """``head`` is ``{"apiVersion":...,"kind":...,``."""
        return head + self.body[1:]


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Event:
    type: EventType
    object: StoredObject
    """Of a deletion: the object as it was last, at the revision of its deletion."""
    previous: StoredObject | None

    @property
    def revision(self) -> int:
        return self.object.revision


class Expired(Exception):
    """The history does not reach back to the revision asked for."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {asked} ({oldest})")


class History:
    def __init__(self, *, floor: int, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._floor = floor
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._watchers: set[asyncio.Event] = set()

    @property
    def floor(self) -> int:
        """Every event after this revision is held."""
        return self._floor

    def append(self, event: Event) -> None:
        self._events.append(event)
        self._bytes += len(event.object.body)
        while len(self._events) > 1 and (len(self._events) > self._max_events or self._bytes > self._max_bytes):
            oldest = self._events.popleft()
            self._floor = oldest.revision
            self._bytes -= len(oldest.object.body)
        for wake in self._watchers:
            wake.set()

    def since(self, revision: int, limit: int) -> list[Event]:
        """Up to ``limit`` events after ``revision``, oldest first. Raises `Expired`."""
        self._require(revision)
        # A deque finds its ends at once and its middle by walking blocks: watchers read near the end.
        at = bisect_right(self._events, revision, key=lambda event: event.revision)
        return list(islice(self._events, at, at + limit))

    def undone_to(self, revision: int) -> dict[ObjectKey, StoredObject | None]:
        """By key, what was there at ``revision`` where it is not what is there now. Raises `Expired`."""
        self._require(revision)
        before: dict[ObjectKey, StoredObject | None] = {}
        for event in reversed(self._events):
            if event.revision <= revision:
                break
            before[event.object.key] = event.previous
        return before

    def watch(self, wake: asyncio.Event) -> None:
        """``wake`` is set after each event until `unwatch`."""
        self._watchers.add(wake)

    def unwatch(self, wake: asyncio.Event) -> None:
        self._watchers.discard(wake)

    def _require(self, revision: int) -> None:
        if revision < self._floor:
            raise Expired(revision, self._floor)
