"""metadata.managedFields: who manages which fields, read, kept and written back.

What stands there may come from a client, so what does not decode counts as nothing. At most ten managers that update
are kept apart; older ones share one entry, so that many writers do not fill an object with their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from cloudhub.standalone.fieldsets import FieldSet

_MAX_UPDATE_MANAGERS: Final = 10
_ANCIENT: Final = "ancient-changes"


class ManagerKey(NamedTuple):
    """What tells entries apart. An applier's version does not: it is one applier whatever version it applies."""

    manager: str
    operation: str
    api_version: str
    subresource: str


def manager_key(manager: str, operation: str, api_version: str, subresource: str) -> ManagerKey:
    return ManagerKey(manager, operation, api_version if operation == "Update" else "", subresource)


@dataclass(frozen=True, slots=True)
class Managed:
    fields: FieldSet
    api_version: str
    time: str


Managers = dict[ManagerKey, Managed]


def decode(metadata: Mapping[str, Any] | None) -> Managers:
    """Raises ValueError when an entry is malformed."""
    managers: Managers = {}
    for entry in (metadata or {}).get("managedFields") or ():
        if not isinstance(entry, Mapping) or entry.get("operation") not in ("Apply", "Update"):
            raise ValueError("managedFields is malformed")
        version = str(entry.get("apiVersion", ""))
        key = manager_key(str(entry.get("manager", "")), entry["operation"], version, str(entry.get("subresource", "")))
        fields = FieldSet.from_v1(entry.get("fieldsV1") or {})
        if key in managers:
            fields = fields.union(managers[key].fields)
        managers[key] = Managed(fields, version, str(entry.get("time") or ""))
    return managers


def decode_or_none(metadata: Mapping[str, Any] | None) -> Managers:
    """As `decode`; what is malformed counts as no managers at all."""
    try:
        return decode(metadata)
    except (ValueError, RecursionError):
        return {}


def encode(managers: Managers) -> list[dict[str, Any]]:
    """Entries in the API server's order: Apply before Update, then by time, then by name."""
    entries = []
    for key, managed in managers.items():
        entry: dict[str, Any] = {
            "manager": key.manager,
            "operation": key.operation,
            "apiVersion": managed.api_version,
            "time": managed.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": managed.fields.to_v1(),
            "subresource": key.subresource,
        }
        entries.append({name: value for name, value in entry.items() if value != ""})
    return sorted(entries, key=_order)


def _order(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry.get(name, "")) for name in ("operation", "time", "manager", "apiVersion", "subresource"))


def capped(managers: Managers) -> Managers:
    """With the oldest of too many updating managers folded into one entry a version."""
    updating = [key for key in managers if key.operation == "Update"]
    surplus = len(updating) - _MAX_UPDATE_MANAGERS
    if surplus <= 0:
        return managers
    kept = dict(managers)
    # One more than the surplus: the shared entry takes a place itself.
    for key in sorted(updating, key=lambda key: (managers[key].time, key))[: surplus + 1]:
        old = kept.pop(key)
        bucket = ManagerKey(_ANCIENT, "Update", key.api_version, key.subresource)
        if bucket in kept:
            fields, time = kept[bucket].fields.union(old.fields), max(kept[bucket].time, old.time)
            kept[bucket] = replace(old, fields=fields, time=time)
        else:
            kept[bucket] = old
    return kept


def same(left: Managers, right: Managers) -> bool:
    """Whether nothing but times differs."""
    return left.keys() == right.keys() and all(
        left[key].fields == right[key].fields and left[key].api_version == right[key].api_version for key in left
    )


def shown(key: ManagerKey, managed: Managed) -> str:
    """As conflicts name a manager."""
    text = json.dumps(key.manager, ensure_ascii=False)
    if key.subresource:
        text += f" with subresource {json.dumps(key.subresource)}"
    return f"{text} using {managed.api_version}" if key.operation == "Update" else text


def union(sets: Iterable[FieldSet]) -> FieldSet:
    result = FieldSet()
    for fields in sets:
        result = result.union(fields)
    return result
