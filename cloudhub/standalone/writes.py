"""Create, update and patch, from a decoded body to the committed object.

The problem: all are a read, a computation and a write, and another writer may come between. Each computes from a
live object and hands the committer that very object as the base; when it is not live any more the computation is done
again from the new one, unless the client named the revision that it had seen: then that is its conflict (409).
What the server does with an object (names, defaults, pruning, validation, managedFields, finalizers) is in one order
for all, so create by POST and create by server-side apply end in the same object.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from cloudhub.standalone import crdstatus, errors
from cloudhub.standalone.apply import track_update
from cloudhub.standalone.decode import InvalidBody, cannot_be_handled, field_warnings, strict_decoding_error
from cloudhub.standalone.fielderrors import FieldError, Reason, required
from cloudhub.standalone.history import ObjectKey, StoredObject
from cloudhub.standalone.offload import THRESHOLD_BYTES, Offload
from cloudhub.standalone.options import WriteOptions
from cloudhub.standalone.resources import CRD_RESOURCE, NAMESPACES, Catalog, Resource
from cloudhub.standalone.storage import (
    Change,
    Lookup,
    ObjectTooLarge,
    Stale,
    Storage,
    WriteFailed,
    encode_tail,
    serialise,
)
from cloudhub.standalone.strategies import (
    generate_name,
    prepare_create,
    prepare_update,
    timestamp,
)

_GENERATE_ATTEMPTS: Final = 8
# With this many lost races on one object something is wrong; a client may try again.
MAX_RACES: Final = 100


@dataclass(slots=True)
class Request:
    """One write. ``warnings`` fills up with what goes in Warning headers."""

    resource: Resource
    namespace: str
    name: str
    options: WriteOptions
    subresource: str = ""
    size: int = 0
    """Bytes of the body: what it costs to go through it."""
    duplicates: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """`size`, but for a definition: its rules are compiled, which costs much for its size."""
        return max(self.size, THRESHOLD_BYTES) if self.resource.storage == CRD_RESOURCE else self.size

    @property
    def key(self) -> ObjectKey:
        return self.resource.key(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome. Of a dry run, ``stored`` is what would have been."""

    stored: StoredObject
    created: bool = False
    deleted: bool = False


Transform = Callable[[dict[str, Any]], dict[str, Any]]
"""From the live object, as the request's version shows it, to what the writer wants. The argument is its own."""


