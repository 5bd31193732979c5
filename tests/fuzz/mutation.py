"""Inputs that are nearly right: valid samples with a few things wrong.

Random bytes end at the first check of a parser. A document that is right but for one value, one key too many, one
number without end or one cut gets further, to where the mistakes are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz.target import Target

_NAN: Final = '"\\u0000NaN\\u0000"'
_DEEP: Final = '"\\u0000deep\\u0000"'
_LONE: Final = '"\\u0000lone\\u0000"'
_RAW: Final = (
    (_NAN, ("NaN", "Infinity", "-Infinity", "1e999", "-0", "1" * 5000, "0.0000000000000000000001", "1E400")),
    (_DEEP, ("[" * 2000 + "]" * 2000, '{"a":' * 1200 + "1" + "}" * 1200, "[" * 100_000)),
    (_LONE, ('"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\u202e"', '"\\ud83d"')),
)
"""What Python's encoder will not write, put in afterwards."""

_TEXTS: Final = (
    "", " ", "\0", "a\0b", "x" * 300, "y" * 5000, "é" * 200, "🦀", "../../etc/passwd", "%00%n%s", "\r\nX: y", "-",
    "null", "True", "0", "1e5", "*", "{{", "sha256:", "sha256:" + "a" * 64, "https://[::1", "[", "localhost:99999",
    "a@b@c", "\u2028", "\x7f", "١٢", "ﬁ",
)  # fmt: skip
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1,
    2**64, 10**400, 0.5, -0.0, 1e308, [], {}, [[]], [None], [{}],
    {"": ""}, {"a": None}, {"": {"": []}}, [1, "a", None, {}], ["a"] * 2000, {str(n): n for n in range(1500)},
    "\0NaN\0", "\0deep\0", "\0lone\0", *_TEXTS,
)  # fmt: skip


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """What to feed a target: its samples wronged as documents and as bytes, and now and then just bytes."""
    kinds = [damaged(target.samples), st.binary(max_size=200)]
    if target.documents:
        kinds = [wronged(target.samples), wronged(target.samples), *kinds]
    return st.one_of(kinds)


# --- Documents --------------------------------------------------------------------------------------------------------


@st.composite
def wronged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    document = json.loads(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        document = _change(draw, document)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    for stand_in, raw in _RAW:
        if stand_in in text:
            text = text.replace(stand_in, draw(st.sampled_from(raw)))
    if draw(st.integers(0, 9)) == 0:
        text = _doubled_key(draw, text)
    return text.encode("utf-8", "surrogatepass")


def _change(draw: st.DrawFn, document: Any) -> Any:
    """One thing in it changed, at any depth."""
    places = [((), document), *_places(document)]
    path, value = places[draw(st.integers(0, len(places) - 1))]
    kind = draw(st.sampled_from(("odd", "odd", "odd", "drop", "rename", "wrap", "repeat", "case", "text")))
    if not path:
        return draw(st.sampled_from(_ODD)) if kind == "odd" and draw(st.booleans()) else document
    return _at(document, path, lambda holder, key: _apply(draw, kind, holder, key, value))


def _apply(draw: st.DrawFn, kind: str, holder: Any, key: Any, value: Any) -> None:
    if kind == "drop":
        del holder[key]
    elif kind in ("rename", "case") and isinstance(holder, dict):
        name = str(key).upper() if kind == "case" else draw(st.sampled_from(_TEXTS))
        holder[name] = holder.pop(key)
    elif kind == "wrap":
        holder[key] = draw(st.sampled_from(([value], {"a": value}, [value, value], str(value), {str(key): value})))
    elif kind == "repeat" and isinstance(holder, list):
        holder += [value] * draw(st.sampled_from((1, 20, 1200)))
    elif kind == "text":
        holder[key] = draw(st.text(max_size=40))
    else:
        holder[key] = draw(st.sampled_from(_ODD))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    found: list[tuple[tuple[Any, ...], Any]] = []
    if len(path) > 8:
        return found
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = list(value.items())[:40]
    elif isinstance(value, list):
        pairs = list(enumerate(value))[:40]
    else:
        return found
    for key, child in pairs:
        found.append(((*path, key), child))
        found += _places(child, (*path, key))
    return found


def _at(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    # A copy: odd values are shared between inputs.
    document = json.loads(json.dumps(document))
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return document


def _doubled_key(draw: st.DrawFn, text: str) -> str:
    start = text.find("{")
    end = text.find(",", start)
    return text if start < 0 or end < 0 else text[: end + 1] + text[start + 1 : end + 1] + text[end + 1 :]


# --- Bytes ------------------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 1, 2, 4, 16, 64)))
        match draw(st.sampled_from(("flip", "set", "cut", "remove", "insert", "double", "end"))):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[place : place + length] = bytes([draw(st.integers(0, 255))]) * length
            case "cut":
                del data[place:]
            case "remove":
                del data[place : place + length]
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "double":
                data[place:place] = data[place : place + length]
            case _:
                data += draw(st.binary(max_size=16))
    return bytes(data)
