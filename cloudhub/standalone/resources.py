"""Which resources are served: the built-in ones, and those of installed CustomResourceDefinitions.

A `Resource` is one version of one kind as it stands in a URL. All versions of a kind share one storage key, so an
object written as one version is there in the others. The catalog follows the CustomResourceDefinitions as they are
committed; a schema is compiled when the definition's generation changes, not when its status or labels do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudhub.standalone import builtin, eventsv1
from cloudhub.standalone.errors import qualified
from cloudhub.standalone.history import Event, EventType, ObjectKey, StoredObject
from cloudhub.standalone.openapi import OpenAPIDocuments
from cloudhub.standalone.schema import ResourceSchema, schemas_of_crd

CRD_RESOURCE: Final = "customresourcedefinitions.apiextensions.k8s.io"
NAMESPACES: Final = "namespaces"

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS: Final = ("get", "patch", "update")

# Kinds whose metadata.generation the API server counts. Nodes, Secrets and the like have none.
_COUNTED_KINDS: Final = frozenset({"CustomResourceDefinition"})
# Kinds that a PUT may create, in a cluster too.
_CREATED_BY_PUT: Final = frozenset({"Event", "Lease"})

Conversion = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """``storage`` is the first part of its objects' keys; ``convert_in`` and ``convert_out`` stand between this
    version and the stored one, None where they are the same but for apiVersion."""

    group: str
    version: str
    kind: str
    list_kind: str
    plural: str
    singular: str
    namespaced: bool
    schema: ResourceSchema
    storage: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    custom: bool = False
    stored_version: bool = True
    counts_generation: bool = False
    printer_columns: tuple[Mapping[str, Any], ...] | None = None
    selectable: tuple[str, ...] = ()
    convert_in: Conversion | None = None
    convert_out: Conversion | None = None
    deprecation: str = ""
    stored_schema: ResourceSchema | None = None
    """Of the stored version, where that is another one."""
    since: int = 0
    """The revision of the definition. Older objects were written by other schemas, perhaps as another version."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return qualified(self.group, self.plural)

    @property
    def head(self) -> bytes:
        return f'{{"apiVersion":{json.dumps(self.api_version)},"kind":{json.dumps(self.kind)},'.encode()

    def as_stored(self, stored: StoredObject) -> bool:
        """Stored bytes can be sent as they are."""
        return self.stored_version and self.convert_out is None and not self._is_older(stored)

    def _is_older(self, stored: StoredObject) -> bool:
        return self.custom and stored.revision <= self.since

    @property
    def created_by_put(self) -> bool:
        return not self.custom and self.kind in _CREATED_BY_PUT

    @property
    def strategic_merge(self) -> bool:
        return not self.custom

    @property
    def verbs(self) -> tuple[str, ...]:
        return VERBS

    def key(self, namespace: str, name: str) -> ObjectKey:
        return ObjectKey(self.storage, namespace if self.namespaced else "", name)

    def load(self, stored: StoredObject) -> dict[str, Any]:
        """The object as this version shows it: a new one, the caller's own."""
        obj = stored.parse()
        if self.convert_out is not None:
            obj = self.convert_out(obj)
        if self.stored_schema is not None and self._is_older(stored):
            self.stored_schema.prune(obj)
            self.stored_schema.default(obj)
        if not self.stored_version or self._is_older(stored):
            self.schema.prune(obj)
            self.schema.default(obj)
        return {"apiVersion": self.api_version, "kind": self.kind, **obj}

    def render(self, stored: StoredObject) -> bytes:
        if self.as_stored(stored):
            return stored.render(self.head)
        return dump(self.load(stored))

    def to_stored(self, obj: dict[str, Any]) -> dict[str, Any]:
        """``obj`` of this version as it is kept: without apiVersion and kind."""
        kept = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}
        if self.convert_in is not None:
            kept = self.convert_in(kept)
        if self.stored_schema is not None:
            self.stored_schema.prune(kept)
            self.stored_schema.default(kept)
            kept.pop("apiVersion", None)
            kept.pop("kind", None)
        return kept


def dump(obj: Any) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


