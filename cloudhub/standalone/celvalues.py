"""JSON values as CEL values, by their schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from celpy import celtypes

from cloudhub.standalone.strategic import child_schema

_RESERVED: Final = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    )
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES: Final = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


def escape(name: str) -> str:
    """A property's name as rules write it: ``foo-bar`` is ``self.foo__dash__bar``, ``namespace`` ``__namespace__``."""
    if name in _RESERVED:
        return f"__{name}__"
    if _IDENTIFIER.fullmatch(name) and "__" not in name:
        return name
    for plain, escaped in _ESCAPES:
        name = name.replace(plain, escaped)
    return name


def to_cel(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _text(value, str(schema.get("format", "")) if schema.get("type") == "string" else "")
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int | float):
        # What no 64 bits hold is a float to Kubernetes; the schema says what is wrong with it.
        whole = (
            isinstance(value, int) if schema.get("type") not in ("integer", "number") else schema["type"] == "integer"
        )
        return celtypes.IntType(value) if whole and abs(value) < 2**63 else celtypes.DoubleType(value)
    if isinstance(value, list):
        items = schema.get("items")
        items = items if isinstance(items, Mapping) else {}
        return celtypes.ListType([to_cel(item, items) for item in value])
    if isinstance(value, dict):
        named = schema.get("properties") or {}
        return celtypes.MapType(
            {
                celtypes.StringType(escape(key) if key in named else key): to_cel(item, child_schema(schema, key))
                for key, item in value.items()
            }
        )
    return None


def _text(value: str, form: str) -> Any:
    try:
        if form == "date-time":
            return celtypes.TimestampType(value)
        if form == "duration":
            return celtypes.DurationType(value)
        if form == "byte":
            return celtypes.BytesType(value.encode())
    except ValueError:
        # The schema has refused it by another error already, or does not check this format.
        return celtypes.StringType(value)
    return celtypes.StringType(value)
