"""Is a CRD's schema structural, and does it use only what is served? One pass, faults by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import re2

from cloudhub.standalone import fielderrors
from cloudhub.standalone.fielderrors import FieldError
from cloudhub.standalone.structural import INT_OR_STRING, PRESERVE
from cloudhub.standalone.validation import Validator, compile_pattern

Schema = Mapping[str, Any]
_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_FORBIDDEN: Final = {
    "$ref": "$ref is not supported",
    "$schema": "$schema is not supported",
    "id": "id is not supported",
    "definitions": "definitions is not supported",
    "dependencies": "dependencies is not supported",
    "patternProperties": "patternProperties is not supported",
    "additionalItems": "additionalItems is not supported",
}
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_LIST_TYPES: Final = ("atomic", "set", "map")


def structural_faults(schema: Schema, path: str) -> list[FieldError]:
    errors = list(_node(schema, path, nested=False))
    if schema.get("type") not in (None, "object"):
        errors.append(fielderrors.invalid(f"{path}.type", schema["type"], "must be object at the root"))
    if schema.get("nullable"):
        errors.append(fielderrors.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    return errors


def _node(schema: Schema, path: str, *, nested: bool, where: str = "at the root") -> Iterator[FieldError]:
    """``nested``: inside a junctor, where a schema only narrows and must not describe."""
    kind = schema.get("type")
    if kind is not None and kind not in _TYPES:
        yield fielderrors.not_supported(f"{path}.type", kind, _TYPES)
    if (
        not nested
        and not kind
        and not schema.get(INT_OR_STRING)
        and not (schema.get(PRESERVE) and where != "at the root")
    ):
        yield fielderrors.required(f"{path}.type", f"must not be empty {where}")
    if nested:
        for key in ("description", "default", "additionalProperties", "nullable", PRESERVE):
            if key in schema:
                yield fielderrors.forbidden(f"{path}.{key}", "must be undefined to be structural")
    for key, why in _FORBIDDEN.items():
        if key in schema:
            yield fielderrors.forbidden(f"{path}.{key}", why)
    yield from _own_faults(schema, path)
    yield from _children(schema, path, nested=nested)


def _own_faults(schema: Schema, path: str) -> Iterator[FieldError]:
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield fielderrors.forbidden(f"{path}.uniqueItems", why)
    if schema.get("additionalProperties") is False:
        yield fielderrors.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if schema.get("properties") and schema.get("additionalProperties"):
        why = "additionalProperties and properties are mutual exclusive"
        yield fielderrors.forbidden(f"{path}.additionalProperties", why)
    if schema.get("type") == "array" and not isinstance(schema.get("items"), Mapping):
        if isinstance(schema.get("items"), list):
            yield fielderrors.forbidden(f"{path}.items", "items must be a schema object and not an array")
        else:
            yield fielderrors.required(f"{path}.items", "must be specified")
    if "pattern" in schema:
        try:
            compile_pattern(str(schema["pattern"]))
        except re2.error as error:
            why = f"must be a valid regular expression, but isn't: {str(error)[:128]}"
            yield fielderrors.invalid(f"{path}.pattern", schema["pattern"], why)
    if schema.get(PRESERVE) is False:
        yield fielderrors.invalid(f"{path}.{PRESERVE}", False, "must be true or undefined")
    yield from _list_faults(schema, path)


def _list_faults(schema: Schema, path: str) -> Iterator[FieldError]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    items: Schema = schema["items"] if isinstance(schema.get("items"), Mapping) else {}
    if kind is not None and kind not in _LIST_TYPES:
        yield fielderrors.not_supported(f"{path}.x-kubernetes-list-type", kind, _LIST_TYPES)
    if kind is not None and schema.get("type") != "array":
        yield fielderrors.invalid(
            f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is given"
        )
    if kind == "map" and not keys:
        yield fielderrors.required(
            f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"
        )
    if keys and kind != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        yield fielderrors.invalid(f"{path}.x-kubernetes-list-type", kind or "", why)
    for index, key in enumerate(keys if kind == "map" else ()):
        if key not in (items.get("properties") or {}):
            why = "must be the name of a property of the items"
            yield fielderrors.invalid(f"{path}.x-kubernetes-list-map-keys[{index}]", key, why)
        elif key not in (items.get("required") or ()) and "default" not in items["properties"][key]:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield fielderrors.required(f"{path}.items.properties[{key}].default", why)
    if kind == "set" and items.get("type") in ("object", "array") and not _is_atomic(items):
        why = "set lists must have scalar or atomic items"
        yield fielderrors.forbidden(f"{path}.items", why)
    if "x-kubernetes-map-type" in schema and schema["x-kubernetes-map-type"] not in ("atomic", "granular"):
        allowed = ("atomic", "granular")
        yield fielderrors.not_supported(f"{path}.x-kubernetes-map-type", schema["x-kubernetes-map-type"], allowed)


def _is_atomic(schema: Schema) -> bool:
    return "atomic" in (schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type"))


def _children(schema: Schema, path: str, *, nested: bool) -> Iterator[FieldError]:
    for key, child in (schema.get("properties") or {}).items():
        below = f"{path}.properties[{key}]"
        if "default" in child and not nested:
            yield from _default_faults(child, below)
        if (key, nested) != ("metadata", False) or path.count(".properties[") or child.get("type") is None:
            yield from _node(child, below, nested=nested, where="for specified object fields")
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), Mapping):
            kind = "array items" if key == "items" else "object fields"
            yield from _node(schema[key], f"{path}.{key}", nested=nested, where=f"for specified {kind}")
    for key in _JUNCTORS:
        for index, child in enumerate(schema.get(key) or ()):
            yield from _node(child, f"{path}.{key}[{index}]", nested=True)
    if isinstance(schema.get("not"), Mapping):
        yield from _node(schema["not"], f"{path}.not", nested=True)


def _default_faults(schema: Schema, path: str) -> Iterator[FieldError]:
    """A default must be what the schema allows; fields that it leaves out may have defaults of their own."""
    for error in Validator(schema).validate(schema["default"], None, "default"):
        if "Required value" not in error.body:
            yield fielderrors.invalid(f"{path}.default", schema["default"], f"must validate: {error}")
