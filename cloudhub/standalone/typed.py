"""Objects by their schema, as server-side apply sees them: which fields they have, how two differ, how two merge.

After sigs.k8s.io/structured-merge-diff. An object's fields are told apart by their schema: lists of type map or set
have items that are fields of their own, other lists and atomic maps are one field each, maps and structs go deeper.
Where the schema says nothing, maps go deeper and lists are atomic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloudhub.standalone.fieldsets import FieldSet, key_element, value_element
from cloudhub.standalone.strategic import child_schema

Schema = Mapping[str, Any]
_ABSENT: Final = object()


def _is_granular(value: Any, schema: Schema) -> bool:
    """Whether ``value`` has fields of its own."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and schema.get("x-kubernetes-list-type") in ("map", "set")


def _items_schema(schema: Schema) -> Schema:
    items = schema.get("items")
    return items if isinstance(items, Mapping) else {}


def _element(item: Any, schema: Schema) -> str | None:
    """The path element of a list's item; None when the item has none of its keys, and is nobody's then."""
    if schema.get("x-kubernetes-list-type") == "set":
        return value_element(item)
    keys: dict[str, Any] = {}
    fields = _items_schema(schema).get("properties") or {}
    for key in schema.get("x-kubernetes-list-map-keys") or ():
        if isinstance(item, dict) and key in item:
            keys[key] = item[key]
        elif "default" in fields.get(key, {}):
            keys[key] = fields[key]["default"]
    return key_element(keys) if keys else None


def _children(value: Any, schema: Schema) -> dict[str, tuple[Any, Schema]]:
    """What a granular value holds, by path element; of equal elements the first."""
    if isinstance(value, dict):
        return {f"f:{key}": (item, child_schema(schema, key)) for key, item in value.items()}
    found: dict[str, tuple[Any, Schema]] = {}
    if isinstance(value, list):
        items = _items_schema(schema)
        for item in value:
            element = _element(item, schema)
            if element is not None:
                found.setdefault(element, (item, items))
    return found


def _is_named(element: str, schema: Schema) -> bool:
    return element[0] == "f" and element[2:] in (schema.get("properties") or ())


def to_set(value: Any, schema: Schema) -> FieldSet:
    """The fields that ``value`` says something about. A struct's field counts through what is in it."""
    result = FieldSet()
    for element, (item, below) in _children(value, schema).items():
        if not _is_granular(item, below):
            result.members.add(element)
            continue
        result.attach(element, to_set(item, below))
        if not _is_named(element, schema) or item == {}:
            result.members.add(element)
    return result


def _is_nothing(value: Any) -> bool:
    return value is _ABSENT or value is None


@dataclass(slots=True)
class Comparison:
    added: FieldSet = field(default_factory=FieldSet)
    modified: FieldSet = field(default_factory=FieldSet)
    removed: FieldSet = field(default_factory=FieldSet)

    def without(self, elements: set[str]) -> Comparison:
        return Comparison(self.added.without(elements), self.modified.without(elements), self.removed.without(elements))


def compare(old: Any, new: Any, schema: Schema) -> Comparison:
    """How the fields of ``new`` differ from those of ``old``."""
    result = Comparison()
    before, after = _children(old, schema), _children(new, schema)
    for element in before.keys() | after.keys():
        left, right = before.get(element, (_ABSENT, {})), after.get(element, (_ABSENT, {}))
        _compare_field(element, left[0], right[0], (after.get(element) or left)[1], result)
    return result


def _compare_field(element: str, old: Any, new: Any, schema: Schema, result: Comparison) -> None:
    if old is not _ABSENT and new is not _ABSENT and old == new and type(old) is type(new):
        return
    deep_old, deep_new = _is_granular(old, schema), _is_granular(new, schema)
    # Two empty containers are compared as one field, so that absent, null and empty stay different.
    deep = (deep_old and bool(old)) or (deep_new and bool(new))
    if deep and (deep_old == deep_new or _is_nothing(old) or _is_nothing(new)):
        below = compare(old, new, schema)
        result.added.attach(element, below.added)
        result.modified.attach(element, below.modified)
        result.removed.attach(element, below.removed)
    elif old is not _ABSENT and new is not _ABSENT:
        result.modified.members.add(element)
    if old is _ABSENT:
        result.added.members.add(element)
    if new is _ABSENT:
        result.removed.members.add(element)


def merge(old: Any, new: Any, schema: Schema) -> Any:
    """``new`` over ``old``: what ``new`` does not speak of stays. Gives a new value, sharing unchanged parts."""
    if not (_is_granular(old, schema) and _is_granular(new, schema) and type(old) is type(new)):
        return new
    if isinstance(new, dict):
        merged = dict(old)
        for key, value in new.items():
            merged[key] = merge(old[key], value, child_schema(schema, key)) if key in old else value
        return merged
    return _merge_lists(old, new, schema) if old and new else (new or old)


def _merge_lists(old: list[Any], new: list[Any], schema: Schema) -> list[Any]:
    """``new`` decides the order of what it names; the rest of ``old`` keeps its place around that."""
    before, after = _children(old, schema), _children(new, schema)
    items = _items_schema(schema)
    left, right = list(before), list(after)
    shared = [element for element in right if element in before]
    result: list[Any] = []
    at_left = at_right = 0
    while at_left < len(left) or at_right < len(right):
        if at_left < len(left):
            element = left[at_left]
            if element not in after:
                result.append(before[element][0])
                at_left += 1
                continue
            if shared and element != shared[0]:
                # Another one's turn comes first; this one is placed where ``new`` has it.
                at_left += 1
                continue
        if at_right >= len(right):
            at_left += 1
            continue
        element = right[at_right]
        value = after[element][0]
        result.append(merge(before[element][0], value, items) if element in before else value)
        at_right += 1
        if shared and shared[0] == element:
            shared.pop(0)
            at_left += at_left < len(left) and left[at_left] == element
    return result


def remove(value: Any, fields: FieldSet, schema: Schema) -> Any:
    """``value`` without the fields in the set; a map or list that this empties goes with them."""
    if not fields or not _is_granular(value, schema):
        return value
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            element = f"f:{key}"
            if element in fields.members:
                continue
            left = remove(item, fields.below(element), child_schema(schema, key))
            if left or not item:
                kept[key] = left
        return kept
    items, result = _items_schema(schema), []
    for item in value:
        element_of = _element(item, schema)
        if element_of is None or element_of not in fields.members:
            result.append(item if element_of is None else remove(item, fields.below(element_of), items))
    return result


def with_named(fields: FieldSet, schema: Schema) -> FieldSet:
    """The set, with the struct fields that lead to its members as members: emptied, they go too."""
    result = FieldSet(fields.members)
    for element, child in fields.children.items():
        if _is_named(element, schema):
            result.members.add(element)
        below = child_schema(schema, element[2:]) if element[0] == "f" else _items_schema(schema)
        result.attach(element, with_named(child, below))
    return result
