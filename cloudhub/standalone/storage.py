"""All objects, in memory to read and in SQLite to keep, behind one committer.

The problem: many requests write at once, each must be on disk before it is answered, and watchers must see every
change once and in one order. So every write goes through one committer: it takes what is waiting, checks each change
against what it was computed from, gives revisions, writes all in one transaction, and only then shows it to readers
and watchers and answers the writers. A change computed from an object that is no longer live is `Stale`; the caller
reads again (optimistic concurrency, as a cluster's API server does over etcd). A failed transaction changes nothing in
memory; its revisions are not used again. While one has failed and none went well since, `Storage.problem` says why, and
the file is tried once a second, so that it does not take a user's write to find out that all is well again.

Guarantees: revisions rise strictly over all resources, also over restarts; what was answered is on disk; readers see
committed objects only. Limits: everything is held in memory, as JSON text; the history for watches starts anew with
the process.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from cloudhub.standalone.history import Event, EventType, History, ObjectKey, StoredObject
from cloudhub.store.errors import CorruptDatabase, StoreUnavailable
from cloudhub.store.objects import ObjectRow, RowKey

log = structlog.get_logger(__name__)

MAX_OBJECT_BYTES: Final = 1_572_864
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_BATCH_CHANGES: Final = 256
_BATCH_BYTES: Final = 8 * 1024 * 1024
PROBE_SECONDS: Final = 1.0


class StorageError(Exception):
    """Base of what a write can end with."""


class Stale(StorageError):
    """The change was computed from an object that is not the live one any more."""


class ObjectTooLarge(StorageError):
    def __init__(self, size: int) -> None:
        super().__init__(f"the object has {size} bytes, the limit is {MAX_OBJECT_BYTES}")


class WriteFailed(StorageError):
    """The database could not be written: disk full, read-only, gone. Nothing was changed."""


class Rows(Protocol):
    """Where objects are kept: `cloudhub.store.objects.ObjectStore`."""

    async def load(self) -> tuple[int, list[ObjectRow]]: ...
    async def write(self, *, revision: int, puts: list[ObjectRow], deletes: list[RowKey]) -> None: ...
    async def probe(self) -> None: ...


Lookup = Callable[[ObjectKey], StoredObject | None]


@dataclass(slots=True)
class Change:
    """What one write makes of one object. ``object`` has no apiVersion and kind, and belongs to the storage from now
    on; on a removal it is the last state, which watchers are shown."""

    key: ObjectKey
    base: StoredObject | None
    """The live object that the change was computed from; None: there must be none."""
    object: dict[str, Any] = field(repr=False)
    remove: bool = False
    tail: bytes | None = field(default=None, repr=False)
    """`encode_tail` of the object, where it was made beside the loop already."""
    check: Callable[[Lookup], None] | None = None
    """Called at the committer's turn with the state as it then is; what it raises is the outcome. It sees changes that
    went before in the same transaction, so there is no gap between the check and the write."""


class Collection:
    """The objects of one resource."""

    def __init__(self, revision: int) -> None:
        self.objects: dict[ObjectKey, StoredObject] = {}
        self.history = History(floor=revision)
        self._sorted: list[ObjectKey] | None = None

    def ordered(self, namespace: str | None = None, after: ObjectKey | None = None) -> list[ObjectKey]:
        """In order of namespace and name; of one namespace if it is given; from behind ``after``."""
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        return select_keys(self._sorted, namespace, after)

    def apply(self, event: Event) -> None:
        if event.type is EventType.DELETED:
            del self.objects[event.object.key]
        else:
            self.objects[event.object.key] = event.object
        if event.type is not EventType.MODIFIED:
            self._sorted = None
        self.history.append(event)


def select_keys(ordered: list[ObjectKey], namespace: str | None, after: ObjectKey | None) -> list[ObjectKey]:
    start, end = 0, len(ordered)
    if namespace is not None and ordered:
        resource = ordered[0].resource
        start = bisect_left(ordered, ObjectKey(resource, namespace, ""))
        end = bisect_left(ordered, ObjectKey(resource, namespace + "\0", ""))
    if after is not None:
        start = max(start, bisect_left(ordered, ObjectKey(after.resource, after.namespace, after.name + "\0")))
    return ordered[start:end]


class Storage:
    def __init__(self, *, rows: Rows) -> None:
        self._rows = rows
        self._collections: dict[str, Collection] = {}
        self._revision = 0
        self._loaded = 0
        self._given = 0
        self._waiting: list[tuple[Change, asyncio.Future[StoredObject]]] = []
        self._wake = asyncio.Event()
        self._on_commit: Callable[[Event], None] | None = None
        self._problem: str | None = None
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._revision, rows = await self._rows.load()
        self._given = self._loaded = self._revision
        for row in rows:
            stored = _stored_of_row(row)
            self.collection(row.resource).objects[stored.key] = stored
        self._committer = asyncio.create_task(self._commit_forever(), name="standalone-committer")

    async def stop(self) -> None:
        """Ends the committer; what still waits is refused."""
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
            self._committer = None
        for _, outcome in self._take_all():
            _fail(outcome, WriteFailed("the server is stopping"))

    def on_commit(self, callback: Callable[[Event], None]) -> None:
        """``callback(event)`` for each committed event, in order, before its writer is answered."""
        self._on_commit = callback

    def problem(self) -> str | None:
        """Why objects cannot be written now; None while they can, as far as is known."""
        return self._problem

    @property
    def revision(self) -> int:
        """The revision of the last committed change."""
        return self._revision

    def collection(self, resource: str) -> Collection:
        found = self._collections.get(resource)
        if found is None:
            # No event of this resource since the start, or it would have a collection.
            found = self._collections[resource] = Collection(self._loaded)
        return found

    def get(self, key: ObjectKey) -> StoredObject | None:
        return self.collection(key.resource).objects.get(key)

    def in_namespace(self, namespace: str) -> list[StoredObject]:
        return [
            collection.objects[key]
            for collection in self._collections.values()
            for key in collection.ordered(namespace)
        ]

    async def write(self, change: Change) -> StoredObject:
        """The object as committed. Raises a `StorageError`, or what the change's check raised."""
        if self._committer is None or self._committer.done():
            raise WriteFailed("the server is not running")
        outcome: asyncio.Future[StoredObject] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, outcome))
        self._wake.set()
        return await outcome

    async def _commit_forever(self) -> None:
        while True:
            if not await self._woken():
                await self._probe()
                continue
            self._wake.clear()
            # One turn of the loop: requests that arrived together get into one transaction.
            await asyncio.sleep(0)
            while batch := self._take_batch():
                await self._commit(batch)

    async def _woken(self) -> bool:
        """False when it is time to see whether the file can be written again."""
        try:
            async with asyncio.timeout(PROBE_SECONDS if self._problem is not None else None):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _probe(self) -> None:
        try:
            await self._rows.probe()
        except Exception as error:
            self._fails(error)
        else:
            self._works()

    def _fails(self, error: Exception) -> str:
        reason = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
        if self._problem is None:  # once, not at each attempt
            log.error("objects_not_written", reason=reason)
        self._problem = reason
        return reason

    def _works(self) -> None:
        if self._problem is not None:
            log.info("objects_written_again")
        self._problem = None

    def _take_batch(self) -> list[tuple[Change, asyncio.Future[StoredObject]]]:
        batch, self._waiting = self._waiting[:_BATCH_CHANGES], self._waiting[_BATCH_CHANGES:]
        return batch

    def _take_all(self) -> list[tuple[Change, asyncio.Future[StoredObject]]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    async def _commit(self, batch: list[tuple[Change, asyncio.Future[StoredObject]]]) -> None:
        staged = _Staged(live=self.get, revision=self._given)
        for at, (change, outcome) in enumerate(batch):
            if outcome.cancelled():
                continue
            staged.add(change, outcome)
            if staged.bytes > _BATCH_BYTES:
                self._waiting = batch[at + 1 :] + self._waiting
                break
        if not staged.events:
            return
        self._given = staged.revision
        try:
            await self._rows.write(revision=staged.revision, puts=staged.puts(), deletes=staged.deletes())
        except asyncio.CancelledError:
            staged.fail(WriteFailed("the server is stopping"))
            raise
        except Exception as error:
            # Whatever the driver raises, the writers must hear of it and the committer must live on: a full disk heals.
            staged.fail(WriteFailed(f"nothing was changed: {self._fails(error)}"))
            return
        self._works()
        self._publish(staged)

    def _publish(self, staged: _Staged) -> None:
        for event, outcome in staged.events:
            self._revision = event.revision
            self.collection(event.object.key.resource).apply(event)
            self._tell(event)
            if not outcome.done():
                outcome.set_result(event.object)

    def _tell(self, event: Event) -> None:
        if self._on_commit is None:
            return
        try:
            self._on_commit(event)
        except Exception:
            # It is committed; a follower that fails must not end the committer, and with it every write to come.
            log.exception("commit_not_followed", resource=event.object.key.resource, name=event.object.key.name)


class _Staged:
    """One transaction in the making: the changes that passed their checks, as events in order."""

    def __init__(self, *, live: Lookup, revision: int) -> None:
        self._live = live
        self._overlay: dict[ObjectKey, StoredObject | None] = {}
        self.revision = revision
        self.bytes = 0
        self.events: list[tuple[Event, asyncio.Future[StoredObject]]] = []

    def add(self, change: Change, outcome: asyncio.Future[StoredObject]) -> None:
        try:
            event = self._stage(change)
        except Exception as error:
            # Also what a check raised: it is this writer's outcome and nobody else's.
            _fail(outcome, error)
            return
        self.revision = event.revision
        self.bytes += len(event.object.body)
        self._overlay[change.key] = None if change.remove else event.object
        self.events.append((event, outcome))

    def lookup(self, key: ObjectKey) -> StoredObject | None:
        return self._overlay[key] if key in self._overlay else self._live(key)

    def _stage(self, change: Change) -> Event:
        live = self.lookup(change.key)
        if live is not change.base:
            raise Stale(f"{change.key.resource} {change.key.name} was changed meanwhile")
        if change.check is not None:
            change.check(self.lookup)
        stored = serialise(change.key, change.object, self.revision + 1, change.tail)
        if len(stored.body) > MAX_OBJECT_BYTES and not change.remove:
            raise ObjectTooLarge(len(stored.body))
        if change.remove:
            return Event(EventType.DELETED, stored, live)
        return Event(EventType.ADDED if live is None else EventType.MODIFIED, stored, live)

    def puts(self) -> list[ObjectRow]:
        return [
            ObjectRow(key.resource, key.namespace, key.name, stored.revision, stored.body)
            for key, stored in self._overlay.items()
            if stored is not None
        ]

    def deletes(self) -> list[RowKey]:
        return [RowKey(*key) for key, stored in self._overlay.items() if stored is None]

    def fail(self, error: Exception) -> None:
        for _, outcome in self.events:
            _fail(outcome, error)


def encode_tail(obj: Mapping[str, Any]) -> bytes:
    """All but the metadata, which is known only when the revision is."""
    return _dump({name: value for name, value in obj.items() if name != "metadata"})


def serialise(key: ObjectKey, obj: dict[str, Any], revision: int, tail: bytes | None = None) -> StoredObject:
    """The object at this revision, 0 for one that is not to be kept. ``obj`` is changed: it gets the revision."""
    metadata = obj["metadata"]
    metadata.pop("resourceVersion", None)
    if revision:
        metadata["resourceVersion"] = str(revision)
    if tail is None:
        tail = encode_tail(obj)
    # metadata goes first: the heads of `StoredObject.render` are put before it.
    body = b'{"metadata":' + _dump(metadata) + (b"," + tail[1:] if tail != b"{}" else tail[1:])
    return _stored(key, revision, body, metadata)


def _dump(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()


def _stored_of_row(row: ObjectRow) -> StoredObject:
    key = ObjectKey(row.resource, row.namespace, row.name)
    try:
        return _stored(key, row.revision, row.body, json.loads(row.body)["metadata"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CorruptDatabase(
            f"{row.resource} {row.name[:100]} in objects.db is no object of the API; restore the file or move it away"
        ) from error


def _stored(key: ObjectKey, revision: int, body: bytes, metadata: Mapping[str, Any]) -> StoredObject:
    deleting = metadata.get("deletionTimestamp") is not None
    return StoredObject(key, revision, body, metadata["uid"], _labels(metadata), deleting)


_NO_LABELS: Final[Mapping[str, str]] = {}


def _labels(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    return dict(metadata["labels"]) if metadata.get("labels") else _NO_LABELS


def _fail(outcome: asyncio.Future[StoredObject], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)


def keys_at(collection: Collection, before: Mapping[ObjectKey, StoredObject | None]) -> list[ObjectKey]:
    """The keys that were there before the events of ``before`` (`History.undone_to`)."""
    gone = {key for key, stored in before.items() if stored is None}
    came = [key for key, stored in before.items() if stored is not None and key not in collection.objects]
    return sorted([key for key in collection.objects if key not in gone] + came)
