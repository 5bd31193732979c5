"""Kubernetes' strategic merge patch: a merge patch that knows which lists are merged by which key.

A list with ``x-kubernetes-patch-strategy: merge`` is merged element by element (objects by
``x-kubernetes-patch-merge-key``, scalars as a set); every other list is replaced. Directives in the patch say what a
merge cannot: ``$patch`` (replace, delete, merge), ``$deleteFromPrimitiveList/<list>``, ``$setElementOrder/<list>``,
``$retainKeys``. The rules are those of apimachinery's ``strategicpatch``; kubectl makes such patches for built-in
kinds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_PRIMITIVES: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"

Schema = Mapping[str, Any]
_UNKNOWN: Final[Schema] = {}


class InvalidPatch(ValueError):
    """The patch is malformed (``code`` 400) or does not apply (422); the text is the API server's message."""

    def __init__(self, message: str, *, code: int = 400) -> None:
        super().__init__(message)
        self.code = code


def strategic_merge_patch(obj: Mapping[str, Any], patch: Any, schema: Schema) -> dict[str, Any]:
    """A new object; ``schema`` is `ResourceSchema.openapi`. Raises `InvalidPatch`."""
    if not isinstance(patch, dict):
        raise InvalidPatch("error decoding patch: a strategic merge patch is an object")
    return _merge_map(obj, patch, schema)


