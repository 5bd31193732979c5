"""Validation by an OpenAPI v3 schema: the jsonschema library decides, the API server's words report.

A schema is compiled once. An object is compared with its former self first, and what is equal is not looked at again:
the API server tolerates old faults in parts that an update leaves alone, and a job's status of several hundred
kilobytes costs what changed in it. `jsonschema` is extended by what OpenAPI adds (nullable, int-or-string) and by
a short cut: what is sound beyond doubt, as nearly all is, is passed by a plain check, at a tenth of the cost, and the
library has the rest, to say what is wrong with it.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import datetime
from typing import Any, Final

import jsonschema
import re2
from jsonschema.exceptions import ValidationError

from cloudhub.standalone import fielderrors
from cloudhub.standalone.fielderrors import FieldError, Reason
from cloudhub.standalone.structural import INT_OR_STRING

Schema = Mapping[str, Any]
_MAX_ERRORS: Final = 50
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_DURATION: Final = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+|0")


class Validator:
    """One compiled schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._shortcuts: dict[int, _Check | None] = {}

    def validate(self, value: Any, old: Any, path: str = "") -> list[FieldError]:
        """Faults of ``value``; none are looked for where it equals ``old``."""
        run = _Run(self._shortcuts)
        if old is not None:
            _collect_unchanged(value, old, run.unchanged)
        if run.passes(value, self._schema):
            return []
        errors: list[FieldError] = []
        for error in _Engine(self._schema, format_checker=run).iter_errors(value):
            errors += _field_errors(error, path)
            if len(errors) >= _MAX_ERRORS:
                break
        return errors


_Check = Callable[[Any], bool]


class _Run(jsonschema.FormatChecker):
    """What one validation knows beside the schema. The format checker is the one thing that the library hands down to
    every level, so this rides on it."""

    def __init__(self, shortcuts: dict[int, _Check | None]) -> None:
        super().__init__(formats=())
        self.checkers = _FORMATS
        self.shortcuts = shortcuts
        """By the identity of a schema, which outlives this."""
        self.unchanged: set[int] = set()
        """Identities of dicts and lists that are as they were."""

    def passes(self, value: Any, schema: Schema) -> bool:
        """True when ``value`` needs no further look; False says nothing."""
        if id(value) in self.unchanged:
            return True
        check = _shortcut(schema, self.shortcuts)
        return check is not None and check(value)


def _collect_unchanged(value: Any, old: Any, unchanged: set[int]) -> None:
    """Identities of the dicts and lists in ``value`` that equal their counterpart in ``old``."""
    if not isinstance(value, (dict, list)):
        return
    if value == old:
        unchanged.add(id(value))
    elif isinstance(value, dict) and isinstance(old, dict):
        for key, item in value.items():
            if key in old:
                _collect_unchanged(item, old[key], unchanged)
    elif isinstance(value, list) and isinstance(old, list):
        for item, former in zip(value, old, strict=False):
            _collect_unchanged(item, former, unchanged)


# --- short cuts -------------------------------------------------------------------------------------------------------

_IGNORED: Final = frozenset(
    (
        *("type", "description", "title", "default", "example", "nullable"),
        # Of rules, list types and unknown fields, others take care.
        *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
    )
)


def _shortcut(schema: Schema, known: dict[int, _Check | None]) -> _Check | None:
    """A cheap sufficient test, None for schemas that say more than such a test knows."""
    key = id(schema)
    if key not in known:
        bounds = schema.keys() - _IGNORED
        match schema.get("type"):
            case "object" if bounds <= {"properties", "required", "additionalProperties"}:
                known[key] = _object_check(schema, known)
            case "array" if bounds <= {"items", "maxItems"}:
                known[key] = _array_check(schema, known)
            case kind:
                known[key] = _scalar_check(kind, bounds, schema)
    return known[key]


def _object_check(schema: Schema, known: dict[int, _Check | None]) -> _Check:
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    required: list[str] = schema.get("required") or []
    additional = schema.get("additionalProperties")
    checks: dict[str, _Check] = {}
    """Of the properties that came so far: a schema may contain itself."""

    def check(value: Any) -> bool:
        if type(value) is not dict or not all(name in value for name in required):
            return False
        for key, item in value.items():
            passes = checks.get(key)
            if passes is None:
                child = properties.get(key, additional)
                if not isinstance(child, Mapping):
                    continue
                passes = _shortcut(child, known)
                if passes is None:
                    return False
                if key in properties:
                    checks[key] = passes
            if not passes(item):
                return False
        return True

    return check


