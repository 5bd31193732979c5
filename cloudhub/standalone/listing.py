"""Lists: which objects, of which state, and their bytes.

The problem: a list of ten thousand Nodes, asked for in pages, must show one state over all pages although writes go
on, and must not stall the loop that also serves nodes. A page is taken from the live objects with the events since the
first page undone (`History.undone_to`); a token from before the history's reach is answered with 410 and a token to go
on without consistency, as a cluster does. Bytes are those that are stored: nothing is parsed unless a selector or a
Table asks for it, and then in slices with the loop running between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cloudhub.standalone import errors
from cloudhub.standalone.history import Expired, ObjectKey, StoredObject
from cloudhub.standalone.media import Output, Shape
from cloudhub.standalone.options import Continue, ListOptions
from cloudhub.standalone.resources import Resource, dump
from cloudhub.standalone.storage import Storage, keys_at, select_keys
from cloudhub.standalone.tables import render_table

_SLICE: Final = 100
_EXPIRED_PAGE: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Page:
    items: list[StoredObject]
    revision: int
    token: str = ""
    remaining: int | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata["continue"] = self.token
        if self.remaining is not None:
            metadata["remainingItemCount"] = self.remaining
        return metadata


async def list_page(storage: Storage, resource: Resource, namespace: str | None, options: ListOptions) -> Page:
    """One page, or the whole list when no limit is given. Raises 410 and, for a revision to come, 504."""
    revision = _revision_to_show(storage, options)
    collection = storage.collection(resource.storage)
    before = _undone(storage, resource, options, revision)
    after = ObjectKey(resource.storage, *options.token.after) if options.token else None
    where = namespace if resource.namespaced else None
    keys = select_keys(keys_at(collection, before), where, after) if before else collection.ordered(where, after)
    # From here on only these objects are looked at, which do not change: the loop may run between slices.
    objects = [before.get(key) or collection.objects[key] for key in keys]
    return await _cut_page(objects, revision, options)


def require_reached(storage: Storage, revision: int | None) -> None:
    """A revision that was never given: of another data directory, or made up."""
    if revision is not None and revision > storage.revision:
        raise errors.future_revision(revision, storage.revision)


def _revision_to_show(storage: Storage, options: ListOptions) -> int:
    if options.token is not None:
        return options.token.revision if options.token.revision >= 0 else storage.revision
    require_reached(storage, options.revision)
    if options.match == "Exact" and options.revision is not None:
        return options.revision
    return storage.revision


def _undone(
    storage: Storage, resource: Resource, options: ListOptions, revision: int
) -> Mapping[ObjectKey, StoredObject | None]:
    if revision == storage.revision:
        return {}
    try:
        return storage.collection(resource.storage).history.undone_to(revision)
    except Expired as error:
        if options.token is None:
            message = f"The provided resource version is too old to list: {error}"
            raise errors.expired(message) from None
        token = Continue(-1, options.token.after).encode()
        raise errors.expired(_EXPIRED_PAGE, {"continue": token}) from None


async def _cut_page(objects: Sequence[StoredObject], revision: int, options: ListOptions) -> Page:
    if not options.filtered and not options.limit:
        return Page(list(objects), revision)
    items: list[StoredObject] = []
    pause = _SLICE if options.reads_fields else 10 * _SLICE
    for at, stored in enumerate(objects):
        if options.limit and len(items) == options.limit:
            token = Continue(revision, items[-1].key[1:]).encode()
            # With a selector nobody has counted what is left.
            return Page(items, revision, token, None if options.filtered else len(objects) - at)
        if options.selects(stored.key, stored.labels) and matches_fields(options, stored):
            items.append(stored)
        if at % pause == pause - 1:
            await asyncio.sleep(0)
    return Page(items, revision)


def matches_fields(options: ListOptions, stored: StoredObject) -> bool:
    return not options.reads_fields or options.fields.matches(stored.parse())


async def render_page(
    resource: Resource, page: Page, output: Output, *, include_object: str = "Metadata"
) -> AsyncIterator[bytes]:
    """The answer's bytes, in pieces."""
    match output.shape:
        case Shape.TABLE:
            async for piece in _render_table(resource, page, output, include_object):
                yield piece
        case Shape.OBJECT:
            head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": page.metadata}
            async for piece in _render_items(head, page.items, resource.render):
                yield piece
        case _:
            head = {
                "kind": "PartialObjectMetadataList",
                "apiVersion": f"meta.k8s.io/{output.version}",
                "metadata": page.metadata,
            }
            async for piece in _render_items(head, page.items, lambda stored: dump(partial(stored, output.version))):
                yield piece


async def _render_items(
    head: Mapping[str, Any], items: Sequence[StoredObject], render: Callable[[StoredObject], bytes]
) -> AsyncIterator[bytes]:
    yield dump(head)[:-1] + b',"items":['
    for start in range(0, len(items), _SLICE):
        yield (b"," if start else b"") + b",".join([render(stored) for stored in items[start : start + _SLICE]])
        await asyncio.sleep(0)
    yield b"]}\n"


def partial(stored: StoredObject, version: str) -> dict[str, Any]:
    metadata = stored.parse()["metadata"]
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}


async def _render_table(resource: Resource, page: Page, output: Output, include_object: str) -> AsyncIterator[bytes]:
    """Rows are made slice by slice; the first slice brings the columns."""
    table = table_of(resource, page.items[:_SLICE], output, include_object, list_metadata=page.metadata)
    rows = table.pop("rows")
    yield dump(table)[:-1] + b',"rows":[' + dump(rows)[1:-1]
    for start in range(_SLICE, len(page.items), _SLICE):
        await asyncio.sleep(0)
        more = table_of(resource, page.items[start : start + _SLICE], output, include_object, headers=False)
        yield b"," + dump(more["rows"])[1:-1]
    yield b"]}\n"


def table_of(
    resource: Resource,
    items: Sequence[StoredObject],
    output: Output,
    include_object: str,
    *,
    headers: bool = True,
    list_metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return render_table(
        [resource.load(stored) for stored in items],
        group=resource.group,
        kind=resource.kind,
        now=datetime.now(UTC),
        printer_columns=resource.printer_columns,
        list_metadata=list_metadata,
        include_object=include_object,
        version=output.version,
        headers=headers,
    )


def render_one(resource: Resource, stored: StoredObject, output: Output, *, include_object: str = "Metadata") -> bytes:
    match output.shape:
        case Shape.TABLE:
            metadata = {"resourceVersion": str(stored.revision)}
            return dump(table_of(resource, [stored], output, include_object, list_metadata=metadata))
        case Shape.OBJECT:
            return resource.render(stored)
        case _:
            return dump(partial(stored, output.version))