class Writer:
    def __init__(
        self,
        *,
        storage: Storage,
        catalog: Catalog,
        offload: Offload,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._storage = storage
        self._offload = offload
        self._catalog = catalog
        self._now = now

    # --- create -------------------------------------------------------------------------------------------------------

    async def create(self, request: Request, obj: dict[str, Any], *, managed: bool = False) -> Written:
        """``managed``: managedFields stand already, set by server-side apply."""
        self._check_identity(request, obj)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        prefix = "" if metadata.get("name") else metadata.get("generateName")
        if not metadata.get("name") and not (isinstance(prefix, str) and prefix):
            missing = required("metadata.name", "name or generateName is required")
            raise errors.invalid(request.resource.group, request.resource.kind, "", [missing])
        for attempt in range(_GENERATE_ATTEMPTS):
            candidate = copy.deepcopy(obj) if prefix else obj
            request.name = generate_name(prefix) if prefix else metadata["name"]
            candidate["metadata"]["name"] = request.name
            try:
                return await self._create_named(request, candidate, managed=managed)
            except errors.StatusError as error:
                if not prefix or error.status["reason"] != "AlreadyExists" or attempt == _GENERATE_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _create_named(self, request: Request, obj: dict[str, Any], *, managed: bool) -> Written:
        resource = request.resource
        change = await self._offload.run(request.cost, lambda: self._new(request, obj, managed=managed))
        self._check_room(request, self._storage.get)
        if self._storage.get(request.key) is not None:
            raise errors.already_exists(resource.group, resource.plural, request.name)
        try:
            return Written(await write(self._storage, request, change), created=True)
        except Stale:
            raise errors.already_exists(resource.group, resource.plural, request.name) from None

    def _new(self, request: Request, obj: dict[str, Any], *, managed: bool) -> Change:
        resource = request.resource
        self._decode(request, obj)
        now = timestamp(self._now())
        prepare_create(resource, obj, namespace=request.namespace, now=now)
        self._validate(request, obj, None)
        if not managed:
            obj["metadata"].pop("managedFields", None)
            self._track(request, None, obj, now)
        stored = resource.to_stored(obj)
        tail = encode_tail(stored)
        return Change(request.key, None, stored, tail=tail, check=lambda lookup: self._check_room(request, lookup))

    def _check_room(self, request: Request, lookup: Lookup) -> None:
        """There is a place to create in: its namespace and its definition stand and are not on their way out."""
        resource = request.resource
        if resource.custom:
            definition = lookup(ObjectKey(CRD_RESOURCE, "", resource.storage))
            if definition is None:
                raise errors.no_such_path()
            if definition.deleting:
                raise errors.method_not_allowed("create not allowed while custom resource definition is terminating")
        if not resource.namespaced:
            return
        namespace = lookup(ObjectKey(NAMESPACES, "", request.namespace))
        if namespace is None:
            raise errors.not_found("", "namespaces", request.namespace)
        if namespace.deleting:
            why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {request.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise errors.forbidden(resource.group, resource.plural, request.name, why, [cause])

    # --- update and patch ---------------------------------------------------------------------------------------------

    async def update(
        self, request: Request, transform: Transform, *, managed: bool = False, strict_base: bool = False
    ) -> Written:
        """Raises 404 when there is no such object. ``managed``: the transform sets managedFields itself.
        ``strict_base``: the body must name the revision that it was made from (PUT of a custom resource)."""
        resource, key = request.resource, request.key
        for _ in range(MAX_RACES):
            live = self._storage.get(key)
            if live is None:
                raise errors.not_found(resource.group, resource.plural, request.name)
            change = await self._offload.run(
                request.cost + len(live.body),
                partial(self._changed, request, live, transform, managed=managed, strict_base=strict_base),
            )
            if change is None:
                return Written(live)
            try:
                return Written(await write(self._storage, request, change), deleted=change.remove)
            except Stale:
                continue
        raise errors.modified(resource.group, resource.plural, request.name)

    def _changed(
        self, request: Request, stored: StoredObject, transform: Transform, *, managed: bool, strict_base: bool
    ) -> Change | None:
        """The change, or None when it would change nothing."""
        resource = request.resource
        live = resource.load(stored)
        new = transform(resource.load(stored))
        self._check_identity(request, new)
        self._check_base(request, new["metadata"], live["metadata"], strict_base=strict_base)
        self._decode(request, new)
        now = timestamp(self._now())
        fields = new["metadata"].get("managedFields")
        prepare_update(resource, new, live, status=request.subresource == "status", now=now)
        new["metadata"]["managedFields"] = fields
        if not fields:
            del new["metadata"]["managedFields"]
        self._validate(request, new, live)
        if not managed:
            self._track(request, live, new, now)
        if _same(new, live):
            return None
        remove = "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers")
        remove = remove and not held_by_server(resource, new)
        changed = resource.to_stored(new)
        return Change(request.key, stored, changed, remove=remove, tail=encode_tail(changed))

    def _check_base(
        self, request: Request, new: Mapping[str, Any], live: Mapping[str, Any], *, strict_base: bool
    ) -> None:
        resource = request.resource
        revision, uid = new.get("resourceVersion"), new.get("uid")
        if uid and uid != live["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {live['uid']}"
            raise errors.conflict(resource.group, resource.plural, request.name, why)
        if revision and revision != live["resourceVersion"]:
            raise errors.modified(resource.group, resource.plural, request.name)
        if strict_base and not revision:
            detail = "Invalid value: 0: must be specified for an update"
            missing = FieldError("metadata.resourceVersion", Reason.INVALID, detail)
            raise errors.invalid(resource.group, resource.kind, request.name, [missing])

    # --- common -------------------------------------------------------------------------------------------------------

    def _check_identity(self, request: Request, obj: dict[str, Any]) -> None:
        """The body is of the kind, namespace and name that the URL says."""
        resource = request.resource
        kind, version = obj.setdefault("kind", resource.kind), obj.setdefault("apiVersion", resource.api_version)
        if kind != resource.kind or version != resource.api_version:
            raise errors.bad_request(
                f"the API version in the data ({_cut(version)}, Kind={_cut(kind)}) does not match the expected API "
                f"version ({resource.api_version}, Kind={resource.kind})"
            )
        metadata = obj.setdefault("metadata", {})
        if metadata is None:
            metadata = obj["metadata"] = {}
        if not isinstance(metadata, dict):
            problem = "metadata must be an object"
            raise errors.bad_request(cannot_be_handled(resource.kind, resource.version, problem))
        namespace, name = metadata.get("namespace"), metadata.get("name")
        if resource.namespaced and namespace and namespace != request.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if request.name and name and name != request.name:
            raise errors.bad_request(
                f"the name of the object ({_cut(name)}) does not match the name on the URL ({request.name})"
            )
        if request.name:
            metadata["name"] = request.name

    def _decode(self, request: Request, obj: dict[str, Any]) -> None:
        """Drop unknown fields, and say so as the client asked; fill in defaults."""
        resource, options = request.resource, request.options
        try:
            unknown = resource.schema.prune(obj)
        except InvalidBody as error:
            raise errors.bad_request(str(error)) from None
        if (unknown or request.duplicates) and options.field_validation == "Strict":
            problem = strict_decoding_error(unknown, request.duplicates)
            raise errors.bad_request(cannot_be_handled(resource.kind, resource.version, problem))
        if options.field_validation == "Warn":
            request.warnings[:] = field_warnings(unknown, request.duplicates)
        resource.schema.default(obj)

    def _validate(self, request: Request, obj: dict[str, Any], live: Mapping[str, Any] | None) -> None:
        resource = request.resource
        problems = resource.schema.validate(obj, live)
        if not problems and resource.storage == CRD_RESOURCE:
            spec, names = obj["spec"], obj["spec"]["names"]
            owner = self._catalog.owner_of_kind(spec["group"], names["kind"], names["plural"], besides=request.name)
            if owner is not None:
                problems = [crdstatus.served_elsewhere(obj, owner)]
        if problems:
            raise errors.invalid(resource.group, resource.kind, request.name, problems)

    def _track(self, request: Request, live: Mapping[str, Any] | None, obj: dict[str, Any], now: str) -> None:
        resource = request.resource
        track_update(
            live,
            obj,
            schema=resource.schema.openapi,
            manager=request.options.manager,
            api_version=resource.api_version,
            time=now,
            subresource=request.subresource,
            ignored=ignored_fields(resource, request.subresource),
        )


async def write(storage: Storage, request: Request, change: Change) -> StoredObject:
    """Commit, or for a dry run just look whether it could be. Raises `Stale` for the caller to begin anew."""
    if request.options.dry_run:
        if change.check is not None:
            change.check(storage.get)
        return serialise(change.key, change.object, change.base.revision if change.base is not None else 0)
    try:
        return await storage.write(change)
    except ObjectTooLarge as error:
        raise errors.object_too_large(str(error)) from None
    except WriteFailed as error:
        raise errors.unavailable(str(error)) from error


def ignored_fields(resource: Resource, subresource: str) -> tuple[str, ...]:
    """Top-level fields that this endpoint does not write: their managers stay."""
    if subresource == "status":
        return ("spec", "metadata")
    return ("status",) if resource.status else ()


def held_by_server(resource: Resource, obj: Mapping[str, Any]) -> bool:
    """A namespace stays until its content is gone; spec.finalizers say so, in a cluster too."""
    return resource.storage == NAMESPACES and bool((obj.get("spec") or {}).get("finalizers"))


def _same(new: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Nothing was changed but, perhaps, times of managedFields: such a write is not done."""
    return _without_times(new) == _without_times(live)


def _without_times(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = dict(obj["metadata"])
    metadata["managedFields"] = [
        {name: value for name, value in entry.items() if name != "time"}
        for entry in metadata.get("managedFields") or ()
    ]
    return {**obj, "metadata": metadata}


def _cut(value: Any) -> str:
    return str(value)[:128]
