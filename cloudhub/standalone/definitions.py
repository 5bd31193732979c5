"""The OpenAPI components of ``builtin.yaml``: as they stand in documents, and with their references resolved.

References are resolved into shared dictionaries, so a schema that contains itself (JSONSchemaProps) is a cycle; whoever
walks one follows the data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import yaml

CORE: Final = "io.k8s.api.core.v1."
EXTENSIONS: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META: Final = META + "ObjectMeta"
EVENTS_V1: Final = "io.k8s.api.events.v1.Event"
GVK: Final = "x-kubernetes-group-version-kind"

_EVENT_RENAMED: Final = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
"""Fields of core v1 Events and their names in events.k8s.io/v1."""


@functools.cache
def definitions() -> dict[str, dict[str, Any]]:
    """Components by name; whole objects have apiVersion, kind and metadata."""
    text = resources.files("cloudhub.standalone").joinpath("builtin.yaml").read_bytes()
    found: dict[str, dict[str, Any]] = yaml.load(text, yaml.CSafeLoader)
    found[EVENTS_V1] = _events_v1(found[CORE + "Event"])
    for name, schema in found.items():
        if GVK in schema and name != META + "Status":
            schema["properties"] = {**object_fields(), **schema["properties"]}
    return found


def object_fields() -> dict[str, Any]:
    """What every object has."""
    return {
        "apiVersion": {
            "type": "string",
            "description": "APIVersion defines the versioned schema of this representation of an object.",
        },
        "kind": {
            "type": "string",
            "description": "Kind is a string value representing the REST resource this object represents.",
        },
        "metadata": {"allOf": [{"$ref": OBJECT_META}], "description": "Standard object's metadata."},
    }


def _events_v1(core: Mapping[str, Any]) -> dict[str, Any]:
    properties = {_EVENT_RENAMED.get(key, key): value for key, value in core["properties"].items()}
    gvk = [{"group": "events.k8s.io", "kind": "Event", "version": "v1"}]
    return {**core, "required": ["eventTime"], "properties": properties, GVK: gvk}


def resolved(name: str) -> Mapping[str, Any]:
    """A component with its references resolved: may contain itself."""
    return _resolved()[name]


@functools.cache
def _resolved() -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for name in definitions():
        _named(name, made)
    # What may be a boolean or a list instead of a schema is looked into where it is one.
    properties = made[EXTENSIONS + "JSONSchemaProps"]["properties"]
    for key in ("additionalProperties", "items"):
        properties[key] = {"properties": properties}
    return made


def _named(name: str, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if name not in made:
        made[name] = {}
        # Filled after it is known by name: a cycle's second visit finds it.
        made[name].update(_resolve(definitions()[name], made))
    return made[name]


def _resolve(value: Any, made: dict[str, dict[str, Any]]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, made) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        return _named(value["$ref"], made)
    if isinstance(value.get("allOf"), list) and "$ref" in value["allOf"][0]:
        rest = {key: _resolve(item, made) for key, item in value.items() if key != "allOf"}
        return {**_named(value["allOf"][0]["$ref"], made), **rest}
    return {key: _resolve(item, made) for key, item in value.items()}
