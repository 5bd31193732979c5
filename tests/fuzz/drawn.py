"""Inputs for one server that is fed them all: a server for each would take the time. In the gate the same each time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

Value = TypeVar("Value")


def drawn(make: Callable[[Random], Value], examples: int = 25) -> list[Value]:
    random = Random(7)
    return [make(random) for _ in range(examples)]
