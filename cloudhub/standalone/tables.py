"""``meta.k8s.io/v1`` Tables: the server prints, kubectl only aligns.

Columns and cells of built-in kinds are Kubernetes' own (``pkg/printers``); a custom resource has its CRD's printer
columns, or name and age. Ages are counted at the time of the request, so a Table is never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from cloudhub.standalone.jsonpath import JsonPath, parse_path

Object = Mapping[str, Any]
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    cell: Callable[[Object, datetime], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def render_table(
    objects: Iterable[Object],
    *,
    group: str,
    kind: str,
    now: datetime,
    printer_columns: Sequence[Object] | None = None,
    list_metadata: Object | None = None,
    include_object: str = "Metadata",
    version: str = "v1",
    headers: bool = True,
) -> dict[str, Any]:
    """A Table of ``objects``. ``printer_columns`` is a CRD version's additionalPrinterColumns (None: a built-in kind);
    ``include_object`` is the query's includeObject (None, Metadata, Object); ``version`` is v1 or v1beta1;
    ``headers`` False leaves out columnDefinitions, as for the second and later events of a watch."""
    if printer_columns is None:
        columns = _BUILTIN.get((group, kind), _PLAIN)
    else:
        columns = (_NAME, *map(_custom_column, printer_columns)) if printer_columns else _PLAIN
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": dict(list_metadata or {}),
        "columnDefinitions": [column.definition() for column in columns] if headers else None,
        "rows": [_row(obj, columns, now, include_object, version) for obj in objects],
    }


def _row(obj: Object, columns: Sequence[Column], now: datetime, include_object: str, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": [column.cell(obj, now) for column in columns]}
    if include_object == "Object":
        row["object"] = obj
    elif include_object != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": obj.get("metadata") or {},
        }
    return row


# --- cells ------------------------------------------------------------------------------------------------------------


def age(text: Any, now: datetime) -> str:
    """Time since ``text``, in few characters; ``<unknown>`` when there is no such time."""
    if not isinstance(text, str) or not text:
        return "<unknown>"
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return "<invalid>"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration(int((now - moment).total_seconds()))


def human_duration(seconds: int) -> str:
    """apimachinery's HumanDuration: one or two units, coarser the longer it is."""
    if seconds < 0:
        # Clocks of two machines differ a little.
        return "0s" if seconds >= -1 else "<invalid>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def _get(obj: Object, *path: str) -> Any:
    value: Any = obj
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _name_of(obj: Object, now: datetime) -> str:
    return str(_get(obj, "metadata", "name") or "")


def _age_of(obj: Object, now: datetime) -> str:
    return age(_get(obj, "metadata", "creationTimestamp"), now)


def _text_of(*path: str, absent: str = "") -> Callable[[Object, datetime], str]:
    return lambda obj, now: str(_get(obj, *path) or absent)


def _data_count(obj: Object, now: datetime) -> int:
    return len(_get(obj, "data") or ()) + len(_get(obj, "binaryData") or ())


