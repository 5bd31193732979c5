"""DELETE: at once, or marked until nobody holds the object any more.

Finalizers hold an object, and the server itself holds a namespace or a definition until its content is gone
(`cloudhub.standalone.cleanup` takes that away). Preconditions are checked against the object that is then removed, and
the committer takes the removal only while that object is live.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cloudhub.standalone import crdstatus, errors
from cloudhub.standalone.history import StoredObject
from cloudhub.standalone.options import DeleteOptions, WriteOptions
from cloudhub.standalone.resources import CRD_RESOURCE, NAMESPACES
from cloudhub.standalone.storage import Change, Stale, Storage
from cloudhub.standalone.strategies import CRD_FINALIZER, mark_deleted, timestamp
from cloudhub.standalone.writes import MAX_RACES, Request, Written, held_by_server, write

PROTECTED_NAMESPACES: Final = frozenset({"default", "kube-public", "kube-system"})


class Deleter:
    def __init__(self, *, storage: Storage, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._storage = storage
        self._now = now

    async def delete(self, request: Request, options: DeleteOptions) -> Written:
        """``deleted`` of the answer is False when finalizers still hold the object."""
        resource, key = request.resource, request.key
        request.options = WriteOptions(dry_run=options.dry_run)
        for _ in range(MAX_RACES):
            live = self._storage.get(key)
            if live is None:
                raise errors.not_found(resource.group, resource.plural, request.name)
            self._check_preconditions(request, live, options)
            change = self._removal(request, live)
            if change is None:
                return Written(live)
            try:
                return Written(await write(self._storage, request, change), deleted=change.remove)
            except Stale:
                continue
        raise errors.modified(resource.group, resource.plural, request.name)

    def _check_preconditions(self, request: Request, live: StoredObject, options: DeleteOptions) -> None:
        resource = request.resource
        if resource.storage == NAMESPACES and request.name in PROTECTED_NAMESPACES:
            raise errors.forbidden("", "namespaces", request.name, "this namespace may not be deleted")
        why = ""
        if options.uid is not None and options.uid != live.uid:
            why = f"UID in precondition: {options.uid}, UID in object meta: {live.uid}"
        elif options.revision is not None and options.revision != str(live.revision):
            why = (
                f"ResourceVersion in precondition: {options.revision}, ResourceVersion in object meta: {live.revision}"
            )
        if why:
            raise errors.conflict(resource.group, resource.plural, request.name, f"Precondition failed: {why}")

    def _removal(self, request: Request, live: StoredObject) -> Change | None:
        """At once, or a deletionTimestamp when something holds it; None when that stands already."""
        obj = live.parse()
        resource = request.resource
        now = timestamp(self._now())
        if resource.storage == CRD_RESOURCE and not live.deleting:
            finalizers = obj["metadata"].setdefault("finalizers", [])
            if CRD_FINALIZER not in finalizers:
                finalizers.append(CRD_FINALIZER)
        if not obj["metadata"].get("finalizers") and not held_by_server(resource, obj):
            return Change(request.key, live, obj, remove=True)
        if live.deleting:
            return None
        mark_deleted(obj, now)
        if resource.storage == NAMESPACES:
            obj.setdefault("status", {})["phase"] = "Terminating"
        if resource.storage == CRD_RESOURCE:
            crdstatus.prepare(obj, live.parse(), now)
        return Change(request.key, live, obj)
