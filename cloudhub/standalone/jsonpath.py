"""Kubernetes' JSON paths, as CRDs use them for printer columns and selectable fields.

``.spec.replicas``, ``.metadata.labels['app\\.example/name']``, ``.items[0]``, ``.list[*].name``, ``.list[1:3]``,
``..name``, ``.conditions[?(@.type=="Ready")].status``. A path is parsed once; what an object does not have
gives nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_MAX_PATH: Final = 4096
_FIELD: Final = re.compile(r"(?:\\.|[^.\[\]\\\s])+")
_FILTER: Final = re.compile(r"\?\(\s*@(?P<left>[^=!<>\s]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+?))?\s*\)")
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}

Step = Callable[[Any], Iterable[Any]]


class InvalidPath(ValueError):
    """The text is no JSON path."""


class JsonPath:
    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps

    def find(self, obj: Any) -> list[Any]:
        values = [obj]
        for step in self._steps:
            values = [found for value in values for found in step(value)]
        return values


def parse_path(text: str) -> JsonPath:
    """Raises `InvalidPath`."""
    if len(text) > _MAX_PATH:
        raise InvalidPath("the path is too long")
    body = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    body = body.removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(body):
        if body.startswith("..", at):
            name, at = _field_at(body, at + 2)
            steps += [_descendants, _field(name)]
        elif body[at] == ".":
            if at + 1 == len(body) and not steps:
                break
            if body.startswith("[", at + 1):
                at += 1
                continue
            name, at = _field_at(body, at + 1)
            steps.append(_every if name == "*" else _field(name))
        elif body[at] == "[":
            end = _closing(body, at)
            steps.append(_subscript(body[at + 1 : end]))
            at = end + 1
        else:
            raise InvalidPath(f"unexpected {body[at]!r} at {at}")
    return JsonPath(tuple(steps))


def _field_at(body: str, at: int) -> tuple[str, int]:
    match = _FIELD.match(body, at)
    if match is None:
        raise InvalidPath(f"a field name is missing at {at}")
    return re.sub(r"\\(.)", r"\1", match[0]), match.end()


def _closing(body: str, at: int) -> int:
    """The bracket that closes the one at ``at``; quotes hide brackets."""
    depth, quote, skip = 0, "", False
    for index in range(at, len(body)):
        char = body[index]
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[]":
            depth += 1 if char == "[" else -1
            if depth == 0:
                return index
    raise InvalidPath("unterminated array")


def _subscript(text: str) -> Step:
    text = text.strip()
    if text == "*":
        return _every
    if text.startswith("?"):
        return _filter(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return _field(re.sub(r"\\(.)", r"\1", text[1:-1]))
    numbers = text.split(":")
    if len(numbers) > 3 or not all(re.fullmatch(r"-?\d*", number.strip()) for number in numbers):
        raise InvalidPath(f"invalid array index {text[:32]}")
    if len(numbers) == 1:
        if not numbers[0]:
            raise InvalidPath("invalid array index")
        return _index(int(numbers[0]))
    return _slice(slice(*(int(number) if number.strip() else None for number in numbers)))


def _filter(text: str) -> Step:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise InvalidPath(f"unrecognized filter {text[:64]}")
    left = parse_path(match["left"])
    if match["op"] is None:
        return lambda value: [item for item in _every(value) if left.find(item)]
    compare, right = _COMPARE[match["op"]], _literal(match["right"])

    def step(value: Any) -> list[Any]:
        kept = []
        for item in _every(value):
            found = left.find(item)
            try:
                if found and compare(found[0], right):
                    kept.append(item)
            except TypeError:
                continue
        return kept

    return step


def _literal(text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidPath(f"unrecognized value {text[:64]} in a filter") from None


def _field(name: str) -> Step:
    return lambda value: [value[name]] if isinstance(value, Mapping) and name in value else []


def _index(number: int) -> Step:
    return lambda value: [value[number]] if isinstance(value, list) and -len(value) <= number < len(value) else []


def _slice(part: slice) -> Step:
    return lambda value: value[part] if isinstance(value, list) else []


def _every(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _descendants(value: Any) -> list[Any]:
    found = [value]
    for child in _every(value):
        found += _descendants(child)
    return found
