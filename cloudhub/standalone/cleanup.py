"""What goes with what: a namespace's objects with the namespace, a kind's objects with its definition, old Events.

In a cluster controllers do this; here one task does, woken by the commits that matter. Deleting a namespace or a
CustomResourceDefinition marks it, from which moment nothing can be created in it; this task then deletes its objects,
those with finalizers stay until the finalizers are taken off, and when nothing is left it removes the thing itself.
Doing it twice changes nothing, so a restart in between just goes on. Events older than an hour are removed, as a
cluster's are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from cloudhub.standalone.history import Event, EventType, ObjectKey, StoredObject
from cloudhub.standalone.resources import CRD_RESOURCE, NAMESPACES
from cloudhub.standalone.storage import Change, Stale, Storage, StorageError
from cloudhub.standalone.strategies import CRD_FINALIZER, mark_deleted, timestamp

log = structlog.get_logger(__name__)

EVENT_LIFE: Final = timedelta(hours=1)
_EVENT_SWEEP: Final = 300.0
_RETRY: Final = 5.0


class Cleanup:
    def __init__(self, *, storage: Storage, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._storage = storage
        self._now = now
        self._pending: set[ObjectKey] = set()
        self._wake = asyncio.Event()

    def follow(self, event: Event) -> None:
        """Call with each committed event: notes what has to be looked at."""
        key = event.object.key
        if key.resource in (NAMESPACES, CRD_RESOURCE):
            if event.object.deleting and event.type is not EventType.DELETED:
                self._note(key)
        elif event.type is EventType.DELETED:
            for owner in (ObjectKey(NAMESPACES, "", key.namespace), ObjectKey(CRD_RESOURCE, "", key.resource)):
                self._note_if_deleting(owner)

    async def run(self) -> None:
        """Until cancelled."""
        for resource in (NAMESPACES, CRD_RESOURCE):
            for key in self._storage.collection(resource).objects:
                self._note_if_deleting(key)
        await self._sweep_events()
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + _EVENT_SWEEP
        while True:
            await self._clean_pending()
            if loop.time() >= next_sweep:
                await self._sweep_events()
                next_sweep = loop.time() + _EVENT_SWEEP
            delay = _RETRY if self._pending else next_sweep - loop.time()
            try:
                async with asyncio.timeout(max(delay, 0.01)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _note(self, key: ObjectKey) -> None:
        self._pending.add(key)
        self._wake.set()

    def _note_if_deleting(self, key: ObjectKey) -> None:
        owner = self._storage.get(key)
        if owner is not None and owner.deleting:
            self._note(key)

    async def _clean_pending(self) -> None:
        self._wake.clear()
        pending, self._pending = self._pending, set()
        for key in sorted(pending):
            try:
                await self._clean(key)
            except StorageError as error:
                # Written over meanwhile, or the disk is full: it stands as it was and is tried again.
                self._pending.add(key)
                log.info("cleanup_deferred", resource=key.resource, name=key.name, reason=str(error))

    async def _clean(self, key: ObjectKey) -> None:
        owner = self._storage.get(key)
        if owner is None or not owner.deleting:
            return
        # Written side by side: they share transactions.
        results = await asyncio.gather(*(self._delete(stored) for stored in self._content(key)), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
        if not self._content(key):
            await self._release(owner)

    def _content(self, key: ObjectKey) -> list[StoredObject]:
        if key.resource == NAMESPACES:
            return self._storage.in_namespace(key.name)
        return list(self._storage.collection(key.name).objects.values())

    async def _delete(self, stored: StoredObject) -> None:
        obj = stored.parse()
        if not obj["metadata"].get("finalizers"):
            await self._storage.write(Change(stored.key, stored, obj, remove=True))
        elif not stored.deleting:
            mark_deleted(obj, timestamp(self._now()))
            await self._storage.write(Change(stored.key, stored, obj))

    async def _release(self, owner: StoredObject) -> None:
        """Nothing is left in it, and nothing can come: take off the server's own finalizer."""
        obj = owner.parse()
        metadata = obj["metadata"]
        others = [item for item in metadata.get("finalizers") or () if item != CRD_FINALIZER]
        if owner.key.resource == NAMESPACES:
            obj.setdefault("spec", {}).pop("finalizers", None)
        metadata.pop("finalizers", None)
        if others:
            metadata["finalizers"] = others
        if not others or obj != owner.parse():
            await self._storage.write(Change(owner.key, owner, obj, remove=not others))

    async def _sweep_events(self) -> None:
        limit = timestamp(self._now() - EVENT_LIFE)
        old = [
            stored for stored in list(self._storage.collection("events").objects.values()) if _last_seen(stored) < limit
        ]
        await asyncio.gather(*(self._remove_event(stored) for stored in old))
        if old:
            log.debug("old_events_removed", events=len(old))

    async def _remove_event(self, stored: StoredObject) -> None:
        try:
            await self._storage.write(Change(stored.key, stored, stored.parse(), remove=True))
        except Stale:
            return
        except StorageError as error:
            log.info("event_not_removed", reason=str(error))


def _last_seen(stored: StoredObject) -> str:
    event: dict[str, Any] = stored.parse()
    series = event.get("series") or {}
    times: Iterable[Any] = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    # RFC 3339 in UTC sorts as text, to the second.
    return max((str(moment)[:19] for moment in times if moment), default="")
