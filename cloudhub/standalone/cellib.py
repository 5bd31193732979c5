"""Functions that Kubernetes adds to CEL: its list and regex libraries, and CEL's extended strings.

cel-python calls them with CEL values, the receiver first. A wrong argument raises, which the rule's author sees as a
failed rule.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any, Final

from celpy import celtypes
from celpy.evaluation import CELFunction

from cloudhub.standalone.validation import compile_pattern

_MAX_TEXT: Final = 1 << 20


def _string(text: str) -> Any:
    if len(text) > _MAX_TEXT:
        raise ValueError("a string became too long")
    return celtypes.StringType(text)


def _strings(texts: list[str]) -> Any:
    return celtypes.ListType([celtypes.StringType(text) for text in texts])


def _is_sorted(items: Any) -> Any:
    return celtypes.BoolType(all(left <= right for left, right in itertools.pairwise(items)))


def _sum(items: Any) -> Any:
    return functools.reduce(operator.add, items) if items else celtypes.IntType(0)


def _index_of(value: Any, part: Any, start: int = 0) -> Any:
    if isinstance(value, str):
        return celtypes.IntType(value.find(part, start))
    return celtypes.IntType(next((i for i, item in enumerate(value) if item == part), -1))


def _last_index_of(value: Any, part: Any) -> Any:
    if isinstance(value, str):
        return celtypes.IntType(value.rfind(part))
    return celtypes.IntType(max((i for i, item in enumerate(value) if item == part), default=-1))


def _matches(text: Any, pattern: Any) -> Any:
    return celtypes.BoolType(compile_pattern(str(pattern)).search(str(text)) is not None)


def _find(text: Any, pattern: Any) -> Any:
    found = compile_pattern(str(pattern)).search(str(text))
    return _string(found.group(0) if found else "")


def _find_all(text: Any, pattern: Any, limit: int = -1) -> Any:
    found = [match.group(0) for match in compile_pattern(str(pattern)).finditer(str(text))]
    return _strings(found if limit < 0 else found[: int(limit)])


def _split(text: Any, separator: Any, limit: int = -1) -> Any:
    if limit == 0:
        return _strings([])
    if not separator:
        return _strings(list(text))
    return _strings(str(text).split(str(separator), int(limit) - 1 if limit > 0 else -1))


def _replace(text: Any, old: Any, new: Any, limit: int = -1) -> Any:
    return _string(str(text).replace(str(old), str(new), int(limit)))


def _substring(text: Any, start: int, end: int | None = None) -> Any:
    stop = len(text) if end is None else int(end)
    if not 0 <= start <= stop <= len(text):
        raise ValueError(f"invalid range: {start}:{stop}")
    return _string(str(text)[int(start) : stop])


def _char_at(text: Any, index: int) -> Any:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return _string(str(text)[int(index) : int(index) + 1])


def _ascii(change: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda text: _string("".join(change(char) if char.isascii() else char for char in text))


FUNCTIONS: Final[dict[str, CELFunction]] = {
    "isSorted": _is_sorted,
    "sum": _sum,
    "min": min,
    "max": max,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "matches": _matches,
    "find": _find,
    "findAll": _find_all,
    "charAt": _char_at,
    "join": lambda items, separator="": _string(str(separator).join(items)),
    "lowerAscii": _ascii(str.lower),
    "upperAscii": _ascii(str.upper),
    "replace": _replace,
    "split": _split,
    "substring": _substring,
    "trim": lambda text: _string(str(text).strip()),
}
