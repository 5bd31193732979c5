"""Images of simulated nodes: the name says how a pull of it goes, so that whoever reads it knows."""

from __future__ import annotations

import re
import zlib
from typing import Final

_TAG: Final = re.compile(r":d(?P<milliseconds>\d+)-f(?P<failing>\d+)-")


def image(label: str, *, seconds: float = 0.25, failing: int = 0) -> str:
    """``seconds``: of each action. ``failing``: one of so many nodes fails to pull it; 0 is none."""
    return f"registry.example/chaos:d{round(1000 * seconds)}-f{failing}-{label}"


def seconds_of(image: str) -> float:
    found = _TAG.search(image)
    return int(found["milliseconds"]) / 1000 if found else 0.25


def failure_of(image: str, node: str) -> str:
    """Why this node cannot pull it; empty when it can."""
    found = _TAG.search(image)
    failing = int(found["failing"]) if found else 0
    if failing and zlib.crc32(f"{node} {image}".encode()) % failing == 0:
        return f"layer of {image} is unreadable on {node}"
    return ""