def _array_check(schema: Schema, known: dict[int, _Check | None]) -> _Check:
    items, most = schema.get("items") or {}, schema.get("maxItems", 1 << 62)

    def check(value: Any) -> bool:
        passes = _shortcut(items, known)
        return passes is not None and type(value) is list and len(value) <= most and all(map(passes, value))

    return check


def _scalar_check(kind: Any, bounds: Set[str], schema: Schema) -> _Check | None:
    if kind == "string" and bounds <= {"maxLength", "enum"}:
        limit, allowed = schema.get("maxLength", 1 << 62), schema.get("enum")
        return lambda value: type(value) is str and len(value) <= limit and (allowed is None or value in allowed)
    if kind == "string" and bounds == {"format"} and schema["format"] == "date-time":
        return lambda value: type(value) is str and _is_sound_time(value)
    if kind == "integer" and bounds <= {"format"} and schema.get("format") in (None, "int32", "int64"):
        size = 1 << (31 if schema.get("format") == "int32" else 63)
        return lambda value: type(value) is int and -size <= value < size
    if kind == "boolean" and not bounds:
        return lambda value: type(value) is bool
    return None


def _is_sound_time(text: str) -> bool:
    try:
        return _is_time(text)
    except ValueError:
        return False


# --- keywords ---------------------------------------------------------------------------------------------------------

_Errors = Iterator[ValidationError]


def _properties(validator: Any, properties: Mapping[str, Schema], instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, dict):
        run: _Run = validator.format_checker
        for key, value in instance.items():
            child = properties.get(key)
            if child is not None and not run.passes(value, child):
                yield from validator.descend(value, child, path=key, schema_path=key)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, dict) and isinstance(additional, Mapping):
        run: _Run = validator.format_checker
        known = schema.get("properties", ())
        for key, value in instance.items():
            if key not in known and not run.passes(value, additional):
                yield from validator.descend(value, additional, path=key)


def _items(validator: Any, items: Schema, instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, list):
        run: _Run = validator.format_checker
        for index, value in enumerate(instance):
            if not run.passes(value, items):
                yield from validator.descend(value, items, path=index)


def _type(validator: Any, kind: str, instance: Any, schema: Schema) -> _Errors:
    if instance is None and schema.get("nullable"):
        return
    if schema.get(INT_OR_STRING):
        return
    if not validator.is_type(instance, kind):
        yield ValidationError(kind)


def _int_or_string(validator: Any, enabled: bool, instance: Any, schema: Schema) -> _Errors:
    if enabled and (isinstance(instance, bool) or not isinstance(instance, (int, str))):
        if instance is None and schema.get("nullable"):
            return
        yield ValidationError("integer,string", validator="type", validator_value="integer,string")


def _enum(validator: Any, allowed: list[Any], instance: Any, schema: Schema) -> _Errors:
    if instance is None and schema.get("nullable"):
        return
    if not any(instance == item and isinstance(instance, bool) == isinstance(item, bool) for item in allowed):
        yield ValidationError("enum")


def _required(validator: Any, names: list[str], instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, dict):
        for name in names:
            if name not in instance:
                yield ValidationError(name)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, str) and compile_pattern(pattern).search(instance) is None:
        yield ValidationError("pattern")


def _maximum(validator: Any, bound: float, instance: Any, schema: Schema) -> _Errors:
    # OpenAPI v3's exclusiveMaximum is a boolean beside the bound, not a bound of its own.
    if isinstance(instance, (int, float)) and not isinstance(instance, bool):
        exclusive = schema.get("exclusiveMaximum") is True
        if instance > bound or (exclusive and instance == bound):
            yield ValidationError("less than" if exclusive else "less than or equal to")


def _minimum(validator: Any, bound: float, instance: Any, schema: Schema) -> _Errors:
    if isinstance(instance, (int, float)) and not isinstance(instance, bool):
        exclusive = schema.get("exclusiveMinimum") is True
        if instance < bound or (exclusive and instance == bound):
            yield ValidationError("greater than" if exclusive else "greater than or equal to")


def _nothing(validator: Any, value: Any, instance: Any, schema: Schema) -> _Errors:
    return iter(())


