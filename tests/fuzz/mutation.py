"""Inputs that are nearly right: valid samples with a few things wrong.

Random bytes end at the first check of a parser. A document that is right but for one value, one key too many, one
number without end or one cut gets further, to where the mistakes are.

All is made with a plain `random.Random`, thousands of inputs a second: of these parsers most take less time than
choosing an input with hypothesis does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final

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

TEXTS: Final = (
    "", " ", "\0", "a\0b", "x" * 300, "y" * 5000, "é" * 200, "🦀", "../../etc/passwd", "%00%n%s", "\r\nX: y", "-",
    "null", "True", "0", "1e5", "*", "{{", "sha256:", "sha256:" + "a" * 64, "https://[::1", "[", "localhost:99999",
    "a@b@c", "\u2028", "\x7f", "١٢", "ﬁ",
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1,
    2**64, 10**400, 0.5, -0.0, 1e308, [], {}, [[]], [None], [{}],
    {"": ""}, {"a": None}, {"": {"": []}}, [1, "a", None, {}], ["a"] * 2000, {str(n): n for n in range(1500)},
    "\0NaN\0", "\0deep\0", "\0lone\0", *TEXTS,
)  # fmt: skip


MAX_INPUT: Final = 1 << 20
"""Bytes. Whoever reads from a peer reads less; what is read without a bound, this does not show."""


def made(random: Random, target: Target) -> bytes:
    """Its samples wronged as documents and as bytes, what it makes itself, and now and then just bytes."""
    return _made(random, target)[:MAX_INPUT]


def _made(random: Random, target: Target) -> bytes:
    if target.make is not None and random.randrange(2):
        return target.make(random)
    kind = random.randrange(4)
    if kind >= 2 and target.documents:
        return wronged(random, target.samples)
    return noise(random, 200) if kind == 1 else damaged(random, target.samples)


def changed(random: Random, target: Target, data: bytes) -> bytes:
    """One step on from an input that was worth keeping."""
    if target.documents and random.randrange(4):
        try:
            return wronged(random, (data,))
        except (ValueError, RecursionError):
            pass  # it is no document any more
    return damaged(random, (data,))


# --- Documents --------------------------------------------------------------------------------------------------------


def wronged(random: Random, samples: Sequence[bytes]) -> bytes:
    document = json.loads(random.choice(samples))
    for _ in range(random.randint(1, 3)):
        document = _change(random, document)
    text = json.dumps(document, ensure_ascii=bool(random.randrange(2)))
    for stand_in, raw in _RAW:
        if stand_in in text:
            text = text.replace(stand_in, random.choice(raw))
    if random.randrange(10) == 0:
        text = _doubled_key(text)
    return text.encode("utf-8", "surrogatepass")


def one_wrong_each(random: Random, samples: Sequence[bytes], *, most: int) -> Iterator[tuple[bytes, list[str]]]:
    """Documents with one value wrong, and the keys that lead to it; so many, from all over the samples."""
    places = [
        (document, path) for document in map(json.loads, samples) for path, _ in _places(document) if path
    ]  # fmt: skip
    for document, path in random.sample(places, min(most, len(places))):
        wrong = _at(document, path, partial(_put, value=random.choice(ODD)))
        yield json.dumps(wrong).encode(), [str(key) for key in path if isinstance(key, str)]


def _put(holder: Any, key: Any, *, value: Any) -> None:
    holder[key] = value


def _change(random: Random, document: Any) -> Any:
    """One thing in it changed, at any depth."""
    places = [((), document), *_places(document)]
    path, value = random.choice(places)
    kind = random.choice(("odd", "odd", "odd", "drop", "rename", "wrap", "repeat", "case", "text", "add", "bend"))
    if not path:
        return random.choice(ODD) if kind == "odd" and random.randrange(2) else document
    return _at(document, path, lambda holder, key: _apply(random, kind, holder, key, value))


def _apply(random: Random, kind: str, holder: Any, key: Any, value: Any) -> None:
    if kind == "drop":
        del holder[key]
    elif kind in ("rename", "case") and isinstance(holder, dict):
        name = str(key).upper() if kind == "case" else random.choice(TEXTS)
        holder[name] = holder.pop(key)
    elif kind == "wrap":
        holder[key] = random.choice(([value], {"a": value}, [value, value], str(value), {str(key): value}))
    elif kind == "repeat" and isinstance(holder, list):
        holder += [value] * random.choice((1, 20, 1200))
    elif kind == "bend" and isinstance(value, str):
        holder[key] = damaged(random, (value.encode("utf-8", "surrogatepass"),)).decode("utf-8", "replace")
    elif kind == "text":
        holder[key] = letters(random)
    elif kind == "add" and isinstance(holder, dict):
        holder[letters(random)] = random.choice(ODD)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and random.randrange(3) == 0:
        holder[key] = random.choice((-value, value + 1, value - 1, value * 1000, str(value), value // 2))
    else:
        holder[key] = random.choice(ODD)


def letters(random: Random) -> str:
    """Letters of all kinds, but for lone surrogates, which have their own place."""
    most = random.choice((0x7F, 0xFF, 0xD7FF))
    return "".join(chr(random.randint(0, most)) for _ in range(random.randint(0, 40)))


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


def _doubled_key(text: str) -> str:
    start = text.find("{")
    end = text.find(",", start)
    return text if start < 0 or end < 0 else text[: end + 1] + text[start + 1 : end + 1] + text[end + 1 :]


# --- Bytes ------------------------------------------------------------------------------------------------------------


def noise(random: Random, most: int) -> bytes:
    return bytes(random.randint(0, 255) for _ in range(random.randint(0, most)))


def damaged(random: Random, samples: Sequence[bytes]) -> bytes:
    data = bytearray(random.choice(samples))
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, max(0, len(data) - 1))
        length = random.choice((1, 1, 2, 4, 16, 64))
        match random.choice(("flip", "set", "cut", "remove", "insert", "double", "end")):
            case "flip" if data:
                data[place] ^= 1 << random.randint(0, 7)
            case "set":
                data[place : place + length] = bytes([random.randint(0, 255)]) * length
            case "cut":
                del data[place:]
            case "remove":
                del data[place : place + length]
            case "insert":
                data[place:place] = noise(random, 16)
            case "double":
                data[place:place] = data[place : place + length]
            case _:
                data += noise(random, 16)
    return bytes(data)
