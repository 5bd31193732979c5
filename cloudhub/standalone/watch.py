"""Watches: the events of one resource after a revision, as lines of JSON, for as long as the client stays.

The problem: a watcher must miss nothing and must hold up nobody. It is a revision into the resource's `History` and an
`asyncio.Event` that wakes it; it reads in slices and writes with the socket's own backpressure. One that reads so
slowly that the history went past it gets the 410 that a cluster gives, and lists again; one that does not read at all
is dropped when a write has waited `WRITE_TIMEOUT`. Events that a selector lets in or out are shown as ADDED and
DELETED.

Limits: bookmarks come every `BOOKMARK_INTERVAL` when nothing else comes; a watch without timeoutSeconds ends by itself
after half an hour to an hour, as a cluster's does, so that clients spread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cloudhub.standalone import errors
from cloudhub.standalone.history import Event, EventType, Expired, StoredObject
from cloudhub.standalone.listing import list_page, matches_fields, partial, table_of
from cloudhub.standalone.media import Output, Shape
from cloudhub.standalone.options import ListOptions
from cloudhub.standalone.resources import Resource, dump
from cloudhub.standalone.storage import Storage, serialise

BOOKMARK_INTERVAL: Final = 60.0
WRITE_TIMEOUT: Final = 30.0
MIN_TIMEOUT: Final = 1800.0
_SLICE: Final = 64

Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WatchRequest:
    resource: Resource
    namespace: str | None
    options: ListOptions
    output: Output
    include_object: str = "Metadata"


class Watch:
    """One watch, from `run` to its end. ``closing`` ends it when the server stops."""

    def __init__(self, *, storage: Storage, request: WatchRequest, send: Send, closing: asyncio.Event) -> None:
        self._storage = storage
        self._request = request
        self._send = send
        self._closing = closing
        self._collection = storage.collection(request.resource.storage)
        self._cursor = storage.revision
        self._headers_sent = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        timeout = self._request.options.timeout or MIN_TIMEOUT * random.uniform(1, 2)  # noqa: S311 - spreads load
        end = loop.time() + timeout
        # Registered before the first read: what is committed while the initial events are sent wakes us.
        self._collection.history.watch(self._wake)
        try:
            await self._begin()
            await self._follow(end)
        except Expired as error:
            await self._write_line("ERROR", dump(errors.expired(str(error)).status))
        except errors.StatusError as error:
            await self._write_line("ERROR", dump(error.status))
        finally:
            self._collection.history.unwatch(self._wake)

    def wake(self) -> None:
        self._wake.set()

    async def _begin(self) -> None:
        options = self._request.options
        if options.initial_events or (options.initial_events is None and not options.revision):
            await self._send_initial()
        elif options.revision:
            self._start_at(options.revision)
        # Else no initial events are wanted and no revision is named: from now on, where the cursor is.

    def _start_at(self, revision: int) -> None:
        if revision > self._storage.revision:
            # The client has seen a server that had more: a data directory of before. Waiting would hide all until then.
            raise Expired(revision, self._storage.revision)
        # One from before the history's reach is found out by the first read.
        self._cursor = revision

    async def _send_initial(self) -> None:
        options, resource = self._request.options, self._request.resource
        page = await list_page(self._storage, resource, self._request.namespace, _unpaged(options))
        self._cursor = page.revision
        for stored in page.items:
            await self._write_line("ADDED", self._show(stored))
        if options.initial_events and options.bookmarks:
            await self._bookmark({"k8s.io/initial-events-end": "true"})

    async def _follow(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while not self._closing.is_set() and loop.time() < end:
            self._wake.clear()
            reached = self._storage.revision
            events = self._collection.history.since(self._cursor, _SLICE)
            for event in events:
                if await self._show_event(event):
                    quiet_since = loop.time()
                self._cursor = event.revision
            if len(events) == _SLICE:
                continue
            # All of this resource up to here was seen, whatever other resources' revisions lie between.
            self._cursor = max(self._cursor, reached)
            if self._request.options.bookmarks and loop.time() - quiet_since >= BOOKMARK_INTERVAL:
                await self._bookmark({})
                quiet_since = loop.time()
            await self._sleep(min(end, quiet_since + BOOKMARK_INTERVAL) - loop.time())
        if self._request.options.bookmarks and not self._closing.is_set():
            await self._bookmark({})

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _show_event(self, event: Event) -> bool:
        """Whether it was one for this watcher."""
        where = self._request.namespace
        if where is not None and self._request.resource.namespaced and event.object.key.namespace != where:
            return False
        selected = event.type is not EventType.DELETED and self._selects(event.object)
        was_selected = event.previous is not None and self._selects(event.previous)
        if selected:
            await self._write_line("MODIFIED" if was_selected else "ADDED", self._show(event.object))
        elif was_selected:
            await self._write_line("DELETED", self._show(self._last_seen(event)))
        return selected or was_selected

    def _last_seen(self, event: Event) -> StoredObject:
        """What a watcher is shown of an object that went out of its sight: the state that it knew, at this revision."""
        if event.type is EventType.DELETED or event.previous is None:
            return event.object
        return serialise(event.previous.key, event.previous.parse(), event.revision)

    def _selects(self, stored: StoredObject) -> bool:
        options = self._request.options
        return options.selects(stored.key, stored.labels) and matches_fields(options, stored)

    def _show(self, stored: StoredObject) -> bytes:
        request = self._request
        match request.output.shape:
            case Shape.TABLE:
                first, self._headers_sent = not self._headers_sent, True
                metadata = {"resourceVersion": str(stored.revision)}
                return dump(
                    table_of(
                        request.resource,
                        [stored],
                        request.output,
                        request.include_object,
                        headers=first,
                        list_metadata=metadata,
                    )
                )
            case Shape.OBJECT:
                return request.resource.render(stored)
            case _:
                return dump(partial(stored, request.output.version))

    async def _bookmark(self, annotations: dict[str, str]) -> None:
        resource, output = self._request.resource, self._request.output
        metadata: dict[str, Any] = {"resourceVersion": str(self._cursor), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        bookmark: dict[str, Any] = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if output.shape is Shape.TABLE:
            row = {"cells": [], "object": bookmark}
            bookmark = {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{output.version}",
                "metadata": {"resourceVersion": str(self._cursor)},
                "columnDefinitions": [],
                "rows": [row],
            }
        elif output.shape is not Shape.OBJECT:
            bookmark |= {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{output.version}"}
        await self._write_line("BOOKMARK", dump(bookmark))

    async def _write_line(self, kind: str, obj: bytes) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await self._send(b'{"type":"' + kind.encode() + b'","object":' + obj + b"}\n")


def _unpaged(options: ListOptions) -> ListOptions:
    """Initial events are all of the present state, selected as the watch selects."""
    return ListOptions(labels=options.labels, fields=options.fields, revision=options.revision)
