"""Strategies that spoil: a valid document with a few of its parts replaced, doubled or gone, then a few bytes of it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import strategies as st

SECRET: Final = "s3cr3t-pass1234"
"""Stands in samples wherever a secret does: no error may repeat it."""


def _nested(depth: int, *, of: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if of == "lists" else {"a": value}
    return value


HOSTILE: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, math.nan, math.inf,
    "", " ", "\0", "\ud800", "é" * 300, "x" * 5000, "0", "-1", "1e999", "true", "null", "\n\r\t", "%s%n{0}{a}",
    "../../etc/passwd", "a/b/c/d/e/f/g", "http://[::1", "[::]:0", "::", ":", "@", "*", "[*]", "\u202e", "\ufeff",
    [], {}, [None], {"": ""}, [[]], {"a": None}, [1] * 2000, {str(number): number for number in range(300)},
    ["x"] * 300, _nested(60, of="lists"), _nested(60, of="objects"), _nested(900, of="lists"),
)  # fmt: skip

_Path = tuple[str | int, ...]


def _paths(document: Any, path: _Path = ()) -> Iterator[_Path]:
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    elif isinstance(document, list):
        for place, value in enumerate(document):
            yield from _paths(value, (*path, place))


def _holder(document: Any, path: _Path) -> Any:
    for step in path[:-1]:
        document = document[step]
    return document


@st.composite
def documents(draw: st.DrawFn, samples: tuple[Any, ...]) -> Any:
    """One of the samples, spoiled in up to three places."""
    document = copy.deepcopy(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_paths(document))))
        value = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        if not path:
            # The whole of it, seldom: little is behind that.
            document = value if draw(st.integers(0, 9)) == 0 else document
            continue
        holder, last = _holder(document, path), path[-1]
        match draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "rename"))):
            case "replace":
                holder[last] = value
            case "remove":
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(("", "x", "A" * 400, "\0", "__proto__", "metadata")))] = value
            case "add":
                holder.append(value)
            case "rename" if isinstance(holder, dict):
                holder[str(last).swapcase()] = holder.pop(last)
    return document


def _text_of(document: Any, draw: st.DrawFn) -> bytes:
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def spoiled(draw: st.DrawFn, sample: bytes) -> bytes:
    """The sample with some of its bytes cut off, changed, doubled or put in."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 1, 2, 8, 64)))
        match draw(st.sampled_from(("change", "change", "cut", "insert", "double", "remove"))):
            case "change":
                data[place : place + length] = draw(st.binary(min_size=1, max_size=length))
            case "cut":
                del data[place:]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=length))
            case "double":
                data[place:place] = data[place : place + length]
            case _:
                del data[place : place + length]
    return bytes(data)


@st.composite
def texts_of(draw: st.DrawFn, samples: tuple[Any, ...]) -> bytes:
    """JSON, which is YAML too, of a spoiled document; one time in four its bytes are spoiled as well."""
    data = _text_of(draw(documents(samples)), draw)
    return draw(spoiled(data)) if draw(st.integers(0, 3)) == 0 else data
