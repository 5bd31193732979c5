"""Defaults and pruning by a structural schema: the two passes that change an object before it is validated.

Schemas are plain dictionaries, references resolved; those of built-in kinds may contain themselves. Both passes work in
place and follow the data, so that their cost is that of the object, not of the schema.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cloudhub.standalone.strategic import child_schema

Schema = Mapping[str, Any]

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"


class Defaults:
    """The defaults of one schema. What leads to none is not looked into: a status of thousands of entries has none."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._leading: dict[int, bool] = {}
        """By the identity of a part of the schema, which outlives this."""

    def fill(self, value: Any) -> None:
        """Set what is missing (or null where null is not allowed) and has a default, in place."""
        self._fill(value, self._schema)

    def _fill(self, value: Any, schema: Schema) -> None:
        if not self._leads_to_one(schema):
            return
        if isinstance(value, dict):
            for key, child in schema.get("properties", {}).items():
                if "default" not in child:
                    continue
                if key not in value or (value[key] is None and not child.get("nullable")):
                    value[key] = copy.deepcopy(child["default"])
            for key, item in value.items():
                if isinstance(item, (dict, list)):
                    self._fill(item, child_schema(schema, key))
        elif isinstance(value, list):
            items = schema.get("items")
            if isinstance(items, Mapping):
                for item in value:
                    if isinstance(item, (dict, list)):
                        self._fill(item, items)

    def _leads_to_one(self, schema: Schema) -> bool:
        key = id(schema)
        if key not in self._leading:
            self._leading[key] = any("default" in part for part in _parts_below(schema))
        return self._leading[key]


def _parts_below(schema: Schema) -> Iterator[Schema]:
    seen, left = {id(schema)}, [schema]
    while left:
        part = left.pop()
        children = (*(part.get("properties") or {}).values(), part.get("additionalProperties"), part.get("items"))
        for child in children:
            if isinstance(child, Mapping) and id(child) not in seen:
                seen.add(id(child))
                left.append(child)
                yield child


def drop_nulls(value: Any, schema: Schema) -> None:
    """As typed decoding of built-in kinds does: a null field is an absent one. Inside free-form values they stay."""
    if schema.get(PRESERVE):
        return
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            del value[key]
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                drop_nulls(item, child_schema(schema, key))
    elif isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.get("items") or {})


def prune(value: Any, schema: Schema, metadata: Schema, *, root: bool = False) -> list[str]:
    """Remove fields that the schema does not name, in place; returns their paths, sorted as they stood.

    ``root`` (and x-kubernetes-embedded-resource below it) marks a whole object: its apiVersion, kind and metadata are
    always known, metadata by ``metadata``."""
    removed: list[str] = []
    if isinstance(value, dict):
        _prune_object(value, schema, metadata, root or bool(schema.get(EMBEDDED)), removed)
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping):
            for index, item in enumerate(value):
                below = prune(item, items, metadata) if isinstance(item, (dict, list)) else ()
                if below:
                    removed += [f"[{index}]{_below(path)}" for path in below]
    return removed


def _prune_object(value: dict[str, Any], schema: Schema, metadata: Schema, whole: bool, removed: list[str]) -> None:
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    keep_unknown = bool(schema.get(PRESERVE)) or additional is True
    for key, item in list(value.items()):
        child: Any = properties.get(key)
        if whole and key == "metadata":
            child = metadata
        elif whole and key in ("apiVersion", "kind"):
            continue
        elif child is None and isinstance(additional, Mapping):
            child = additional
        if child is None:
            if not keep_unknown:
                del value[key]
                removed.append(key)
        elif isinstance(item, (dict, list)):
            below = prune(item, child, metadata)
            if below:
                removed += [f"{key}{_below(path)}" for path in below]


def _below(path: str) -> str:
    return path if path.startswith("[") else f".{path}"
