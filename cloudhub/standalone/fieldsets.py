"""Sets of fields, as managedFields keeps them, and their algebra.

A set is a tree: at each level the elements that are members, and below some elements further sets. An element's text
is its key in fieldsV1: ``f:name`` (a field), ``k:{"type":"Ready"}`` (a list item by its keys), ``v:"x"`` (an item of a
set by its value). Membership of an element says nothing about what is below it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

_PREFIXES: Final = ("f:", "k:", "v:", "i:")
_MAX_DEPTH: Final = 100


class FieldSet:
    __slots__ = ("children", "members")

    def __init__(self, members: Collection[str] = (), children: Mapping[str, FieldSet] | None = None) -> None:
        self.members: set[str] = set(members)
        self.children: dict[str, FieldSet] = dict(children or {})

    def __bool__(self) -> bool:
        return bool(self.members) or any(self.children.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FieldSet):
            return NotImplemented
        return self.members == other.members and self._filled() == other._filled()

    __hash__ = None  # type: ignore[assignment]

    def _filled(self) -> dict[str, FieldSet]:
        return {element: child for element, child in self.children.items() if child}

    def below(self, element: str) -> FieldSet:
        return self.children.get(element, _EMPTY)

    def attach(self, element: str, child: FieldSet) -> None:
        if child:
            self.children[element] = child

    def union(self, other: FieldSet) -> FieldSet:
        result = FieldSet(self.members | other.members, self.children)
        for element, child in other.children.items():
            mine = result.children.get(element)
            result.children[element] = child if mine is None else mine.union(child)
        return result

    def intersection(self, other: FieldSet) -> FieldSet:
        result = FieldSet(self.members & other.members)
        for element in self.children.keys() & other.children.keys():
            result.attach(element, self.children[element].intersection(other.children[element]))
        return result

    def difference(self, other: FieldSet) -> FieldSet:
        """Without the members of ``other``. What is below a member of ``other`` goes only if it is named itself."""
        result = FieldSet(self.members - other.members)
        for element, child in self.children.items():
            result.attach(element, child.difference(other.below(element)))
        return result

    def without(self, elements: Collection[str]) -> FieldSet:
        """Without these top elements and all below them."""
        kept = {element: child for element, child in self.children.items() if element not in elements}
        return FieldSet(self.members.difference(elements), kept)

    def paths(self, prefix: str = "") -> Iterator[str]:
        """Members as the API server prints them: ``.spec.images``, ``.status.conditions[type="Ready"].status``."""
        for element in sorted(self.members):
            yield prefix + _shown(element)
        for element in sorted(self.children):
            yield from self.children[element].paths(prefix + _shown(element))

    def to_v1(self) -> dict[str, Any]:
        """fieldsV1: a leaf is ``{}``, a member with something below it has a dot."""
        result: dict[str, Any] = {}
        for element in sorted(self.members | self._filled().keys()):
            child = self.children.get(element)
            if not child:
                result[element] = {}
                continue
            below = child.to_v1()
            result[element] = {".": {}, **below} if element in self.members else below
        return result

    @classmethod
    def from_v1(cls, fields: Any, depth: int = 0) -> FieldSet:
        """Raises ValueError when ``fields`` is no fieldsV1."""
        if not isinstance(fields, Mapping) or depth > _MAX_DEPTH:
            raise ValueError("fieldsV1 is malformed")
        result = cls()
        for element, below in fields.items():
            if element == ".":
                continue
            if not element.startswith(_PREFIXES) or not isinstance(below, Mapping):
                raise ValueError("fieldsV1 is malformed")
            text = _canonical(element)
            if not below or "." in below:
                result.members.add(text)
            result.attach(text, cls.from_v1(below, depth + 1))
        return result


_EMPTY: Final = FieldSet()


def key_element(keys: Mapping[str, Any]) -> str:
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def value_element(value: Any) -> str:
    return "v:" + json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _canonical(element: str) -> str:
    """Keys and values in one spelling: clients write managedFields too."""
    if element[0] in "fi":
        return element
    parsed = json.loads(element[2:])
    if element[0] == "v":
        return value_element(parsed)
    if not isinstance(parsed, dict):
        raise ValueError("fieldsV1 is malformed")
    return key_element(parsed)


def _shown(element: str) -> str:
    rest = element[2:]
    match element[0]:
        case "f":
            return f".{rest}"
        case "k":
            pairs = json.loads(rest).items()
            return "[" + ",".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in pairs) + "]"
        case "v":
            return f"[={rest}]"
        case _:
            return f"[{rest}]"