def _node_status(obj: Object, now: datetime) -> str:
    ready = next((item for item in _get(obj, "status", "conditions") or () if item.get("type") == "Ready"), None)
    words = ["Unknown"] if ready is None else ["Ready" if ready.get("status") == "True" else "NotReady"]
    if _get(obj, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(obj: Object, now: datetime) -> str:
    labels = _get(obj, "metadata", "labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)} - {""}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or "<none>"


def _node_address(kind: str) -> Callable[[Object, datetime], str]:
    def cell(obj: Object, now: datetime) -> str:
        addresses = _get(obj, "status", "addresses") or ()
        return next((str(item.get("address")) for item in addresses if item.get("type") == kind), "<none>")

    return cell


def _event_field(obj: Object, *names: str) -> Any:
    """A field by its core v1 name or its events.k8s.io/v1 name."""
    return next((obj[name] for name in names if obj.get(name)), None)


def _first_seen(obj: Object, now: datetime) -> str:
    return age(_event_field(obj, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime"), now)


def _last_seen(obj: Object, now: datetime) -> str:
    last = _get(obj, "series", "lastObservedTime") or _event_field(obj, "lastTimestamp", "deprecatedLastTimestamp")
    return age(last, now) if last else _first_seen(obj, now)


def _event_object(obj: Object, now: datetime) -> str:
    involved = _event_field(obj, "involvedObject", "regarding") or {}
    kind, name = str(involved.get("kind", "")).lower(), involved.get("name")
    return f"{kind}/{name}" if name else kind


def _event_source(obj: Object, now: datetime) -> str:
    source = _event_field(obj, "source", "deprecatedSource") or {}
    component = source.get("component") or _event_field(obj, "reportingComponent", "reportingController") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _event_count(obj: Object, now: datetime) -> int:
    return int(_get(obj, "series", "count") or _event_field(obj, "count", "deprecatedCount") or 1)


def _event_message(obj: Object, now: datetime) -> str:
    return str(_event_field(obj, "message", "note") or "").strip()


def _subobject(obj: Object, now: datetime) -> str:
    return str((_event_field(obj, "involvedObject", "regarding") or {}).get("fieldPath") or "")


# --- columns ----------------------------------------------------------------------------------------------------------

_NAME: Final = Column("Name", _name_of, format="name", description="Name must be unique within a namespace.")
_AGE: Final = Column("Age", _age_of, description="Time since the object was created.")
_PLAIN: Final = (_NAME, _AGE)
_EVENT: Final = (
    Column("Last Seen", _last_seen, description="Time since this event was last seen."),
    Column("Type", _text_of("type"), description="Normal or Warning."),
    Column("Reason", _text_of("reason"), description="Why the object came to its state, in one word."),
    Column("Object", _event_object, description="The object that this event is about."),
    Column("Subobject", _subobject, priority=1, description="The part of the object."),
    Column("Source", _event_source, priority=1, description="The component that reports this event."),
    Column("Message", _event_message, description="What happened in words."),
    Column("First Seen", _first_seen, priority=1, description="Time since this event was first seen."),
    Column("Count", _event_count, type="integer", priority=1, description="How often this event has happened."),
    Column("Name", _name_of, format="name", priority=1, description="Name must be unique within a namespace."),
)
_BUILTIN: Final[Mapping[tuple[str, str], tuple[Column, ...]]] = {
    ("", "Namespace"): (_NAME, Column("Status", _text_of("status", "phase")), _AGE),
    ("", "Node"): (
        _NAME,
        Column("Status", _node_status, description="The status of the node."),
        Column("Roles", _node_roles, description="The roles of the node."),
        _AGE,
        Column("Version", _text_of("status", "nodeInfo", "kubeletVersion"), description="Kubelet version of the node."),
        Column("Internal-IP", _node_address("InternalIP"), priority=1),
        Column("External-IP", _node_address("ExternalIP"), priority=1),
        Column("OS-Image", _text_of("status", "nodeInfo", "osImage", absent="<unknown>"), priority=1),
        Column("Kernel-Version", _text_of("status", "nodeInfo", "kernelVersion", absent="<unknown>"), priority=1),
        Column(
            "Container-Runtime",
            _text_of("status", "nodeInfo", "containerRuntimeVersion", absent="<unknown>"),
            priority=1,
        ),
    ),
    ("", "Secret"): (
        _NAME,
        Column("Type", _text_of("type"), description="What the data is for."),
        Column("Data", _data_count, type="string", description="How many keys it has."),
        _AGE,
    ),
    ("", "ConfigMap"): (_NAME, Column("Data", _data_count, type="string", description="How many keys it has."), _AGE),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("coordination.k8s.io", "Lease"): (
        _NAME,
        Column("Holder", _text_of("spec", "holderIdentity"), description="The identity of the holder."),
        _AGE,
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (
        _NAME,
        Column("Created At", _text_of("metadata", "creationTimestamp"), type="date"),
    ),
}


@lru_cache(maxsize=1024)
def _parsed(path: str) -> JsonPath:
    return parse_path(path)


def _custom_column(column: Object) -> Column:
    path, kind = _parsed(column["jsonPath"]), column["type"]

    def cell(obj: Object, now: datetime) -> Any:
        found = path.find(obj)
        if not found:
            return None
        if kind == "string":
            return " ".join(_printed(value) for value in found)
        return _typed(found[0], kind, now)

    return Column(
        column["name"],
        cell,
        type=kind,
        format=column.get("format", ""),
        description=column.get(
            "description", "Custom resource definition column (in JSONPath format): " + column["jsonPath"]
        ),
        priority=column.get("priority", 0),
    )


def _printed(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if value is not None else "<nil>"


def _typed(value: Any, kind: str, now: datetime) -> Any:
    if kind == "date":
        return age(value, now) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if kind == "integer" else value
