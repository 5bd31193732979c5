"""The documents as tests read them: fenced blocks, and program output that is compared with what a page shows.

A page's output is of one run, so what differs from run to run (numbers, times, ids, sizes, the width of columns) is
made alike first. `...` in a page stands for anything that was left out, within a line or as a line of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ALIKE = (
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\d+"), "0"),
    (re.compile(r"\b0(\.0)? [KMG]?i?B\b"), "SIZE"),
    (re.compile(r"\b(0[smhd])+\b"), "AGE"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All of a page's fenced blocks, in its order."""
    return [Block(language, text) for language, text in _FENCED.findall(page.read_text())]


def missing(shown: str, printed: str) -> list[str]:
    """Lines that a page shows and the program did not print, or not in this order."""
    lines = [alike(line) for line in printed.splitlines()]
    lost = []
    for line in shown.splitlines():
        if line.strip() in ("", "..."):
            continue
        wanted = re.compile(".*".join(re.escape(alike(part)) for part in line.split("...")))
        for place, found in enumerate(lines):
            if wanted.fullmatch(found):
                del lines[: place + 1]
                break
        else:
            lost.append(line)
    return lost


def alike(text: str) -> str:
    for pattern, word in _ALIKE:
        text = pattern.sub(word, text)
    return text.strip()
