"""YAML that is nearly right: what JSON cannot say. Aliases that multiply, tags, merges, several documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Final

import yaml

from tests.fuzz.mutation import damaged, wronged

_BOMB: Final = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
_VALUES: Final = (
    "!!python/object/apply:os.system [ls]", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2026-01-01",
    "!!int x", "!!float .nan", "!!null x", "!x y", "&a *a", "*nobody", "&a [*a]", "&a {b: *a}", "<<: *x", "{<<: [1]}",
    "2026-01-01", "2026-13-99", "0o17", "0x1F", "1_000", "12:30:45", ".inf", "-.INF", ".NaN", "yes", "~", "? [a, b]",
    "? {a: b}\n: c",
    "|\n  text", ">-\n  text", "'unclosed", '"\\x00"', '"\\uD800"', "{a: b", "[[[", "\t- a", "- a\n b", "%TAG ! x", "@",
    "`", "a: b: c", "#", "--- a", "...", "[" * 3000, "{a: " * 1500, "- " * 3000, "&x " * 50, "9" * 5000,
    "1e999", "1.e+3",
)  # fmt: skip
_LINES: Final = (
    _BOMB, "---\n", "...\n", "--- !x\n", "%YAML 9.9\n---\n", "%YAML 1.1\n", "kind: twice\n", "? a\n", "\ta: b\n",
    "\x85\n",
    "<<: {a: b}\n", "x: &x {kind: y}\n<<: *x\n", "? [a, b]\n: c\n", "1: 2\n", "null: 3\n",
    "2026-01-01: x\n", "- a\n", "=: v\n",
)  # fmt: skip


def wronged_yaml(random: Random, samples: Sequence[bytes]) -> bytes:
    """Samples are JSON, as everywhere."""
    try:
        document = json.loads(wronged(random, samples) if random.randrange(3) == 0 else random.choice(samples))
        text = yaml.safe_dump(document, default_flow_style=random.choice((None, False)))
    except (ValueError, RecursionError, yaml.YAMLError):
        text = random.choice(samples).decode()
    for _ in range(random.randint(1, 3)):
        text = _change(random, text)
    encoding = random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "utf-32", "latin-1"))
    data = text.encode(encoding, "replace")
    return damaged(random, (data,)) if random.randrange(5) == 0 else data


def _change(random: Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    match random.randrange(6):
        case 0 | 1 if colon:
            lines[at] = f"{key}: {random.choice(_VALUES)}\n"
        case 2:
            lines.insert(at, random.choice(_LINES))
        case 3:
            lines[at] = " " * random.randint(0, 8) + lines[at].lstrip()
        case 4:
            lines.insert(random.randrange(len(lines)), lines[at])
        case _:
            lines[at] = lines[at].rstrip() + f" {random.choice(_VALUES)}\n"
    return "".join(lines)