@functools.lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Any:
    """The API server's own kind of regular expression (RE2): linear in the text, whoever wrote the pattern."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


_Engine: Final = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        "properties": _properties,
        "additionalProperties": _additional_properties,
        "items": _items,
        "type": _type,
        INT_OR_STRING: _int_or_string,
        "enum": _enum,
        "required": _required,
        "pattern": _pattern,
        "maximum": _maximum,
        "minimum": _minimum,
        "exclusiveMaximum": _nothing,
        "exclusiveMinimum": _nothing,
        # No keywords of OpenAPI: a property of that name elsewhere must not act.
        "$ref": _nothing,
        "$dynamicRef": _nothing,
    },
)


# --- formats ----------------------------------------------------------------------------------------------------------


def _is_time(text: str) -> bool:
    if _RFC3339.fullmatch(text) is None:
        return False
    datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    return True


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text) and datetime.fromisoformat(text))


def _is_bytes(text: str) -> bool:
    base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    return True


def _of_text(check: Callable[[str], object]) -> tuple[Callable[[object], bool], type[Exception]]:
    return lambda value: not isinstance(value, str) or bool(check(value)), ValueError


def _of_size(bits: int) -> tuple[Callable[[object], bool], type[Exception]]:
    bound = 1 << (bits - 1)
    return lambda value: not isinstance(value, int) or -bound <= value < bound, ValueError


_FORMATS: Final[Any] = {
    "int32": _of_size(32),
    "int64": _of_size(64),
    "date-time": _of_text(_is_time),
    "date": _of_text(_is_date),
    "byte": _of_text(_is_bytes),
    "duration": _of_text(_DURATION.fullmatch),
    "ipv4": _of_text(ipaddress.IPv4Address),
    "ipv6": _of_text(ipaddress.IPv6Address),
    "cidr": _of_text(functools.partial(ipaddress.ip_network, strict=False)),
    "uuid": _of_text(uuid.UUID),
    "hostname": _of_text(re.compile(r"(?=.{1,255}$)[A-Za-z0-9][-A-Za-z0-9]*(\.[A-Za-z0-9-]+)*").fullmatch),
    "email": _of_text(re.compile(r"[^@\s]+@[^@\s]+").fullmatch),
    "uri": _of_text(re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*").fullmatch),
}
"""Others are accepted and not checked, as the API server does."""


# --- words ------------------------------------------------------------------------------------------------------------


def type_name(value: Any) -> str:
    """JSON's name of a value's type, as the API server's messages have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return {float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "object")


def _path_of(error: ValidationError, prefix: str) -> str:
    path = prefix
    for part in error.absolute_path:
        path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else str(part)
    return path


def _field_errors(error: ValidationError, prefix: str) -> list[FieldError]:
    path = _path_of(error, prefix)
    value: Any = error.instance
    bound: Any = error.validator_value
    match error.validator:
        case "required":
            return [fielderrors.required(f"{path}.{error.message}" if path else error.message)]
        case "enum":
            return [fielderrors.not_supported(path, value, bound)]
        case "maxLength":
            return [fielderrors.too_long(path, bound)]
        case "maxItems" | "maxProperties":
            return [fielderrors.too_many(path, len(value), bound)]
        case "type":
            shown = f'"{type_name(value)}"'
            return [fielderrors.type_invalid(path, shown, f"{path} in body must be of type {bound}: {shown}")]
        case "oneOf" | "anyOf" | "allOf" | "not":
            return _composite(error, path, prefix)
        case _:
            shown_value = len(value) if error.validator in ("minItems", "minProperties") else value
            return [fielderrors.invalid(path, shown_value, f"{path} in body {_should(error)}")]


def _should(error: ValidationError) -> str:
    bound = error.validator_value
    match error.validator:
        case "pattern":
            return f"should match '{bound}'"
        case "format":
            return f"must be of type {bound}: {fielderrors.show(error.instance)}"
        case "minimum" | "maximum":
            return f"should be {error.message} {bound}"
        case "minLength":
            return f"should be at least {bound} chars long"
        case "minItems":
            return f"should have at least {bound} items"
        case "minProperties":
            return f"should have at least {bound} properties"
        case "multipleOf":
            return f"should be a multiple of {bound}"
        case "uniqueItems":
            return "shouldn't contain duplicates"
        case other:
            return f"does not satisfy {other}"


def _composite(error: ValidationError, path: str, prefix: str) -> list[FieldError]:
    """The whole's fault, then those of the branch that came nearest."""
    branches: dict[Any, list[ValidationError]] = {}
    for child in error.context or ():
        branches.setdefault(child.schema_path[0] if child.schema_path else 0, []).append(child)
    words = {
        "oneOf": "must validate one and only one schema (oneOf). "
        + ("Found none valid" if branches else "Found more than one valid"),
        "anyOf": "must validate at least one schema (anyOf)",
        "allOf": "must validate all the schemas (allOf)",
        "not": "must not validate the schema (not)",
    }[str(error.validator)]
    errors = [FieldError(path, Reason.INVALID, f'Invalid value: "": "{path}" {words}')]
    if branches:
        for child in min(branches.values(), key=len):
            errors += _field_errors(child, prefix)
    return errors
