"""Request bodies: JSON or YAML text to one object, and what strict decoding says of it.

Keys that stand twice are found and reported by path, since the later one silently wins and the writer meant both.
Bodies are untrusted: their nesting is bounded, and YAML is read without tags, without aliases (a short text of nested
aliases expands to gigabytes) and without turning dates into anything but text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Decoded:
    object: dict[str, Any]
    duplicates: tuple[str, ...] = ()
    """Paths of keys that stood twice: ``spec.images``."""


class InvalidBody(ValueError):
    """The body is no object of the kind (400); the text is the API server's message and safe to answer with."""


@dataclass(slots=True)
class _Duplicates:
    """Keys seen twice, by the identity of the dict they stood in: a parser's hook does not know where it is."""

    by_dict: dict[int, list[str]] = field(default_factory=dict)

    def mapping(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            self.by_dict[id(made)] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
        return made

    def paths(self, value: Any, path: str = "") -> list[str]:
        found: list[str] = []
        if isinstance(value, dict):
            found += [join(path, key) for key in dict.fromkeys(self.by_dict.get(id(value), ()))]
            for key, child in value.items():
                found += self.paths(child, join(path, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                found += self.paths(child, f"{path}[{index}]")
        return found


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def decode_body(raw: bytes, content_type: str = "application/json") -> Decoded:
    """A request body as an object. Any YAML media type is read as YAML. Raises `InvalidBody`."""
    value, duplicates = decode_value(raw, content_type)
    if not isinstance(value, dict):
        raise InvalidBody(f"the object provided is unrecognized: the body is {_type_name(value)}, not an object")
    return Decoded(value, duplicates)


def decode_value(raw: bytes, content_type: str = "application/json") -> tuple[Any, tuple[str, ...]]:
    """A body of any shape (a JSON patch is a list), and the paths of its keys that stood twice."""
    duplicates = _Duplicates()
    try:
        value = _parse_yaml(raw, duplicates) if "yaml" in content_type else _parse_json(raw, duplicates)
    except RecursionError:
        raise InvalidBody(f"the body is nested deeper than {_MAX_DEPTH} levels") from None
    _check_depth(value)
    if "yaml" in content_type or b"\\ud" in raw.lower():
        _check_carried(value)
    return value, tuple(duplicates.paths(value)) if duplicates.by_dict else ()


def _parse_json(raw: bytes, duplicates: _Duplicates) -> Any:
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=duplicates.mapping,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise InvalidBody("the body is no UTF-8 text") from None
    except ValueError as error:
        # The position helps; the text around it may be a Secret's and stays out.
        where = f"{error.msg} at line {error.lineno}, column {error.colno}" if isinstance(
            error, json.JSONDecodeError
        ) else "a number that JSON does not have"  # fmt: skip
        raise InvalidBody(f"couldn't get version/kind; json parse error: {where}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text[:32])
    return number


def _check_carried(value: Any) -> None:
    """JSON and YAML can spell what JSON cannot carry: half a surrogate pair, and in YAML a number without end."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise InvalidBody("the body has text that is no Unicode, or a number that JSON does not have") from None


_TAGS: Final = frozenset(
    {"!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))}
)
"""What else can be written out makes dates, bytes and sets."""


class _YamlLoader(yaml.CSafeLoader):
    """Scalars as Kubernetes' YAML reader takes them: dates stay text."""

    duplicates: _Duplicates


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _construct_mapping(loader: _YamlLoader, node: Any) -> dict[str, Any]:
    loader.flatten_mapping(node)
    pairs = [
        (_key(loader.construct_object(key, deep=True)), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    return loader.duplicates.mapping(pairs)


_YamlLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _key(value: Any) -> str:
    """Keys are text in JSON: YAML's ``1:`` and ``true:`` become "1" and "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def _parse_yaml(raw: bytes, duplicates: _Duplicates) -> Any:
    try:
        _check_events(raw)
        loader = _YamlLoader(raw)
        loader.duplicates = duplicates
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or (str(error) if isinstance(error, yaml.YAMLError) else "bad value")
        raise InvalidBody(f"error converting YAML to JSON: yaml: {str(problem)[:128]}{where}") from None


def _check_events(raw: bytes) -> None:
    """Before anything is built: a hundred thousand brackets would end the process, since the C loader builds them by
    recursion and knows no limit."""
    depth = 0
    for event in yaml.parse(raw, Loader=yaml.CSafeLoader):
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise yaml.YAMLError("tags are not taken, but for those of JSON's types")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise InvalidBody(f"the body is nested deeper than {_MAX_DEPTH} levels")
        level = [child for item in level for child in _children(item) if isinstance(child, (dict, list))]


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def _type_name(value: Any) -> str:
    return {list: "a list", str: "text", type(None): "empty"}.get(type(value), "a scalar")


def field_warnings(unknown: Sequence[str], duplicates: Sequence[str] = ()) -> list[str]:
    """``unknown field "spec.foo"``, each: a Warning header each under fieldValidation=Warn."""
    return [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]


def strict_decoding_error(unknown: Sequence[str], duplicates: Sequence[str] = ()) -> str:
    """``strict decoding error: unknown field "spec.foo"``: what fieldValidation=Strict refuses with (400)."""
    return "strict decoding error: " + ", ".join(field_warnings(unknown, duplicates))


def cannot_be_handled(kind: str, version: str, problem: str) -> str:
    """The API server's message for a create or an update whose body does not decode."""
    return f'{kind} in version "{version}" cannot be handled as a {kind}: {problem}'
