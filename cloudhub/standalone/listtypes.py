"""Lists that are sets or maps have no item twice. Only the parts of a schema that lead to such lists are walked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudhub.standalone import fielderrors
from cloudhub.standalone.fielderrors import FieldError
from cloudhub.standalone.fieldsets import value_element

Schema = Mapping[str, Any]


@dataclass(slots=True)
class ListTypes:
    """The part of a schema that leads to such lists. Made for schemas of CRDs, which have no cycles."""

    keys: tuple[str, ...] | None = None
    """Keys of a list of type map; empty for a set; None where there is no such list."""
    properties: dict[str, ListTypes] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    additional: ListTypes | None = None
    items: ListTypes | None = None

    @classmethod
    def of(cls, schema: Schema) -> ListTypes | None:
        """None when there is no such list in it."""
        made = cls(known=frozenset(schema.get("properties") or ()))
        match schema.get("x-kubernetes-list-type"):
            case "set":
                made.keys = ()
            case "map":
                made.keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        for key, child in (schema.get("properties") or {}).items():
            below = cls.of(child)
            if below is not None:
                made.properties[key] = below
        if isinstance(schema.get("additionalProperties"), Mapping):
            made.additional = cls.of(schema["additionalProperties"])
        if isinstance(schema.get("items"), Mapping):
            made.items = cls.of(schema["items"])
        empty = made.keys is None and not made.properties and made.additional is None and made.items is None
        return None if empty else made

    def duplicates(self, value: Any, old: Any, path: str = "") -> list[FieldError]:
        """Faults of ``value``, except where it equals ``old``."""
        if value == old:
            return []
        errors: list[FieldError] = []
        if isinstance(value, dict):
            for key, item in value.items():
                below = self.properties.get(key) if key in self.known else self.additional
                if below is not None:
                    former = old.get(key) if isinstance(old, dict) else None
                    errors += below.duplicates(item, former, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            if self.keys is not None:
                errors += self._own_duplicates(value, path)
            if self.items is not None:
                for index, item in enumerate(value):
                    errors += self.items.duplicates(item, None, f"{path}[{index}]")
        return errors

    def _own_duplicates(self, items: list[Any], path: str) -> list[FieldError]:
        seen: set[str] = set()
        errors = []
        for index, item in enumerate(items):
            if self.keys and isinstance(item, dict):
                item = {key: item[key] for key in self.keys if key in item}
            text = value_element(item)
            if text in seen:
                errors.append(fielderrors.duplicate(f"{path}[{index}]", item))
            seen.add(text)
        return errors