def builtin_resources() -> list[Resource]:
    resources = []
    for item in builtin.RESOURCES:
        events_v1 = item.group == "events.k8s.io"
        resources.append(
            Resource(
                group=item.group,
                version=item.version,
                kind=item.kind,
                list_kind=item.kind + "List",
                plural=item.plural,
                singular=item.singular,
                namespaced=item.namespaced,
                schema=builtin.schema_of(item.group, item.version, item.kind),
                storage=item.plural if events_v1 else qualified(item.group, item.plural),
                short_names=item.short_names,
                categories=item.categories,
                status=item.status,
                counts_generation=item.kind in _COUNTED_KINDS,
                convert_in=eventsv1.to_core if events_v1 else None,
                convert_out=eventsv1.from_core if events_v1 else None,
            )
        )
    return resources


def resources_of_crd(crd: Mapping[str, Any], since: int = 0) -> list[Resource]:
    """One for each served version. ``since``: the revision that the definition was committed at."""
    spec, names = crd["spec"], crd["spec"]["names"]
    schemas = schemas_of_crd(crd)
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    resources = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        label = version["name"]
        resources.append(
            Resource(
                group=spec["group"],
                version=label,
                kind=names["kind"],
                list_kind=names["listKind"],
                plural=names["plural"],
                singular=names["singular"],
                namespaced=spec["scope"] == "Namespaced",
                schema=schemas[label],
                storage=crd["metadata"]["name"],
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in (version.get("subresources") or {}),
                custom=True,
                stored_version=label == stored,
                counts_generation=True,
                printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
                selectable=tuple(
                    field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ()
                ),
                deprecation=_deprecation(spec["group"], version, names["kind"]),
                stored_schema=None if label == stored else schemas.get(stored),
                since=since,
            )
        )
    return resources


def _deprecation(group: str, version: Mapping[str, Any], kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated"


@dataclass(frozen=True, slots=True)
class _Installed:
    uid: str
    generation: int
    crd: Mapping[str, Any]
    resources: tuple[Resource, ...]


class Catalog:
    def __init__(self) -> None:
        self._builtin = builtin_resources()
        self._custom: dict[str, _Installed] = {}
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._openapi: OpenAPIDocuments | None = None
        self._index()

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def get(self, group: str, version: str, plural: str) -> Resource:
        """One that is known to be there: a built-in one."""
        return self._by_path[group, version, plural]

    def all(self) -> Iterable[Resource]:
        return self._by_path.values()

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Group, then version in order of preference, then its resources."""
        groups: dict[str, dict[str, list[Resource]]] = {}
        for resource in self._by_path.values():
            groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return {
            group: dict(sorted(versions.items(), key=lambda item: version_priority(item[0]), reverse=True))
            for group, versions in groups.items()
        }

    def owner_of_kind(self, group: str, kind: str, plural: str, *, besides: str) -> str | None:
        """The definition, or ``builtin``, that already has this kind or plural in the group."""
        for resource in self._by_path.values():
            owner = resource.storage if resource.custom else "builtin"
            if owner != besides and resource.group == group and (resource.kind == kind or resource.plural == plural):
                return owner
        return None

    @property
    def openapi(self) -> OpenAPIDocuments:
        if self._openapi is None:
            self._openapi = OpenAPIDocuments(item.crd for item in self._custom.values())
        return self._openapi

    def follow(self, event: Event) -> None:
        """Call with each committed event of `CRD_RESOURCE`."""
        if event.type is EventType.DELETED:
            self._custom.pop(event.object.key.name, None)
        else:
            self.install(event.object)
        self._index()

    def install(self, stored: StoredObject) -> None:
        crd = stored.parse()
        generation = crd["metadata"].get("generation", 1)
        known = self._custom.get(stored.key.name)
        if known is not None and (known.uid, known.generation) == (stored.uid, generation):
            return
        resources = tuple(resources_of_crd(crd, stored.revision))
        self._custom[stored.key.name] = _Installed(stored.uid, generation, crd, resources)
        self._index()

    def _index(self) -> None:
        custom = [resource for item in self._custom.values() for resource in item.resources]
        custom.sort(key=lambda resource: (resource.group, resource.plural))
        self._by_path = {
            (resource.group, resource.version, resource.plural): resource for resource in [*self._builtin, *custom]
        }
        self._openapi = None


def version_priority(version: str) -> tuple[int, int, int]:
    """Kubernetes' order: v2 before v1 before v1beta2 before v1beta1 before v1alpha1 before anything else."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (0, 0, 0)
    stage = {None: 3, "beta": 2, "alpha": 1}[match[2]]
    return (stage, int(match[1]), int(match[3] or 0))