def _merge_map(original: Mapping[str, Any] | None, patch: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    if _PATCH in patch:
        return _whole_map(original, patch, schema)
    merged = dict(original or {})
    _retain_keys(merged, patch)
    lists = {key.split("/", 1)[1] for key in patch if key.startswith((_DELETE_PRIMITIVES, _ORDER))}
    for key, value in patch.items():
        if key.startswith("$") or key in lists:
            continue
        _merge_key(merged, key, value, child_schema(schema, key))
    for key in lists:
        _merge_list_with_directives(merged, key, patch, child_schema(schema, key))
    return merged


def _whole_map(original: Mapping[str, Any] | None, patch: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    rest = {key: value for key, value in patch.items() if key != _PATCH}
    match patch[_PATCH]:
        case "replace":
            return _plain_map(rest)
        case "delete":
            return {}
        case "merge":
            return _merge_map(original, rest, schema)
        case other:
            raise InvalidPatch(f"Unknown patch type found: {str(other)[:64]}")


def _retain_keys(merged: dict[str, Any], patch: Mapping[str, Any]) -> None:
    if _RETAIN not in patch:
        return
    keep = patch[_RETAIN]
    if not isinstance(keep, list) or not all(isinstance(key, str) for key in keep):
        raise InvalidPatch("error decoding patch: $retainKeys is a list of keys")
    if missing := [key for key in patch if not key.startswith("$") and key not in keep and patch[key] is not None]:
        raise InvalidPatch(f"the patch sets {missing[0]!r}, which its $retainKeys list does not name")
    for key in [key for key in merged if key not in keep]:
        del merged[key]


def _merge_key(merged: dict[str, Any], key: str, value: Any, schema: Schema) -> None:
    if value is None:
        merged.pop(key, None)
        return
    current = merged.get(key)
    if isinstance(value, dict):
        replace = "replace" in _strategies(schema)
        base = current if isinstance(current, Mapping) and not replace else None
        merged[key] = _merge_map(base, value, schema)
    elif isinstance(value, list) and isinstance(current, list) and "merge" in _strategies(schema):
        merged[key] = _merge_list(current, value, schema)
    else:
        merged[key] = _without_directives(value)


def _merge_list_with_directives(merged: dict[str, Any], key: str, patch: Mapping[str, Any], schema: Schema) -> None:
    delete = _list_of(patch, _DELETE_PRIMITIVES + key)
    order = _list_of(patch, _ORDER + key)
    current = merged.get(key)
    server_list: list[Any] = current if isinstance(current, list) else []
    result = [item for item in server_list if item not in delete]
    if key in patch and patch[key] is None:
        merged.pop(key, None)
        return
    if key in patch:
        additions = patch[key]
        if not isinstance(additions, list):
            raise InvalidPatch(f"error decoding patch: {key!r} beside a list directive is no list")
        result = _merge_list(result, additions, schema)
    if order:
        result = _ordered(result, order, server_list, _merge_key_of(schema))
    if result or key in merged:
        merged[key] = result


def _list_of(patch: Mapping[str, Any], key: str) -> list[Any]:
    value = patch.get(key, [])
    if not isinstance(value, list):
        raise InvalidPatch(f"error decoding patch: {key!r} is no list")
    return value


def _merge_list(original: Sequence[Any], patch: Sequence[Any], schema: Schema) -> list[Any]:
    if not any(isinstance(item, dict) for item in (*original, *patch)):
        return list(dict.fromkeys([*original, *patch])) if _hashable(original, patch) else [*original, *patch]
    merge_key = _merge_key_of(schema)
    if not merge_key:
        raise InvalidPatch("cannot merge lists without merge key")
    if any(_is_directive(item, "replace") for item in patch):
        return [_without_directives(item) for item in patch if not _is_directive(item, "replace")]
    deleted = [_key_value(item, merge_key) for item in patch if _is_directive(item, "delete")]
    changes = [item for item in patch if not _is_directive(item, "delete")]
    result = [item for item in original if not (isinstance(item, Mapping) and item.get(merge_key) in deleted)]
    items = schema.get("items", _UNKNOWN)
    for change in changes:
        value = _key_value(change, merge_key)
        at = next((i for i, item in enumerate(result) if _has_key(item, merge_key, value)), None)
        if at is None:
            result.append(_merge_map(None, change, items))
        else:
            result[at] = _merge_map(result[at], change, items)
    return _ordered(result, changes, original, merge_key)


def _ordered(items: list[Any], wanted: Sequence[Any], server: Sequence[Any], merge_key: str) -> list[Any]:
    """Items named in ``wanted`` in its order; the server's own keep their place relative to the items around them."""

    def identity(item: Any) -> Any:
        return item.get(merge_key) if isinstance(item, Mapping) else item

    rank = [identity(item) for item in wanted]
    places = [identity(item) for item in server]
    patch_items = sorted(
        (item for item in items if identity(item) in rank), key=lambda item: rank.index(identity(item))
    )
    server_only = [item for item in items if identity(item) not in rank]
    result: list[Any] = []
    while patch_items and server_only:
        left, right = identity(patch_items[0]), identity(server_only[0])
        # A patch item that the server's list did not have goes before what is only on the server.
        before = left not in places or right not in places or places.index(left) < places.index(right)
        result.append(patch_items.pop(0) if before else server_only.pop(0))
    return [*result, *patch_items, *server_only]


def _is_directive(item: Any, name: str) -> bool:
    return isinstance(item, dict) and item.get(_PATCH) == name


def _key_value(item: Any, merge_key: str) -> Any:
    if not isinstance(item, Mapping) or merge_key not in item:
        raise InvalidPatch(f"map: {sorted(item) if isinstance(item, Mapping) else item!r} does not contain declared "
                           f"merge key: {merge_key}")  # fmt: skip
    return item[merge_key]


def _has_key(item: Any, merge_key: str, value: Any) -> bool:
    return isinstance(item, Mapping) and item.get(merge_key) == value


def _hashable(*lists: Sequence[Any]) -> bool:
    return not any(isinstance(item, list) for items in lists for item in items)


def _plain_map(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_directives(child)
        for key, child in value.items()
        if child is not None and not key.startswith((_PATCH, _RETAIN, _DELETE_PRIMITIVES, _ORDER))
    }


def _without_directives(value: Any) -> Any:
    """What a patch puts where nothing was: directives mean nothing there, and nulls delete nothing."""
    if isinstance(value, dict):
        return _plain_map(value)
    if isinstance(value, list):
        return [_without_directives(child) for child in value if not _is_directive(child, "delete")]
    return copy.copy(value)


def _strategies(schema: Schema) -> Sequence[str]:
    return str(schema.get("x-kubernetes-patch-strategy", "")).split(",")


def _merge_key_of(schema: Schema) -> str:
    return str(schema.get("x-kubernetes-patch-merge-key", ""))


def child_schema(schema: Schema, key: str) -> Schema:
    """The schema of a field, or of a map's values; an empty one where the schema says nothing."""
    properties = schema.get("properties") or _UNKNOWN
    found = properties[key] if key in properties else schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else _UNKNOWN
